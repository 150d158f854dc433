"""Finding of a probe."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing about this machine.

    Parameters
    ----------
    topic, name
        Under which heading it belongs, and what it is.
    value
        What was found, in words.
    state
        ``ok``; ``absent`` (not here, and not needed); ``warning`` (works, but not well); ``error`` (the main job,
        camera to depth, cannot run).
    fix
        What to do about it; empty where there is nothing to do.
    """

    topic: str
    name: str
    value: str
    state: str = "ok"
    fix: str = ""


@dataclass(frozen=True)
class Use:
    """Choice for `what`, with its reason."""

    what: str
    choice: str
    why: str


def words(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def version(package: str) -> str:
    """Version of an installed package; empty where it is not known."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def installed(module: str) -> bool:
    """Whether a module is there, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False

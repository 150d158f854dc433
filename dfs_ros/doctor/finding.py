"""Finding of a probe."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Finding about this machine.

    Parameters
    ----------
    topic, name
        Heading and name.
    value
        Text of the finding.
    state
        ``ok``; ``absent`` (missing, not needed); ``warning`` (works with limits); ``error`` (prevents the main job,
        camera to depth).
    fix
        Remedy; empty if none is needed.
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
    """Text of an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def version(package: str) -> str:
    """Version of an installed package; "" if unknown."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def installed(module: str) -> bool:
    """True if a module is installed; does not import it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False

"""Provenance of a figure: commit, machine, date, versions."""

from __future__ import annotations

import datetime
import platform
import subprocess
from functools import lru_cache
from pathlib import Path

import dfs_ros
from dfs_ros.system.cores import usable_cores

_ROOT = Path(__file__).resolve().parents[2]


def provenance() -> dict[str, str]:
    """Facts about this run, for people and for JSON."""
    import cv2
    import numpy
    import scipy

    versions = {"Python": platform.python_version(), "numpy": numpy.__version__, "scipy": scipy.__version__}
    versions["OpenCV"] = cv2.__version__
    try:
        import torch

        versions["PyTorch"] = str(torch.__version__)
    except ImportError:
        pass
    return {
        "dfs_ros": dfs_ros.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


@lru_cache(maxsize=1)
def commit() -> str:
    """Short hash of the checkout, or "unknown" outside one.

    A "+" marks uncommitted changes of the code or models.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != _ROOT:  # installed inside somebody else's repository
            return "unknown"
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "dfs_ros", "dfs_research", "models")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def machine() -> str:
    """Processor and usable cores, without the host's name."""
    name = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    except OSError:
        pass
    cores = usable_cores()
    return f"{name}, {platform.machine()}, {cores} cores, no GPU used"


def markdown_lines(facts: dict[str, str]) -> list[str]:
    """Markdown list of the facts."""
    return [f"- {name}: {value}" for name, value in facts.items()]

"""Folders of the package: shared files (models, config, launch) and caches."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def share_folder(name: str) -> Path:
    """Shared folder `name` of the checkout, a pip install or a colcon install.

    Raises FileNotFoundError with every place tried.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = [
        package.parent / name,
        Path(sys.prefix) / "share" / "dfs_ros" / name,
        *(parent / "share" / "dfs_ros" / name for parent in package.parents[1:5]),
    ]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}: not found in {', '.join(map(str, candidates))}; reinstall dfs_ros")


def cache_folder(name: str) -> Path:
    """Cache folder for one kind of files: `$XDG_CACHE_HOME` (default ~/.cache) /dfs_ros/NAME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dfs_ros" / name

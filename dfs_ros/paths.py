"""Where the package's shared files (models, config, launch) lie: beside the source, or installed under share/dfs_ros."""

from __future__ import annotations

import sys
from pathlib import Path


def share_folder(name: str) -> Path:
    """The folder `name` of the source checkout, of a pip install or of a colcon install, in this order.

    Raises FileNotFoundError that names every place tried.
    """
    package = Path(__file__).resolve().parent
    candidates = [
        package.parent / name,
        Path(sys.prefix) / "share" / "dfs_ros" / name,
        *(parent / "share" / "dfs_ros" / name for parent in package.parents[1:5]),
    ]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}: not found in {', '.join(map(str, candidates))}; reinstall dfs_ros")

"""Folders of the package: shared files (models, config, launch) and caches."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)
_REMEDY = "set XDG_CACHE_HOME to a folder of your own"


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
    """Cache folder for one kind of files: `$XDG_CACHE_HOME` (default ~/.cache) /dfs_ros/NAME, of mode 0700.

    Caches hold code. One that somebody else owns, or can replace, is not used: a temporary folder takes its place, with
    a warning.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dfs_ros" / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:  # its user says what cannot be written
        return folder
    reason = why_untrusted(folder)
    if not reason:
        folder.chmod(0o700)
        return folder
    _log.warning("cache %s is not used, and its content is made at every start: %s", folder, reason)
    return Path(_temporary_folder()) / name


def why_untrusted(folder: Path) -> str:
    """Reason why others may change what is in a folder, with a remedy; "" if only this user and root can."""
    mine = os.geteuid()
    for each in (folder, *folder.resolve().parents):
        found = each.stat()
        if found.st_uid not in ({mine} if each == folder else {mine, 0}):
            return f"{each} belongs to user {found.st_uid}, this is user {mine}; {_REMEDY}"
        if each != folder and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return f"everybody may write in {each}; {_REMEDY}"
    return ""


@functools.cache
def _temporary_folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="dfs_ros_cache_")  # mode 0700
    atexit.register(folder.cleanup)
    return folder.name

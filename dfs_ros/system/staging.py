"""Locked folders for unpublished content: `.NAME.TOKEN.part/NAME` beside its destination.

The writer removes its folder also after Ctrl-C. It holds an flock on it, which ends with its process: a folder without
a holder was left by a dead writer, and the next writer beside it removes it. The moves that its journal lists are
finished before.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import finalize

from dfs_ros.system.tracebacks import keep_traceback

try:
    import fcntl
except ImportError:  # no flock on this system: nothing is recognised as abandoned
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".part"
_NAME = re.compile(r"\.(.+)\.[0-9a-f]{8}" + re.escape(_SUFFIX))
_JOURNAL = "moves"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# The file system or the kernel has no exchange, or the folder is a mount or belongs to somebody else.
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EBUSY, errno.EPERM, errno.EACCES}

_log = logging.getLogger(__name__)


class Staging:
    """Locked folder in `home` whose `content`, a file or folder to be written, is published as `name`."""

    def __init__(self, home: Path, name: str) -> None:
        with one_at_a_time(home):  # none takes it for abandoned before it is locked
            _remove_abandoned(home)
            self.folder = home / f".{name}.{secrets.token_hex(4)}{_SUFFIX}"
            # Ctrl-C can come between any two steps, those of `close` too: then this is done with the object, or at exit
            self._closing = finalize(self, _close, self.folder)
            self.folder.mkdir()
            self._lock = _Opened(self.folder)
            take_lock(self._lock.descriptor)
        self.content = self.folder / name

    def close(self) -> None:
        """Finish the moves that were begun, remove the folder with the rest of its content, and unlock it."""
        _close(self.folder)
        self._closing.detach()
        self._lock.close()

    def plan(self, names: Iterable[str], into: Path, removed: Iterable[str] = ()) -> None:
        """Write the journal: what is to be removed from the folder `into`, then which entries of `content` go there.

        After a kill the next writer does both, with those of the entries that are in `content` then.
        """
        inside = into == self.folder.parent
        planned = {"inside": inside, "names": list(names), "removed": list(removed)}
        journal = self.folder / _JOURNAL
        journal.write_text(json.dumps(planned), encoding="utf-8")
        flush(journal)
        flush(self.folder)

    def finish(self) -> None:
        """Do what is planned."""
        _finish_moves(self.folder)

    def forget_plan(self) -> None:
        """Remove the journal."""
        (self.folder / _JOURNAL).unlink()

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _close(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        _finish_moves(folder)
        shutil.rmtree(folder)
    except OSError as error:
        keep_traceback(error)
        _log.warning("%s: cannot be removed: %s; the next writer beside it tries again", folder, error)


def remove_abandoned(home: Path) -> None:
    """Remove what dead writers left in a folder; finish the moves that they began."""
    with one_at_a_time(home):
        _remove_abandoned(home)


def _remove_abandoned(home: Path) -> None:
    for left in [path for path in home.iterdir() if _NAME.fullmatch(path.name)]:
        try:
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone, or no folder of ours
            continue
        try:
            if os.fstat(descriptor).st_uid == os.geteuid() and lock_is_free(descriptor):
                _finish_moves(left)
                shutil.rmtree(left)
                _log.info("%s: removed; the process that wrote it ended before it was done", left)
        except OSError as error:
            keep_traceback(error)
            _log.warning("%s: left by a process that ended, and cannot be removed: %s", left, error)
        finally:
            os.close(descriptor)


def _finish_moves(left: Path) -> None:
    name, journal = _NAME.fullmatch(left.name), left / _JOURNAL
    try:
        planned = json.loads(journal.read_text(encoding="utf-8"))
        inside = planned["inside"]
        names, removed = ([Path(each).name for each in planned.get(key, [])] for key in ("names", "removed"))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # not written to its end: nothing was moved
    if name is None:
        return
    content, into = left / name[1], left.parent if inside else left.parent / name[1]
    for each in removed:
        if each not in names or os.path.lexists(content / each):  # else it has come already
            (into / each).unlink(missing_ok=True)
    for each in names:
        if os.path.lexists(content / each):
            (content / each).replace(into / each)
    with suppress(FileNotFoundError):  # removed since, and nothing was left to move there
        flush(into)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files or folders in one step; False where this is not possible."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Block in which no other process publishes in a folder, or starts to; waits for its turn."""
    opened = _Opened(folder)
    try:
        take_lock(opened.descriptor)
        yield
    finally:
        opened.close()


class _Opened:
    """Descriptor of a folder, which is closed with the object if Ctrl-C comes before `close`."""

    def __init__(self, folder: Path) -> None:
        self.descriptor = os.open(folder, os.O_RDONLY)
        self._held = [self.descriptor]
        self._closing = finalize(self, _close_all, self._held)

    def close(self) -> None:
        """Close it, also where exit handlers run already, in which the finalizer would do nothing."""
        _close_all(self._held)
        self._closing.detach()


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def take_lock(descriptor: int) -> None:
    """Lock an open file or folder until it is closed, waiting for it; without locks, continue without."""
    if fcntl is not None:
        with suppress(OSError):  # a network file system
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def lock_is_free(descriptor: int) -> bool:
    """Lock an open file or folder if nobody holds it; False also where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def flush(path: Path) -> None:
    """Flush a file or a folder to the disk; skip folders that cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

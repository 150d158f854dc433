"""Atomic files and folders: complete or absent. Every file of the package is published here.

Content is written beside its place, flushed to the disk and put there in one step: Ctrl-C, an error, a kill, a full
disk or a power cut leaves no partial file, and no reader sees one. What a killed writer left is removed by the next.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from dfs_ros.system.staging import Staging, exchange, flush, one_at_a_time


def write_atomically(file: str | Path, content: bytes) -> None:
    """Write a file atomically. Raises OSError, and leaves nothing behind."""
    with atomic_file(file) as partial:
        partial.write_bytes(content)


@contextmanager
def atomic_file(file: str | Path, make_folders: bool = False) -> Iterator[Path]:
    """Temporary path that becomes `file` if the block ends without an exception.

    Raises OSError if it cannot be written; after any exception the temporary file is removed.
    """
    file = Path(file).absolute()
    with Staging(_nearest(file.parent) if make_folders else file.parent, file.name) as staging:
        yield staging.content
        flush(staging.content)
        _make_folders(file.parent)
        staging.content.replace(file)
        flush(file.parent)


def prepare_output(folder: str | Path) -> Path:
    """Check, before long work, that an output folder can be written; return its path.

    Creates nothing. Raises ValueError if it cannot be written.
    """
    folder = Path(folder).absolute()
    try:
        Staging(_home(folder), folder.name).close()
    except OSError as error:
        raise ValueError(
            f"output {folder}: cannot be written ({error.strerror or error}); choose a folder that can"
        ) from error
    return folder


@contextmanager
def staged(folder: str | Path, last: str, replaced: Collection[str] = ()) -> Iterator[Path]:
    """Temporary folder whose files are in `folder` if the block ends without an exception.

    They appear in one step, complete. Other files of an existing folder stay, except those named in `replaced`. Where
    folders cannot be exchanged (a mount, some network file systems) files are replaced one by one, each complete: the
    file named `last` is then removed first and written last, so that it marks a complete set. Raises ValueError if the
    folder cannot be written; after any exception the temporary folder is removed.
    """
    folder = prepare_output(folder).resolve()
    with Staging(_home(folder), folder.name) as staging:
        staging.content.mkdir()
        yield staging.content
        _publish(staging, folder, last, replaced)


@contextmanager
def set_aside(folder: Path, names: Collection[str]) -> Iterator[Callable[[], None]]:
    """Move files out of a folder; they are removed after the block, unless the function given puts them back."""
    folder = folder.resolve()
    with Staging(_home(folder), folder.name) as staging:
        staging.content.mkdir()
        staging.plan(names, folder)  # back again, if this is interrupted
        for name in names:
            (folder / name).replace(staging.content / name)
        staging.forget_plan()

        def put_back() -> None:
            staging.plan(names, folder)
            staging.finish()

        yield put_back


def _home(folder: Path) -> Path:
    """Folder for the temporary one, on the file system of `folder`: that above it, if possible."""
    if folder.is_dir():
        folder = folder.resolve()
        return folder if folder.is_mount() or not os.access(folder.parent, os.W_OK) else folder.parent
    return _nearest(folder)


def _nearest(path: Path) -> Path:
    """The path, or the nearest above it that exists."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def _publish(staging: Staging, folder: Path, last: str, replaced: Collection[str]) -> None:
    for path in (*staging.content.rglob("*"), staging.content):
        flush(path)
    _make_folders(folder.parent)
    with one_at_a_time(folder.parent):
        if not folder.exists():
            staging.content.rename(folder)
        else:
            _publish_over(staging, folder, last, set(replaced))
    flush(folder.parent)


def _publish_over(staging: Staging, folder: Path, last: str, replaced: set[str]) -> None:
    new = sorted((p.name for p in staging.content.iterdir()), key=lambda name: (name == last, name))
    for name in new:
        if (folder / name).is_dir():
            raise ValueError(f"output {folder / name}: expected a file or nothing there, received a folder; remove it")
    kept = {p.name for p in folder.iterdir()} - set(new) - replaced
    if staging.folder.parent == folder.parent:
        shutil.copymode(folder, staging.content)
        staging.plan(kept, folder)
        try:
            if exchange(staging.content, folder):
                return
        finally:  # also after Ctrl-C, before another writer has its turn
            staging.finish()
    staging.plan(new, folder, removed={last, *(replaced - set(new))})
    staging.finish()


def _make_folders(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        flush(path.parent)

"""Files and folders that appear whole or not at all.

Content is written beside its place, flushed to the disk and renamed, so that Ctrl-C, an error, a full disk or a power
cut leaves nothing half-written, and no reader sees half a file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(file: str | Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises OSError, and leaves nothing behind."""
    with atomic_file(file) as partial:
        partial.write_bytes(content)


@contextmanager
def atomic_file(file: str | Path) -> Iterator[Path]:
    """A temporary path beside `file` that becomes it when the block ends without an exception.

    Raises OSError where it cannot be written; after any exception the temporary file is gone.
    """
    file = Path(file)
    partial = _temporary(file.parent, file.name)
    try:
        yield partial
        _flush(partial)
        partial.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _flush(file.parent)


def prepare_output(folder: str | Path) -> Path:
    """The absolute path of an output folder that can be written, checked before long work; creates nothing.

    Raises ValueError where it cannot be written.
    """
    folder = Path(folder).absolute()
    try:
        staging = _make_staging(folder)
        staging.rmdir()
    except OSError as error:
        raise ValueError(
            f"output {folder}: cannot be written ({error.strerror or error}); choose a folder that can"
        ) from error
    return folder


@contextmanager
def staged(folder: str | Path, last: str) -> Iterator[Path]:
    """A temporary folder whose files move to `folder` when the block ends without an exception.

    Where `folder` does not exist yet it appears in one step, complete. Where it exists its files are replaced one by
    one, each whole; the file named `last` is removed first and comes last, so that where it is, the set is complete.
    Raises ValueError where the folder cannot be written; after any exception the temporary folder is gone.
    """
    folder = prepare_output(folder)
    staging = None
    try:
        staging = _make_staging(folder)
        yield staging
        _publish(staging, folder, last)
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _make_staging(folder: Path) -> Path:
    # On the file system of the folder, so that files move there by renaming: inside it (it may be a mount), else
    # where it is going to be made.
    home = folder
    while not os.path.lexists(home):
        home = home.parent
    staging = _temporary(home, folder.name)
    staging.mkdir()
    return staging


def _temporary(folder: Path, name: str) -> Path:
    return folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _flush(path: Path) -> None:
    """A file's content, or a folder's list of files, onto the disk. A folder that cannot be opened stays as it is."""
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


def _publish(staging: Path, folder: Path, last: str) -> None:
    for path in (*staging.rglob("*"), staging):
        _flush(path)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(folder)
        _flush(folder.parent)
        return
    names = sorted((p.name for p in staging.iterdir()), key=lambda name: (name == last, name))
    for name in names:
        if (folder / name).is_dir():
            raise ValueError(f"output {folder / name}: expected a file or nothing there, received a folder; remove it")
    (folder / last).unlink(missing_ok=True)
    for name in names:
        (staging / name).replace(folder / name)
    _flush(folder)

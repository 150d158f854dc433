"""Atomic files and folders: complete or absent.

Content is written beside its place, flushed to the disk and renamed: Ctrl-C, an error, a full disk or a power cut
leaves no partial file, and no reader sees one.
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
    """Write a file atomically. Raises OSError, and leaves nothing behind."""
    with atomic_file(file) as partial:
        partial.write_bytes(content)


@contextmanager
def atomic_file(file: str | Path) -> Iterator[Path]:
    """Temporary path that becomes `file` if the block ends without an exception.

    Raises OSError if it cannot be written; after any exception the temporary file is removed.
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
    """Check, before long work, that an output folder can be written; return its path.

    Creates nothing. Raises ValueError if it cannot be written.
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
    """Temporary folder whose files move to `folder` if the block ends without an exception.

    A new `folder` appears in one step, complete. In an existing one the files are replaced one by one, each complete;
    the file named `last` is removed first and written last, so that it marks a complete set. Raises ValueError if the
    folder cannot be written; after any exception the temporary folder is removed.
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
    # On the file system of the folder, so that files move there by renaming: inside it (it may be a mount), or in its
    # parent if it is new.
    home = folder
    while not os.path.lexists(home):
        home = home.parent
    staging = _temporary(home, folder.name)
    staging.mkdir()
    return staging


def _temporary(folder: Path, name: str) -> Path:
    return folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _flush(path: Path) -> None:
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

"""Files that appear together or not at all, so that Ctrl-C, an error or a full disk leaves nothing half-written."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    staging = home / f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    staging.mkdir()
    return staging


def _publish(staging: Path, folder: Path, last: str) -> None:
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(folder)
        return
    names = sorted((p.name for p in staging.iterdir()), key=lambda name: (name == last, name))
    for name in names:
        if (folder / name).is_dir():
            raise ValueError(f"output {folder / name}: expected a file or nothing there, received a folder; remove it")
    (folder / last).unlink(missing_ok=True)
    for name in names:
        (staging / name).replace(folder / name)

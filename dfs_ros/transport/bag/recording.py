"""Recordings: bags written under their own name, readable at any moment, closed whatever ends them.

The bag lies open with `unfinished.txt` beside its files, which its recorder holds locked, and without metadata.yaml.
What was flushed is on the disk: a kill or a power cut loses what came later.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import yaml

from dfs_ros.system.atomic import set_aside
from dfs_ros.system.staging import flush, lock_is_free, take_lock
from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.transport.bag.files import bag_files, described_files
from dfs_ros.transport.bag.mcap_file import finish
from dfs_ros.transport.bag.metadata import METADATA_FILE, METADATA_VERSION, UNFINISHED_FILE, write_metadata
from dfs_ros.transport.bag.output import check_output, is_file, storage_of
from dfs_ros.transport.bag.storage import Damage, open_bag
from dfs_ros.transport.bag.writer import BagWriter, Split

_UNFINISHED = b"""This bag is being recorded, or its recorder was stopped before it closed the bag.
`dfs replay` reads it as it is; `dfs recover` closes it.
"""
# Freed when the bag is closed, so that its index finds room on a full disk.
_RESERVE_BYTES = 1 << 16


class RecordingEnded(OSError):
    """The disk is full or fails: the bag is closed, and has `kept` of `received` messages."""

    def __init__(self, path: Path, cause: BaseException, kept: int, received: int) -> None:
        super().__init__(f"{path}: the recording ended early, with {kept} of {received} messages: {cause}")
        self.kept, self.received = kept, received


class LowSpace(Exception):
    """Less space is free than wanted; ends a recording."""


@contextmanager
def recording(
    output: str | Path, storage: str | None = None, overwrite: bool = False, split: Split | None = None
) -> Iterator[BagWriter]:
    """Writer of a recording at `output`, a new folder or, by its suffix, a single file.

    It is closed at the end of the block, also after an exception; without a message nothing is left, and what it would
    have replaced is back. Raises ValueError if `output` exists already or cannot be written, and RecordingEnded if the
    disk is full or fails, or for LowSpace.
    """
    output = Path(output).absolute()
    single, split = is_file(output), split or Split()
    storage = storage_of(output, storage)
    if single and split.wanted:
        raise ValueError(f"output {output}: a split bag is a folder; leave out the suffix")
    if is_recorded(output):
        raise ValueError(f"output {output}: is being recorded by another process; name another")
    old = check_output(output, None, overwrite)
    folder = output.parent if single else output
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    writer = BagWriter(folder, storage, name=output.stem if single else output.name, metadata=not single, split=split)
    with ExitStack() as exits:
        exits.callback(_remove_empty, missing)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            put_back = exits.enter_context(set_aside(folder, old))
            try:
                mark = None if single else _marked(folder)
            except BaseException:
                put_back()
                raise
        except OSError as error:
            raise ValueError(f"output {output}: cannot be written ({error.strerror or error})") from error
        try:
            yield from _recorded(writer, output, mark)
        finally:
            if mark is not None:
                mark.unlink(missing_ok=True)
            if not sum(writer.counts.values()):
                for path in writer.files:
                    path.unlink(missing_ok=True)
                (folder / METADATA_FILE).unlink(missing_ok=True)
                put_back()
            else:
                flush(folder)


def _recorded(writer: BagWriter, output: Path, mark: Path | None) -> Iterator[BagWriter]:
    ended: BaseException | None = None
    with ExitStack() as exits:
        try:
            with writer:
                exits.callback(os.close, _locked(mark or writer.files[0]))
                try:
                    yield writer
                except OSError:
                    raise
                except BaseException as error:  # raised again when the bag is closed
                    keep_traceback(error)
                    ended = error
        except OSError as error:
            keep_traceback(error)
            received = sum(writer.counts.values())
            kept = close_bag(output) if received else 0
            raise RecordingEnded(output, error, kept, received) from error
    if isinstance(ended, LowSpace):
        received = sum(writer.counts.values())
        raise RecordingEnded(output, ended, received, received) from ended
    if ended is not None:
        raise ended


def is_recorded(path: Path) -> bool:
    """True if a living process records a bag."""
    target = path / UNFINISHED_FILE if path.is_dir() else path
    try:
        descriptor = os.open(target, os.O_RDWR)
    except OSError:
        return False
    try:
        return not lock_is_free(descriptor)
    finally:
        os.close(descriptor)


def close_bag(path: Path) -> int:
    """Close an unfinished bag in place; return the number of its messages.

    Raises ValueError for a bag that is being recorded or is none, OSError if it cannot be written.
    """
    mark = path / UNFINISHED_FILE
    with suppress(OSError):
        os.truncate(mark, 0)  # room for the rest
    files = [path] if path.is_file() else bag_files(path)
    for file in files:
        _close_file(file)
    if path.is_file():
        return _messages(path)
    information = described_files(path)
    write_metadata(path, information)
    mark.unlink(missing_ok=True)
    flush(path)
    return int(information["message_count"])


def _close_file(file: Path) -> None:
    damage = Damage()
    open_bag(file, damage).close()
    if not damage.unfinished:
        return
    if file.suffix == ".mcap":
        finish(file)
        return
    database = sqlite3.connect(file)
    with suppress(sqlite3.Error):  # a full disk: the messages are whole without it
        text = yaml.safe_dump(described_files(file), sort_keys=False)
        database.execute("INSERT INTO metadata VALUES(NULL, ?, ?)", (METADATA_VERSION, text))
        database.commit()
    database.close()


def _messages(file: Path) -> int:
    reader = open_bag(file, Damage())
    try:
        return reader.message_count
    finally:
        reader.close()


def _marked(folder: Path) -> Path:
    mark = folder / UNFINISHED_FILE
    mark.write_bytes(_UNFINISHED.ljust(_RESERVE_BYTES, b"\n"))
    flush(mark)
    flush(folder)
    return mark


def _remove_empty(folders: list[Path]) -> None:
    for path in folders:
        with suppress(OSError):  # not empty
            path.rmdir()


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR)
    take_lock(descriptor)
    return descriptor

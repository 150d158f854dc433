"""Atomic output of bags: complete or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfs_ros.system.atomic import atomic_file, staged
from dfs_ros.transport.bag.metadata import METADATA_FILE, STORAGES, UNFINISHED_FILE
from dfs_ros.transport.bag.writer import BagWriter


@contextmanager
def bag_output(
    output: str | Path, storage: str | None = None, overwrite: bool = False, *, source: Path | None = None
) -> Iterator[BagWriter]:
    """Writer of a bag that appears at `output` if the block ends without an exception.

    Parameters
    ----------
    output
        New folder, or with the suffix .mcap or .db3 a single file.
    storage
        mcap or sqlite3; None = by the suffix, else mcap.
    overwrite
        Replace an existing bag.
    source
        Bag that is read meanwhile, and must not be overwritten.

    Raises ValueError if `output` exists already or cannot be written.
    """
    output = Path(output)
    storage = storage_of(output, storage)
    old = check_output(output, source, overwrite)
    if is_file(output):
        with (
            atomic_file(output, make_folders=True) as partial,
            BagWriter(partial.parent, storage, name=output.stem, metadata=False) as writer,
        ):
            yield writer
        return
    with staged(output, last=METADATA_FILE, replaced=old) as folder, BagWriter(folder, storage) as writer:
        yield writer


def storage_of(output: Path, storage: str | None) -> str:
    """Storage of a new bag: as given, else by the suffix, else mcap. Raises ValueError if the two differ."""
    by_suffix = {suffix: name for name, suffix in STORAGES.items()}.get(output.suffix)
    if storage is not None and by_suffix is not None and storage != by_suffix:
        raise ValueError(f"output {output}: its suffix means {by_suffix}, received storage {storage!r} as well")
    return storage or by_suffix or "mcap"


def is_file(output: Path) -> bool:
    """True for a bag of a single file, by its suffix."""
    return output.suffix in STORAGES.values()


def check_output(output: Path, source: Path | None, overwrite: bool) -> list[str]:
    """Names of the files of a bag at `output`, to be replaced. Raises ValueError for anything else there."""
    here, there = output.resolve(), source.resolve() if source is not None else None
    if there is not None and (here in (there, there.parent) or there in here.parents):
        raise ValueError(f"output {output}: lies where the bag is that is replayed, which stays as it is; name another")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return []
    if is_file(output):
        if output.is_dir():
            raise ValueError(f"output {output}: expected a file or nothing there, received a folder; remove it")
        old = [output.name]
    else:
        old = [p.name for p in output.iterdir() if _is_of_bag(p)] if output.is_dir() else []
    if not old:
        raise ValueError(f"output {output}: expected a new or empty folder, or a bag, received something else")
    if not overwrite:
        raise ValueError(f"output {output}: is there already; name another, or say --overwrite")
    return old


def _is_of_bag(path: Path) -> bool:
    names = (METADATA_FILE, UNFINISHED_FILE)
    return path.name in names or path.suffix in (*STORAGES.values(), ".zstd", ".db3-journal", ".db3-wal", ".db3-shm")

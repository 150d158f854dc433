"""Atomic output of bags: complete or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfs_ros.system.atomic import staged
from dfs_ros.transport.bag.files import METADATA_FILE, STORAGES, BagWriter


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
    by_suffix = {suffix: name for name, suffix in STORAGES.items()}.get(output.suffix)
    if storage is not None and by_suffix is not None and storage != by_suffix:
        raise ValueError(f"output {output}: its suffix means {by_suffix}, received storage {storage!r} as well")
    storage = storage or by_suffix or "mcap"
    old = _check_output(output, source, overwrite)
    if by_suffix is not None:
        with staged(output.parent, last=output.name) as staging:
            with BagWriter(staging / output.stem, storage) as writer:
                yield writer
            (staging / output.stem / output.name).replace(staging / output.name)
            shutil.rmtree(staging / output.stem)
        return
    with staged(output, last=METADATA_FILE) as staging:
        bag = staging / output.absolute().name
        with BagWriter(bag, storage) as writer:
            yield writer
        for file in bag.iterdir():
            file.replace(staging / file.name)
        bag.rmdir()
        new = {file.name for file in staging.iterdir()}
    for file in old:
        if file.name not in new:
            file.unlink(missing_ok=True)


def _check_output(output: Path, source: Path | None, overwrite: bool) -> list[Path]:
    """Files of a bag at `output`, to be replaced. Raises ValueError for anything else there."""
    here, there = output.resolve(), source.resolve() if source is not None else None
    if there is not None and (here in (there, there.parent) or there in here.parents):
        raise ValueError(f"output {output}: lies where the bag is that is replayed, which stays as it is; name another")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return []
    if output.suffix in STORAGES.values():
        if output.is_dir():
            raise ValueError(f"output {output}: expected a file or nothing there, received a folder; remove it")
        is_bag = True
    else:
        is_bag = output.is_dir() and (output / METADATA_FILE).is_file()
    if not is_bag:
        raise ValueError(f"output {output}: expected a new or empty folder, or a bag, received something else")
    if not overwrite:
        raise ValueError(f"output {output}: is there already; name another, or say --overwrite")
    return [p for p in output.iterdir() if p.suffix in (*STORAGES.values(), ".zstd")] if output.is_dir() else []

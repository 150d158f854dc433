"""Decompression of bags by zstd, message by message or as whole files, with limits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from dfs_ros.config import read_yaml
from dfs_ros.transport.bag.metadata import MAX_MESSAGE_BYTES, METADATA_FILE, write_metadata

MOST_TIMES_LARGER = 1000
"""Largest ratio of a file to its compressed form; images of a covered lens may have more, a bomb has."""
_ALWAYS_BYTES = 1 << 26
_LEFT_FREE_BYTES = 1 << 30
_STEP_BYTES = 1 << 20


def inflated_message(data: bytes) -> bytes:
    """Decompress a message. Raises ValueError for one over :data:`MAX_MESSAGE_BYTES`."""
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(data) as reader:
        content = reader.read(MAX_MESSAGE_BYTES + 1)
    if len(content) > MAX_MESSAGE_BYTES:
        raise ValueError(f"expected messages of at most {MAX_MESSAGE_BYTES} bytes, received a longer one")
    return content


@contextmanager
def inflated_files(bag: Path) -> Iterator[Path]:
    """The bag itself, or a temporary one of its files decompressed, if these are compressed as a whole.

    Raises ValueError for files that unpack to over :data:`MOST_TIMES_LARGER` times their size, or to more than is free.
    """
    document = read_yaml(bag / METADATA_FILE, METADATA_FILE) if bag.is_dir() else None
    information: Any = document.get("rosbag2_bagfile_information") if isinstance(document, dict) else None
    mode = str(information.get("compression_mode", "")).lower() if isinstance(information, dict) else ""
    if mode != "file" or information.get("compression_format") != "zstd":
        yield bag
        return
    with TemporaryDirectory(prefix="dfs_bag_") as made:
        view = Path(made)
        names = [PurePath(str(path)).name for path in information["relative_file_paths"]]
        for name in names:
            _inflate(bag / name, view / PurePath(name).stem)
        plain = {"compression_mode": "", "compression_format": ""}
        files = {"relative_file_paths": [PurePath(name).stem for name in names]}
        write_metadata(view, {**information, **plain, **files})
        yield view


def _inflate(file: Path, destination: Path) -> None:
    """Decompress one file, a step at a time."""
    import zstandard

    stored = file.stat().st_size
    most = max(MOST_TIMES_LARGER * stored, _ALWAYS_BYTES)
    written = 0
    unpacked = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    with (
        file.open("rb") as packed,
        destination.open("wb") as out,
        unpacked.stream_reader(packed, read_across_frames=True) as reader,
    ):
        while part := reader.read(_STEP_BYTES):
            written += len(part)
            free = shutil.disk_usage(destination.parent).free
            if written > most or len(part) + _LEFT_FREE_BYTES > free:
                of = f"{most} bytes, by its own size" if written > most else f"{free} free bytes"
                raise ValueError(
                    f"{file.name}: expected to unpack to at most {of}, received more than {written}; if it is sound, "
                    f"unpack it (`zstd -d {file.name}`) and read that file"
                )
            out.write(part)

"""Bags that unpack to far more than they are: refused or left out, within bounded memory and space."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard

from dfs_ros.messages.definitions import message, serialize
from dfs_ros.transport.bag import inflate, mcap_file
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.recording import recording
from dfs_ros.transport.base import RELIABLE

TYPE = "std_msgs/msg/UInt8MultiArray"


def recorded(bag: Path, count: int = 3) -> Path:
    payload = bytes(serialize(message(TYPE), TYPE))
    with recording(bag, "mcap") as writer:
        writer.announce("/data", TYPE, RELIABLE)
        for number in range(count):
            writer.write("/data", TYPE, number, payload)
    return bag / f"{bag.name}.mcap"


def stamps(bag: Path) -> tuple[list[int], list[str]]:
    with BagReader(bag) as reader:
        found = [m.stamp_ns for m in reader.messages(reader.topics)]
        return found, reader.damage.sentences


def compress_files(bag: Path, content: bytes) -> None:
    """Make a bag that is compressed as a whole, of one file with this content."""
    name = f"{bag.name}.mcap.zstd"
    (bag / name).write_bytes(zstandard.compress(content))
    document: Any = yaml.safe_load((bag / "metadata.yaml").read_text())
    document["rosbag2_bagfile_information"] |= {
        "relative_file_paths": [name],
        "compression_format": "zstd",
        "compression_mode": "FILE",
    }
    (bag / "metadata.yaml").write_text(yaml.safe_dump(document))


def test_a_compressed_file_is_unpacked_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = tmp_path / "bag"
    file = recorded(bag)
    content = file.read_bytes()
    file.unlink()
    compress_files(bag, content)
    assert stamps(bag) == ([0, 1, 2], [])
    monkeypatch.setattr(inflate, "_ALWAYS_BYTES", 1 << 20)
    compress_files(bag, content + bytes(5_000_000))
    with pytest.raises(
        ValueError, match=r"bag.mcap.zstd: expected to unpack to at most 1[01]\d{5} bytes, by its own size, received"
    ):
        BagReader(bag)
    monkeypatch.setattr(inflate, "_LEFT_FREE_BYTES", 1 << 60)
    compress_files(bag, content)
    with pytest.raises(ValueError, match=r"at most \d+ free bytes, received more than"):
        BagReader(bag)


def without_index(file: Path, bomb: bool) -> None:
    """Cut the index off, as some recorders write none; `bomb`: the chunk declares and holds 600 MB."""
    with file.open("rb") as stream:
        found = mcap_file.walk(stream)
        (chunk,) = found.chunks
        stream.seek(0)
        data = stream.read(chunk.chunk_start_offset + chunk.chunk_length)
    if bomb:
        packed = zstandard.compress(bytes(600_000_000))
        head = struct.pack("<QQQII", 0, 3, 600_000_000, 0, 4) + b"zstd" + struct.pack("<Q", len(packed))
        data = data[: chunk.chunk_start_offset] + struct.pack("<BQ", 6, len(head) + len(packed)) + head + packed
    end = io.BytesIO()
    for opcode, content in ((0x0F, bytes(4)), (2, bytes(20))):
        end.write(struct.pack("<BQ", opcode, len(content)) + content)
    file.write_bytes(data + end.getvalue() + b"\x89MCAP0\r\n")


def test_a_file_without_an_index_is_whole(tmp_path: Path) -> None:
    file = recorded(tmp_path / "bag")
    without_index(file, bomb=False)
    assert stamps(tmp_path / "bag") == ([0, 1, 2], [])
    assert stamps(file) == ([0, 1, 2], [])


def test_a_chunk_without_an_index_is_unpacked_up_to_a_limit(tmp_path: Path) -> None:
    file = recorded(tmp_path / "bag")
    without_index(file, bomb=True)
    found, damage = stamps(tmp_path / "bag")
    assert found == []
    assert "expected at most 536870912 bytes uncompressed, received 600000000" in " ".join(damage)

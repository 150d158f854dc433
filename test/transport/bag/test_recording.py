"""Recordings that something ends: what was flushed is there, under its own name, and is closed in place."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from bag_rig import dfs_replay, record_plane

from dfs_ros.cli.main import main
from dfs_ros.messages.definitions import message, serialize
from dfs_ros.transport.bag import mcap_file
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.recording import LowSpace, RecordingEnded, close_bag, is_recorded, recording
from dfs_ros.transport.bag.writer import BagWriter, Split
from dfs_ros.transport.base import RELIABLE

NUMBER = "std_msgs/msg/Int32"
Capture = pytest.CaptureFixture[str]


def write(writer: BagWriter, numbers: range) -> None:
    writer.announce("/number", NUMBER, RELIABLE)
    for i in numbers:
        writer.write("/number", NUMBER, 1000 + i, bytes(serialize(message(NUMBER, data=i), NUMBER)))


def numbers(bag: Path) -> list[int]:
    with BagReader(bag) as reader:
        return [m.stamp_ns - 1000 for m in reader.messages(reader.topics)]


def unfinished(bag: Path, storage: str, split: Split | None = None) -> Path:
    """A bag as it lies after SIGKILL: 30 messages flushed, ten more lost."""
    child = os.fork()
    if not child:
        with recording(bag, storage, split=split) as writer:
            write(writer, range(30))
            writer.flush()
            write(writer, range(30, 40))
            os._exit(0)
    os.waitpid(child, 0)
    return bag


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["bag", "bag.mcap", "bag.db3"])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_killed_recording_is_read_and_closed(tmp_path: Path, name: str, storage: str, capsys: Capture) -> None:
    if name.endswith(".db3") != (storage == "sqlite3") and "." in name:
        pytest.skip("the suffix is that of the other storage")
    bag = unfinished(tmp_path / name, storage)
    assert numbers(bag) == list(range(30))
    with BagReader(bag) as reader:
        assert reader.damage.unfinished and "30 messages" in " ".join(reader.damage.sentences)
    with pytest.raises(ValueError, match="is there already; name another, or say --overwrite"), recording(bag, storage):
        pass
    assert main(["recover", str(bag)]) == 0
    assert f"{bag}: closed, 30 messages" in capsys.readouterr().out
    assert main(["recover", str(bag)]) == 0
    assert "is closed already" in capsys.readouterr().out
    with BagReader(bag) as reader:
        assert not reader.damage.sentences and reader.count == 30
    assert numbers(bag) == list(range(30)) and not list(tmp_path.rglob("unfinished.txt"))
    with recording(bag, storage, overwrite=True) as writer:
        write(writer, range(3))
    assert numbers(bag) == [0, 1, 2]


def test_a_recording_in_progress_is_read_and_left_alone(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    with recording(bag) as writer:
        write(writer, range(5))
        writer.flush()
        assert is_recorded(bag) and numbers(bag) == list(range(5))
        assert main(["recover", str(bag)]) == 2
        with pytest.raises(ValueError, match="is being recorded by another process"), recording(bag, overwrite=True):
            pass
        write(writer, range(5, 8))
    assert not is_recorded(bag) and numbers(bag) == list(range(8))
    assert sorted(p.name for p in bag.iterdir()) == ["bag.mcap", "metadata.yaml"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_an_error_closes_the_bag_and_nothing_received_leaves_the_old_one(tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "new" / "bag"
    with pytest.raises(RuntimeError), recording(bag, storage):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), recording(bag, storage) as writer:
        write(writer, range(4))
        raise KeyboardInterrupt
    assert numbers(bag) == [0, 1, 2, 3]
    with recording(bag, storage, overwrite=True):
        pass
    assert numbers(bag) == [0, 1, 2, 3]
    ended = pytest.raises(RecordingEnded, match="with 2 of 2 messages: 5 MB are free")
    with ended, recording(bag, storage, overwrite=True) as writer:
        write(writer, range(2))
        raise LowSpace("5 MB are free")
    assert numbers(bag) == [0, 1]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_disk_that_fails_ends_the_recording_with_what_was_flushed(tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "bag"
    with pytest.raises(RecordingEnded, match="with 20 of 25 messages") as ended, recording(bag, storage) as writer:
        write(writer, range(20))
        writer.flush()
        write(writer, range(20, 25))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (ended.value.kept, ended.value.received) == (20, 25)
    assert numbers(bag) == list(range(20))
    with BagReader(bag) as reader:
        assert not reader.damage.sentences


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("split", [Split(max_bytes=60), Split(max_duration_ns=10)])
def test_long_recordings_are_split_as_rosbag2_names_files(tmp_path: Path, storage: str, split: Split) -> None:
    bag = tmp_path / "bag"
    with recording(bag, storage, split=split) as writer:
        write(writer, range(25))
    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    suffix = ".mcap" if storage == "mcap" else ".db3"
    files = information["relative_file_paths"]
    assert files[:2] == [f"bag_0{suffix}", f"bag_1{suffix}"] and len(files) >= 3
    assert [file["path"] for file in information["files"]] == files
    assert sum(file["message_count"] for file in information["files"]) == information["message_count"] == 25
    assert numbers(bag) == list(range(25))
    (bag / "metadata.yaml").unlink()
    assert numbers(bag) == list(range(25))
    assert close_bag(bag) == 25
    assert numbers(bag) == list(range(25))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_flipped_byte_of_a_message_is_left_out(tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "bag"
    with recording(bag, storage) as writer:
        for start in range(0, 30, 10):
            write(writer, range(start, start + 10))
            writer.flush()
    file = next(p for p in bag.iterdir() if p.suffix in (".mcap", ".db3"))
    content = file.read_bytes()
    spot = bytes(serialize(message(NUMBER, data=15), NUMBER))
    assert content.count(spot) == 1
    file.write_bytes(content.replace(spot, spot[:4] + b"\x10" + spot[5:]))
    found = numbers(bag)
    assert 15 not in found and len(found) == (20 if storage == "mcap" else 29)
    with BagReader(bag) as reader:
        list(reader.messages(reader.topics))
        assert any("CRC differs" in sentence for sentence in reader.damage.sentences)


def test_replay_says_what_is_missing(tmp_path: Path, capsys: Capture) -> None:
    bag = record_plane(tmp_path / "bag", sweeps=4)
    assert dfs_replay(bag, tmp_path / "a", "--strict") == 0
    (bag / "metadata.yaml").unlink()
    assert dfs_replay(bag, tmp_path / "b") == 0
    assert "warning: " in capsys.readouterr().err
    assert dfs_replay(bag, tmp_path / "c", "--strict") == 3


def test_two_bags_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with recording(tmp_path / name) as writer:
            write(writer, range(3))
        (tmp_path / name / f"{name}.mcap").rename(tmp_path / f"{name}.mcap")
    with pytest.raises(ValueError, match=r"received one.mcap, two.mcap; name one of them"):
        BagReader(tmp_path)


def test_a_chunk_that_unpacks_to_more_than_it_says_is_refused() -> None:
    import lz4.frame
    import zstandard

    bomb = bytes(10_000_000)
    for name, packed in (("zstd", zstandard.compress(bomb)), ("lz4", lz4.frame.compress(bomb))):
        assert mcap_file.inflated(name, packed, len(bomb)) == bomb
        with pytest.raises(ValueError, match="expected 1000 bytes, received 1001 or more"):
            mcap_file.inflated(name, packed, 1000)
        with pytest.raises(ValueError, match="expected at most 536870912 bytes"):
            mcap_file.inflated(name, packed, 1 << 40)


def test_on_a_full_disk_the_last_chunks_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = tmp_path / "bag.mcap"
    with recording(bag) as writer:
        for start in range(0, 30, 10):
            write(writer, range(start, start + 10))
            writer.flush()
    fsync, left = os.fsync, [2]

    def full(descriptor: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert mcap_file.finish(bag).messages == 10
    monkeypatch.undo()
    assert numbers(bag) == list(range(10))


def test_a_flush_of_sqlite3_outlasts_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's end is on the disk, too: `python -m benchmarks.faults power` cuts in fact."""
    opened: list[sqlite3.Connection] = []

    def connect(path: Path) -> sqlite3.Connection:
        opened.append(connected(path))
        return opened[-1]

    connected = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    with BagWriter(tmp_path / "bag", "sqlite3") as writer:
        writer.announce("/depth/image", "std_msgs/msg/String", RELIABLE)
        assert opened[0].execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
        assert opened[0].execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_other_readers_pass_over_the_checksums(tmp_path: Path) -> None:
    from rosbags.rosbag2 import Reader

    bag = tmp_path / "bag"
    with recording(bag, "sqlite3") as writer:
        write(writer, range(3))
    with Reader(bag) as reader:
        assert [stamp for _, stamp, _ in reader.messages()] == [1000, 1001, 1002]
    with sqlite3.connect(bag / "bag.db3") as database:
        rows: list[Any] = database.execute("SELECT count(*) FROM dfs_ros_checksums").fetchall()
    database.close()
    assert rows == [(3,)]

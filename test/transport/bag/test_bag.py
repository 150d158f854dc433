"""Bags as files, and a node on a bag: what is written is read back, what is damaged is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bag_rig import PERIOD_NS, messages_of, record_plane
from node_rig import FOCUS_DIOPTERS, START_NS, plane_stack

from dfs_ros.messages.convert import FOCUS, IMAGE, image_from_message, stamp_ns
from dfs_ros.messages.definitions import message, serialize, type_store
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.metadata import BagMessage
from dfs_ros.transport.bag.transport import BagTransport
from dfs_ros.transport.bag.writer import BagWriter
from dfs_ros.transport.base import LATCHED, SENSOR_DATA

NUMBER = "std_msgs/msg/Int32"


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def bag(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_plane(tmp_path_factory.mktemp("bag") / request.param, storage=request.param)


def test_a_recorded_camera_is_read_back_whole(bag: Path) -> None:
    with BagReader(bag) as reader:
        topics = {t.name: (t.type_name, t.messages) for t in reader.topics}
        assert topics == {
            "/image": (IMAGE, 6),
            "/camera_info": ("sensor_msgs/msg/CameraInfo", 6),
            "/focus": (FOCUS, 6),
        }
        assert (reader.count, reader.start_ns, reader.end_ns) == (18, START_NS, START_NS + 5 * PERIOD_NS + 1)
        images = [t for t in reader.topics if t.name == "/image"]
        some = list(reader.messages(images, START_NS + PERIOD_NS, START_NS + 3 * PERIOD_NS))
        assert [m.stamp_ns for m in some] == [START_NS + PERIOD_NS, START_NS + 2 * PERIOD_NS]
        assert list(reader.messages([])) == []
    found = messages_of(bag)
    np.testing.assert_array_equal([image_from_message(m) for m in found["/image"][:3]], plane_stack().images)
    assert [m.focus_diopters for m in found["/focus"]] == pytest.approx(FOCUS_DIOPTERS * 2)
    assert [stamp_ns(m.header.stamp) for m in found["/focus"]] == [START_NS + i * PERIOD_NS for i in range(6)]


def test_metadata_is_what_players_need(bag: Path) -> None:
    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert information["version"] == 8
    assert information["storage_identifier"] == bag.name
    assert (information["compression_format"], information["compression_mode"]) == ("", "")
    assert information["relative_file_paths"] == [bag.name + (".mcap" if bag.name == "mcap" else ".db3")]
    assert information["duration"]["nanoseconds"] == 5 * PERIOD_NS
    for topic in information["topics_with_message_count"]:
        data = topic["topic_metadata"]
        assert data["serialization_format"] == "cdr"
        assert data["type_description_hash"] == type_store().hash_rihs01(data["type"])
        (qos,) = yaml.safe_load(data["offered_qos_profiles"])
        assert {k: qos[k] for k in ("history", "depth", "reliability", "durability", "liveliness")} == {
            "history": 1,
            "depth": 5,
            "reliability": 1,
            "durability": 2,
            "liveliness": 1,
        }
        assert qos["deadline"] == qos["lifespan"] == {"sec": 9223372036, "nsec": 854775807}


def test_quality_of_service_goes_into_the_bag(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "b") as writer, BagTransport("node", writer, 0) as node:
        node.create_publisher("once", NUMBER, LATCHED).publish(message(NUMBER, data=3))
        node.create_publisher("often", NUMBER, SENSOR_DATA)
    with BagReader(tmp_path / "b") as reader:
        profiles = {t.name: t.connection.ext.offered_qos_profiles[0] for t in reader.topics}
    assert {name: (q.reliability.name, q.durability.name, q.depth) for name, q in profiles.items()} == {
        "/once": ("RELIABLE", "TRANSIENT_LOCAL", 1),
        "/often": ("BEST_EFFORT", "VOLATILE", 5),
    }


def test_the_same_calls_give_the_same_bytes(bag: Path, tmp_path: Path) -> None:
    again = record_plane(tmp_path / bag.name, storage=bag.name)
    for file in sorted(bag.iterdir()):
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name


def test_another_reader_agrees(tmp_path: Path) -> None:
    mcap = pytest.importorskip("mcap.reader", reason="the package mcap is not installed")
    bag = record_plane(tmp_path / "b")
    with (bag / "b.mcap").open("rb") as stream:
        reader = mcap.make_reader(stream)
        summary = reader.get_summary()
        channels = {c.topic: (summary.schemas[c.schema_id].name, c.message_encoding) for c in summary.channels.values()}
        assert channels["/focus"] == (FOCUS, "cdr")
        focus = next(s for s in summary.schemas.values() if s.name == FOCUS)
        assert focus.encoding == "ros2msg"
        assert b"float32 focus_diopters" in focus.data and b"MSG: std_msgs/Header" in focus.data
        times = [(channel.topic, m.log_time) for _, channel, m in reader.iter_messages()]
    assert len(times) == 18 == summary.statistics.message_count
    assert [t for topic, t in times if topic == "/image"] == [START_NS + i * PERIOD_NS for i in range(6)]


# -- the node's side ---------------------------------------------------------------------------------------------------


def recorded(topic: str, type_name: str, stamp: int, data: bytes) -> BagMessage:
    from dfs_ros.transport.bag.metadata import BagTopic

    return BagMessage(BagTopic(topic, type_name, 1, None), stamp, data)  # type: ignore[arg-type]


def number(value: int) -> bytes:
    return bytes(serialize(message(NUMBER, data=value), NUMBER))


def test_messages_and_timers_come_in_the_order_of_the_bag() -> None:
    events: list[tuple[str, int]] = []
    with BagTransport("node", None, 0) as node:
        node.create_subscription("number", NUMBER, lambda msg: events.append((f"got {msg.data}", node.now_ns())))
        node.create_timer(1e-6, lambda: events.append(("tick", node.now_ns())))
        node.play(recorded("/number", NUMBER, 500, number(1)))
        node.play(recorded("/number", NUMBER, 2500, number(2)))
        node.play(recorded("/number", NUMBER, 2400, number(3)))  # a bag in pieces: time never goes back
    assert events == [("got 1", 500), ("tick", 1000), ("tick", 2000), ("got 2", 2500), ("got 3", 2500)]


def test_a_clock_that_leaps_by_years_does_not_take_as_long() -> None:
    ticks = []
    with BagTransport("node", None, 0) as node:
        node.create_timer(1.0, lambda: ticks.append(node.now_ns()))
        node.advance_to(10**18)
        assert node.now_ns() == 10**18
    assert 1000 <= len(ticks) <= 1001


def test_messages_that_cannot_be_decoded_or_are_of_others_are_told_apart() -> None:
    values = []
    with BagTransport("node", None, 0) as node:
        subscription = node.create_subscription("number", NUMBER, lambda msg: values.append(msg.data))
        node.play(recorded("/number", NUMBER, 1, number(1)[:-2]))
        node.play(recorded("/number", "std_msgs/msg/Float32", 2, number(7)))
        node.play(recorded("/other", NUMBER, 3, number(8)))
        node.play(recorded("/number", NUMBER, 4, number(2)))
        assert subscription.publisher_count() == 1
    assert (values, subscription.faults["malformed"], subscription.received) == ([2], 1, 1)


def test_only_what_is_recorded_has_receivers() -> None:
    seen = []
    with BagTransport("node", None, 0, recorded=lambda topic: topic == "/kept") as node:
        kept, left, watched = (node.create_publisher(name, NUMBER) for name in ("kept", "left", "watched"))
        node.watch("/watched", lambda msg: seen.append(msg.data))
        assert [p.subscription_count() for p in (kept, left, watched)] == [1, 0, 1]
        watched.publish(message(NUMBER, data=4))
    assert seen == [4]
    kept.publish(message(NUMBER, data=5))  # after its shutdown nothing happens
    assert kept.published == 0


def compressed(bag: Path, output: Path, mode: str) -> Path:
    """The bag as it is recorded with compression."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

    storage = StoragePlugin.MCAP if bag.name == "mcap" else StoragePlugin.SQLITE3
    writer = Writer(output, version=9, storage_plugin=storage)
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with Reader(bag) as reader, writer:
        topics = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=type_store()) for c in reader.connections}
        for connection, stamp, data in reader.messages():
            writer.write(topics[connection.id], stamp, data)
    return output


@pytest.mark.parametrize("mode", ["FILE", "MESSAGE", "STORAGE"])
def test_compressed_bags_are_read(bag: Path, tmp_path: Path, mode: str) -> None:
    if bag.name == "sqlite3" and mode == "STORAGE":
        pytest.skip("sqlite3 has no compression of its own")
    small = compressed(bag, tmp_path / "small", mode)
    with BagReader(bag) as before, BagReader(small) as after:
        for name in ("/image", "/focus"):
            old, new = (
                [(m.stamp_ns, m.data) for m in r.messages([t for t in r.topics if t.name == name])]
                for r in (before, after)
            )
            assert old == new and len(old) == 6


# -- what is wrong with bags -------------------------------------------------------------------------------------------


def storage_file(bag: Path) -> Path:
    return next(p for p in bag.iterdir() if p.suffix in (".mcap", ".db3"))


def truncated(bag: Path) -> None:
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def no_data_file(bag: Path) -> None:
    storage_file(bag).unlink()


def no_metadata(bag: Path) -> None:
    (bag / "metadata.yaml").unlink()


def metadata_is_no_yaml(bag: Path) -> None:
    (bag / "metadata.yaml").write_text("{[")


def metadata_of_something_else(bag: Path) -> None:
    (bag / "metadata.yaml").write_text("name: else\n")


def changed(key: str, value: Any) -> Callable[[Path], None]:
    def change(bag: Path) -> None:
        document = yaml.safe_load((bag / "metadata.yaml").read_text())
        document["rosbag2_bagfile_information"][key] = value
        (bag / "metadata.yaml").write_text(yaml.safe_dump(document))

    return change


def overwritten(bag: Path) -> None:
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    data[100 : len(data) // 2] = bytes(len(data) // 2 - 100)
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_data_file, "Some database files are missing"),
        (changed("storage_identifier", "floppy"), "'floppy' not supported"),
        (changed("version", 99), "version 99 not supported"),
        (changed("compression_mode", "MESSAGE"), "Compression format None is not supported"),
        (metadata_of_something_else, "cannot be read"),
    ],
)
def test_bags_that_cannot_be_read_are_refused(
    bag: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    damaged = shutil.copytree(bag, tmp_path / bag.name)
    spoil(damaged)
    with pytest.raises(ValueError, match=r"^bag ") as error:
        BagReader(damaged)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "kept"),
    [(truncated, range(18)), (overwritten, range(18)), (no_metadata, [18]), (metadata_is_no_yaml, [18])],
)
def test_damaged_bags_are_read_as_far_as_they_are_whole(
    bag: Path, tmp_path: Path, spoil: Callable[[Path], None], kept: Collection[int]
) -> None:
    damaged = shutil.copytree(bag, tmp_path / bag.name)
    spoil(damaged)
    with BagReader(bag) as reader:
        whole = {(m.topic.name, m.stamp_ns): m.data for m in reader.messages(reader.topics)}
    try:
        with BagReader(damaged) as reader:
            found = {(m.topic.name, m.stamp_ns): m.data for m in reader.messages(reader.topics)}
            assert reader.damage.sentences
            text = "; ".join(reader.damage.sentences)
    except ValueError as error:
        assert "damaged" in str(error) and spoil in (truncated, overwritten)
        return
    assert found.items() <= whole.items()
    assert len(found) in kept, text


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        BagReader(tmp_path / "none")
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(ValueError, match="is of ROS 1; convert it"):
        BagReader(tmp_path / "old.bag")
    (tmp_path / "notes.txt").write_text("no bag")
    with pytest.raises(ValueError, match=r"or a file \.mcap or \.db3"):
        BagReader(tmp_path / "notes.txt")
    (tmp_path / "empty.mcap").write_bytes(b"")
    (tmp_path / "text.db3").write_text("no database, but long enough to be looked into")
    for name in ("empty.mcap", "text.db3"):
        with pytest.raises(ValueError, match="cannot be read"):
            BagReader(tmp_path / name)


def test_a_writer_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of mcap, sqlite3, received 'tape'"):
        BagWriter(tmp_path / "b", "tape")
    with pytest.raises(RuntimeError), BagWriter(tmp_path / "c") as writer:
        writer.announce("/number", NUMBER, SENSOR_DATA)
        raise RuntimeError
    assert not (tmp_path / "c" / "metadata.yaml").exists()

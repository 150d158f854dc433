"""`dfs replay` where it cannot, must not, or is stopped: it says so, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bag_rig import FAST, check_depth, dfs_replay, messages_of, record_plane

from dfs_ros.messages.definitions import message, serialize, type_store
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.writer import BagWriter

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_plane(tmp_path_factory.mktemp("plane") / "plane")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag that takes many seconds."""
    return record_plane(tmp_path_factory.mktemp("long") / "long", sweeps=400)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--start", "-1"], "start_s: expected 0 or more"),
        (["--duration", "0"], "duration_s: expected over 0"),
        (["--topics", "depth/imge"], "outputs: expected some of depth/camera_info, depth/image"),
        (["--remap", "image"], "remapping: expected FROM:=TO"),
        (["--namespace", "a b"], "namespace: expected words"),
        (["--start", "100"], "no depth came of it"),
        (["--set", "lens.f_number=0", "--set", "stack.min_frames=2", "--duration", "0.01"], "no depth came of it"),
        (["--set", "node.focus_source=schedule"], "schedule.focus_diopters: expected 2 to 64 positions"),
    ],
)
def test_options_that_make_no_sense(
    plane: Path, tmp_path: Path, capsys: Capture, options: list[str], words: str
) -> None:
    assert dfs_replay(plane, tmp_path / "out", *options) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_bag_without_a_known_lens_says_so(tmp_path: Path, capsys: Capture) -> None:
    bag = record_plane(tmp_path / "bag", focus="", lens_position=True)
    assert dfs_replay(bag, tmp_path / "out", "--set", "stack.size=3") == 2
    assert "no depth came of it: the focal length of the lens is unknown" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_truncated_bag_leaves_nothing(plane: Path, tmp_path: Path, capsys: Capture) -> None:
    bag = shutil.copytree(plane, tmp_path / "bag" / "plane")
    data = bytearray((bag / "plane.mcap").read_bytes())
    data[2000:60000] = bytes(58000)
    (bag / "plane.mcap").write_bytes(data)
    assert dfs_replay(bag, tmp_path / "out") == 2
    assert "messages of /image are missing" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]


def test_images_that_cannot_be_read_are_counted_and_the_rest_is_used(plane: Path, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    with BagReader(plane) as reader, BagWriter(bag) as writer:
        for topic in reader.topics:
            writer.announce_copy(topic)
        for i, m in enumerate(reader.messages(reader.topics)):
            data = m.data[:-5] if i < 3 and m.topic.name == "/image" else m.data
            writer.write(m.topic.name, m.topic.type_name, m.stamp_ns, data)
    assert dfs_replay(bag, tmp_path / "out") == 0
    status = {
        s.name: {p.key: p.value for p in s.values} for s in messages_of(tmp_path / "out")["/diagnostics"][-1].status
    }
    assert status["dfs: transport"]["/image malformed"] == "1"
    assert status["dfs: depth"]["received"] == "5"


def test_another_definition_of_focus_is_refused(plane: Path, tmp_path: Path, capsys: Capture) -> None:
    bag = shutil.copytree(plane, tmp_path / "plane")
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(
        text.replace(type_store().hash_rihs01("dfs_ros/msg/FrameFocus"), "RIHS01_" + "0" * 64)
    )
    assert dfs_replay(bag, tmp_path / "out") == 2
    assert "dfs_ros/msg/FrameFocus was recorded with another definition" in capsys.readouterr().err


def test_outputs_that_are_there_already(plane: Path, tmp_path: Path, capsys: Capture) -> None:
    bag = shutil.copytree(plane, tmp_path / "plane")
    assert dfs_replay(bag, bag, "--overwrite") == 2
    assert dfs_replay(bag, bag / "plane.mcap", "--overwrite") == 2
    assert dfs_replay(bag / "plane.mcap", bag, "--overwrite") == 2
    assert capsys.readouterr().err.count("lies where the bag is that is replayed") == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    assert dfs_replay(bag, tmp_path / "mine", "--overwrite") == 2
    assert "expected a new or empty folder, or a bag" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["precious.txt"]
    out = tmp_path / "out"
    out.mkdir()
    assert dfs_replay(bag, out, "--format", "sqlite3") == 0
    before = (out / "out.db3").read_bytes()
    assert dfs_replay(bag, out) == 2
    assert "is there already; name another, or say --overwrite" in capsys.readouterr().err
    assert (out / "out.db3").read_bytes() == before
    (out / "notes.txt").write_text("mine")
    assert dfs_replay(bag, out, "--overwrite") == 0
    assert sorted(p.name for p in out.iterdir()) == ["metadata.yaml", "notes.txt", "out.mcap"]
    check_depth(out)
    assert dfs_replay(bag, tmp_path / "one.mcap") == 0
    assert dfs_replay(bag, tmp_path / "one.mcap") == 2
    assert dfs_replay(bag, tmp_path / "one.mcap", "--overwrite", "--topics", "depth/image") == 0
    assert list(messages_of(tmp_path / "one.mcap")) == ["/depth/image"]
    assert dfs_replay(bag, tmp_path / "two.mcap", "--format", "sqlite3") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(number: signal.Signals, long: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    command = [sys.executable, "-m", "dfs_ros.cli.main", "replay", str(long), "--output", str(output), *FAST]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 240
        while not any(p.stat().st_size > 200_000 for p in tmp_path.rglob("*out.mcap")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    assert (process.returncode, errors.splitlines()[-1]) == (130, "dfs replay: interrupted")
    assert list(tmp_path.iterdir()) == []


def test_types_that_nobody_defines_cannot_be_copied(plane: Path, tmp_path: Path, capsys: Capture) -> None:
    """A sqlite3 bag of an older ROS has no definitions in it."""
    bag = record_plane(tmp_path / "bag", storage="sqlite3")
    with sqlite3.connect(bag / "bag.db3") as database:
        for table, column in (("topics", "type"), ("message_definitions", "topic_type")):
            database.execute(f"UPDATE {table} SET {column} = 'robot/msg/Odd' WHERE {column} = 'dfs_ros/msg/FrameFocus'")
        database.execute(
            "UPDATE message_definitions SET encoded_message_definition = '' WHERE topic_type = 'robot/msg/Odd'"
        )
    database.close()
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text.replace("dfs_ros/msg/FrameFocus", "robot/msg/Odd"))
    schedule = "node.focus_source=schedule", "schedule.focus_diopters=2.2,1.1,0.5", "schedule.rate_hz=30.3"
    lens = "lens.focal_length_m=0.025", "lens.f_number=1.4"
    options = [text for setting in (*schedule, *lens) for text in ("--set", setting)]
    assert dfs_replay(bag, tmp_path / "no", "--copy", "all", *options) == 2
    assert "/focus: messages of robot/msg/Odd cannot be copied" in capsys.readouterr().err
    assert dfs_replay(bag, tmp_path / "out", *options) == 0
    check_depth(tmp_path / "out")


def test_unknown_types_are_copied_by_their_own_definition(plane: Path, tmp_path: Path) -> None:
    bag = record_plane(tmp_path / "bag")
    with BagReader(bag) as reader:
        focus = next(t for t in reader.topics if t.name == "/focus")
        text = focus.connection.msgdef.data
        odd = focus._replace(type_name="robot/msg/Odd", connection=focus.connection._replace(msgtype="robot/msg/Odd"))
        assert "FrameFocus" not in text.partition("=" * 80)[0]
        with BagWriter(tmp_path / "copy") as writer:
            writer.announce_copy(odd)
            writer.write("/focus", "robot/msg/Odd", 1, serialize(message("std_msgs/msg/Int32"), "std_msgs/msg/Int32"))
    with BagReader(tmp_path / "copy") as reader:
        (topic,) = reader.topics
        assert topic.type_name == "robot/msg/Odd"
        assert topic.connection.digest.startswith("RIHS01_")
        assert topic.connection.msgdef.data == text

"""`dfs replay`: a bag through the depth node. Known planes come out at their depth; the same bytes each time."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bag_rig import PERIOD_NS, messages_of, record_plane, record_simulation
from node_rig import CAMERA, PLANE_M, SIZE, START_NS

from dfs_ros.cli.main import main
from dfs_ros.config import Config
from dfs_ros.geometry import intrinsics
from dfs_ros.replay import ReplayOptions, replay
from dfs_ros.simulation.scenes import demo_scene
from dfs_ros.transport.bag import BagTransport
from dfs_ros.transport.bag_files import BagReader, BagWriter
from dfs_ros.transport.base import LATCHED, RELIABLE
from dfs_ros.transport.definitions import message, serialize, type_store
from dfs_ros.transport.messages import (
    CAMERA_INFO,
    IMAGE,
    POINTS,
    camera_info_from_message,
    depth_from_message,
    image_from_message,
    stamp_ns,
)

FAST = (
    "--network",
    "none",
    "--hypotheses",
    "24",
    "--min-depth",
    "0.4",
    "--max-depth",
    "4",
    "--set",
    "alignment.mode=off",
)
TYPES = {
    "/all_in_focus/camera_info": CAMERA_INFO,
    "/all_in_focus/image": IMAGE,
    "/depth/camera_info": CAMERA_INFO,
    "/depth/image": IMAGE,
    "/depth/points": POINTS,
    "/depth/sigma": IMAGE,
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_plane(tmp_path_factory.mktemp("plane") / "plane")


def dfs_replay(bag: Path, output: Path, *options: str) -> int:
    return main(["replay", str(bag), "--output", str(output), *FAST, *options])


def check_depth(bag: Path, namespace: str = "", images: int = 2) -> dict[str, list[Any]]:
    """The plane at its depth, in each stack; returns all messages."""
    found = messages_of(bag)
    depths = found[f"{namespace}/depth/image"]
    assert len(depths) == images
    for depth in depths:
        assert np.nanmedian(depth_from_message(depth)) == pytest.approx(PLANE_M, rel=0.03)
        assert np.isfinite(depth_from_message(depth)).mean() > 0.8
    return found


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the images of the simulated camera are kept, once rendered."""
    return tmp_path_factory.mktemp("rendered")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_known_planes_come_out_at_their_depth(storage: str, rendered: Path, tmp_path: Path, capsys: Capture) -> None:
    bag = record_simulation(tmp_path / "bag", rendered, storage, seconds=0.67)
    options = ["--network", "none", "--hypotheses", "48", "--min-depth", "0.4", "--max-depth", "4"]
    assert main(["replay", str(bag), "--output", str(tmp_path / "out"), "--format", storage, *options]) == 0
    assert "4 depth images of 4 stacks, 20 images, from /image, /camera_info, /focus" in capsys.readouterr().out
    with BagReader(tmp_path / "out") as reader:
        assert {t.name: t.type_name for t in reader.topics} == TYPES
        assert {t.name: t.messages for t in reader.topics} == {**dict.fromkeys(TYPES, 4), "/diagnostics": 1}
        order = [m.stamp_ns for m in reader.messages(reader.topics)]
        assert order == sorted(order)
    found = messages_of(tmp_path / "out")
    scene = demo_scene(240, 180)
    for depth in found["/depth/image"]:
        depth_m = depth_from_message(depth)
        for name, expected_m in scene.plane_depth_m.items():
            seen = depth_m[scene.mask(name, margin_px=4)]
            assert np.nanmedian(seen) == pytest.approx(expected_m, rel=0.03), name
    # All of one result have the stamp and the frame of the image that they are in the geometry of.
    with BagReader(bag) as reader:
        stamps = {m.stamp_ns for m in reader.messages([t for t in reader.topics if t.name == "/image"])}
    for topic in set(TYPES) - {"/diagnostics"}:
        headers = [m.header for m in found[topic]]
        assert [stamp_ns(h.stamp) for h in headers] == [stamp_ns(m.header.stamp) for m in found["/depth/image"]], topic
        assert {h.frame_id for h in headers} == {"camera_optical_frame"}
        assert {stamp_ns(h.stamp) for h in headers} <= stamps
    points = np.asarray(found["/depth/points"][0].data).view("<f4").reshape(180, 240, 8)
    np.testing.assert_array_equal(points[..., 2], depth_from_message(found["/depth/image"][0]))


def test_two_runs_give_the_same_bytes(plane: Path, tmp_path: Path) -> None:
    for storage in ("mcap", "sqlite3"):
        for run in "ab":
            output = tmp_path / run / storage
            assert dfs_replay(plane, output, "--format", storage, "--copy", "all") == 0
        files = sorted(p.name for p in (tmp_path / "a" / storage).iterdir())
        assert len(files) == 2
        for name in files:
            one, other = ((tmp_path / run / storage / name).read_bytes() for run in "ab")
            assert one == other, name


def test_the_result_is_as_that_of_a_node_with_one_thread(plane: Path, tmp_path: Path) -> None:
    for threads in ("1", "3"):
        assert dfs_replay(plane, tmp_path / threads, "--set", f"processing.threads={threads}") == 0
    one, other = (check_depth(tmp_path / threads) for threads in ("1", "3"))
    np.testing.assert_array_equal(one["/depth/image"][0].data, other["/depth/image"][0].data)


def test_metadata_for_players(plane: Path, tmp_path: Path) -> None:
    assert dfs_replay(plane, tmp_path / "out") == 0
    text = (tmp_path / "out" / "metadata.yaml").read_text()
    information = yaml.safe_load(text)["rosbag2_bagfile_information"]
    assert information["relative_file_paths"] == ["out.mcap"]
    for topic in information["topics_with_message_count"]:
        data = topic["topic_metadata"]
        assert data["type_description_hash"] == type_store().hash_rihs01(data["type"])
        (qos,) = yaml.safe_load(data["offered_qos_profiles"])
        assert (qos["reliability"], qos["durability"], qos["depth"]) == (1, 2, 5), data["name"]


def test_diagnostics_tell_of_the_bag_and_not_of_the_machine(plane: Path, tmp_path: Path) -> None:
    assert dfs_replay(plane, tmp_path / "out") == 0
    found = messages_of(tmp_path / "out")
    status = {s.name: {p.key: p.value for p in s.values} for s in found["/diagnostics"][-1].status}
    node, transport = status["dfs: depth"], status["dfs: transport"]
    counts = {key: node[key] for key in ("received", "used", "stacks", "published", "superseded", "dropped")}
    assert counts == {"received": "6", "used": "6", "stacks": "2", "published": "2", "superseded": "0", "dropped": "0"}
    assert float(node["latency_max_s"]) == 0.0
    assert transport["/image received"] == "6"
    assert not [key for values in status.values() for key in values if "seconds" in key or "_ms" in key]


# -- which topics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "options", "inputs"),
    [
        ({"image": "/cam/image_raw", "info": "/cam/camera_info", "focus": "/lens/state"}, [], None),
        ({"image": "/cam/image_raw/compressed", "info": "/cam/camera_info", "form": "jpeg"}, [], None),
        ({"image": "/image/compressed", "form": "png"}, [], None),
        ({"image": "/a/b", "info": "/c/d", "focus": "/e/f"}, [], None),
        (
            {"image": "/robot/image", "info": "/robot/camera_info", "focus": "/robot/focus"},
            ["--namespace", "robot"],
            "/robot",
        ),
        ({"image": "/x/y", "focus": "/z"}, ["--remap", "image:=/x/y", "--remap", "focus:=/z"], None),
        ({"image": "/x/y/compressed", "form": "jpeg"}, ["--remap", "image:=/x/y"], None),
        ({"image": "/x/y", "form": "jpeg"}, ["--remap", "image:=/x/y"], None),
        (
            {"focus": "", "lens_position": True},
            ["--set", "lens.focal_length_m=0.025", "--set", "lens.f_number=1.4"],
            None,
        ),
    ],
)
def test_topics_are_found(
    names: dict[str, Any], options: list[str], inputs: str | None, tmp_path: Path, capsys: Capture
) -> None:
    bag = record_plane(tmp_path / "bag", **names)
    assert dfs_replay(bag, tmp_path / "out", "--set", "stack.size=3", *options) == 0
    check_depth(tmp_path / "out", inputs or "")
    named = {"image": "/image", "info": "/camera_info", "focus": "/focus"} | names
    said = capsys.readouterr().out
    assert f"from {named['image']}, {named['info']}, {named['focus'] or '/diagnostics'}" in said


def test_the_image_beside_the_only_focus_is_taken(plane: Path, tmp_path: Path) -> None:
    """As in a bag of a robot with several cameras, of which one sweeps its focus."""
    first, second = record_plane(tmp_path / "a", image="/left/image", focus=""), tmp_path / "b"
    record_plane(second, image="/sweep/photo", info="/sweep/camera_info", focus="/sweep/focus")
    both = merged([first, second], tmp_path / "both")
    assert dfs_replay(both, tmp_path / "out") == 0
    with BagReader(tmp_path / "out") as reader:
        assert next(t for t in reader.topics if t.name == "/depth/image").messages == 2


def merged(bags: Sequence[Path], output: Path) -> Path:
    with BagWriter(output) as writer:
        for bag in bags:
            with BagReader(bag) as reader:
                for topic in reader.topics:
                    writer.announce_copy(topic)
        everything = []
        for bag in bags:
            with BagReader(bag) as reader:
                everything += list(reader.messages(reader.topics))
        for m in sorted(everything, key=lambda m: m.stamp_ns):
            writer.write(m.topic.name, m.topic.type_name, m.stamp_ns, m.data)
    return output


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        ({"image": ""}, [], "no images (sensor_msgs/msg/Image or sensor_msgs/msg/CompressedImage) in it"),
        ({"image": "/d/compressedDepth", "form": "png"}, [], "no images"),
        ({"info": ""}, [], "no sensor_msgs/msg/CameraInfo that goes with the images"),
        ({"focus": ""}, [], "nothing says where the lens was focused: no dfs_ros/msg/FrameFocus"),
        (
            {},
            ["--remap", "image:=/no/such"],
            "expected sensor_msgs/msg/Image or sensor_msgs/msg/CompressedImage on /no/such",
        ),
        ({}, ["--remap", "image:=/focus"], "on /focus, and there is none"),
        ({}, ["--remap", "focus:=/image"], "expected dfs_ros/msg/FrameFocus on /image, and there is none"),
        ({}, ["--remap", "camera_info:=/other"], "expected sensor_msgs/msg/CameraInfo on /other"),
        (
            {},
            ["--set", "node.focus_source=diagnostics"],
            "expected diagnostic_msgs/msg/DiagnosticArray on /diagnostics",
        ),
    ],
)
def test_topics_that_are_not_there_are_named(
    names: dict[str, Any], options: list[str], words: str, tmp_path: Path, capsys: Capture
) -> None:
    bag = record_plane(tmp_path / "bag", **names)
    assert dfs_replay(bag, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Topics in the bag:" in error and "6 messages" in error
    assert not (tmp_path / "out").exists()


def test_two_cameras_are_told_apart_by_the_user(tmp_path: Path, capsys: Capture) -> None:
    names = [{"image": f"/{side}/photo", "info": f"/{side}/camera_info", "focus": f"/{side}/focus"} for side in "ab"]
    both = merged([record_plane(tmp_path / str(i), **n) for i, n in enumerate(names)], tmp_path / "both")
    assert dfs_replay(both, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "more than one topic of images: /a/photo, /b/photo; say which, --remap image:=/a/photo" in said
    assert dfs_replay(both, tmp_path / "out", "--remap", "image:=/b/photo") == 0
    assert "from /b/photo, /b/camera_info, /b/focus" in capsys.readouterr().out


# -- what is written ---------------------------------------------------------------------------------------------------


def with_transforms(folder: Path) -> Path:
    """The bag of a plane, with /tf_static, /tf and a topic of a type that this package does not know."""
    plane = record_plane(folder / "plane")
    with BagWriter(folder / "tf") as writer, BagTransport("robot", writer, START_NS + 1) as robot:
        transform = message("tf2_msgs/msg/TFMessage", transforms=[message("geometry_msgs/msg/TransformStamped")])
        robot.create_publisher("/tf_static", "tf2_msgs/msg/TFMessage", LATCHED).publish(transform)
        robot.create_publisher("/tf", "tf2_msgs/msg/TFMessage", RELIABLE).publish(transform)
        robot.create_publisher("/speed", "std_msgs/msg/Float32", RELIABLE).publish(
            message("std_msgs/msg/Float32", data=2.0)
        )
    return merged([plane, folder / "tf"], folder / "bag")


@pytest.mark.parametrize(
    ("copy", "copied"),
    [
        ("none", set()),
        ("tf", {"/tf", "/tf_static"}),
        ("inputs", {"/tf", "/tf_static", "/image", "/camera_info", "/focus"}),
        ("all", {"/tf", "/tf_static", "/image", "/camera_info", "/focus", "/speed"}),
    ],
)
def test_what_else_is_copied(copy: str, copied: set[str], tmp_path: Path) -> None:
    bag = with_transforms(tmp_path)
    assert dfs_replay(bag, tmp_path / "out", "--copy", copy) == 0
    with BagReader(bag) as before, BagReader(tmp_path / "out") as after:
        assert {t.name for t in after.topics} == set(TYPES) | copied
        for name in copied:
            old, new = (next(t for t in reader.topics if t.name == name) for reader in (before, after))
            assert new.connection.ext == old.connection.ext
            assert [(m.stamp_ns, m.data) for m in after.messages([new])] == [
                (m.stamp_ns, m.data) for m in before.messages([old])
            ]
    if "/tf_static" in copied:
        with BagReader(tmp_path / "out") as after:
            static = next(t for t in after.topics if t.name == "/tf_static")
            assert static.connection.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"


def test_diagnostics_of_the_camera_and_of_the_node_share_a_topic(tmp_path: Path) -> None:
    bag = record_plane(tmp_path / "bag", focus="", lens_position=True)
    lens = ("--set", "lens.focal_length_m=0.025", "--set", "lens.f_number=1.4", "--set", "stack.size=3")
    assert dfs_replay(bag, tmp_path / "out", "--copy", "inputs", *lens) == 0
    diagnostics = messages_of(tmp_path / "out")["/diagnostics"]
    assert [m.status[0].name for m in diagnostics] == ["camera"] * 6 + ["dfs: transport"]
    check_depth(tmp_path / "out")


def test_a_replay_can_be_replayed_again(plane: Path, tmp_path: Path) -> None:
    assert dfs_replay(plane, tmp_path / "first", "--copy", "inputs") == 0
    assert dfs_replay(tmp_path / "first", tmp_path / "second", "--copy", "all") == 0
    first, second = check_depth(tmp_path / "first"), check_depth(tmp_path / "second")
    np.testing.assert_array_equal(first["/depth/image"][1].data, second["/depth/image"][1].data)


def test_some_topics_and_a_part_of_the_time(plane: Path, tmp_path: Path) -> None:
    long = record_plane(tmp_path / "long", sweeps=5)
    seconds = PERIOD_NS * 3e-9
    part = ("--start", f"{seconds:.6f}", "--duration", f"{2 * seconds:.6f}")
    assert dfs_replay(long, tmp_path / "out", "--topics", "depth/image", "depth/camera_info", *part) == 0
    found = messages_of(tmp_path / "out")
    assert {topic: len(messages) for topic, messages in found.items()} == {"/depth/image": 2, "/depth/camera_info": 2}
    assert stamp_ns(found["/depth/image"][0].header.stamp) == START_NS + 4 * PERIOD_NS
    info = camera_info_from_message(found["/depth/camera_info"][0])
    assert (info.size, info.intrinsics) == (SIZE, pytest.approx(intrinsics(CAMERA, SIZE), rel=0.01))


def test_a_single_file_by_its_suffix(plane: Path, tmp_path: Path) -> None:
    for name in ("depth.mcap", "depth.db3"):
        assert dfs_replay(plane, tmp_path / "new" / name) == 0
        check_depth(tmp_path / "new" / name)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["depth.db3", "depth.mcap"]
    check_depth_of_single = tmp_path / "again"
    assert dfs_replay(tmp_path / "new" / "depth.mcap", check_depth_of_single) == 2  # depth alone is no input
    assert not check_depth_of_single.exists()


def test_from_python(plane: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    config = Config.from_dict({"network": {"name": "none"}, "alignment": {"mode": "off"}})
    done = replay(plane, tmp_path / "out", config, ReplayOptions(copy="none"), progress=shares.append)
    assert done.written["/depth/image"] == 2
    assert done.values["published"] == "2"
    assert done.inputs == ("/image", "/camera_info", "/focus")
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)
    image = messages_of(tmp_path / "out")["/all_in_focus/image"][0]
    assert image_from_message(image).shape == (*SIZE, 3)


# -- refusals: nothing is written --------------------------------------------------------------------------------------


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
    assert "damaged" in capsys.readouterr().err
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
def test_a_signal_in_the_middle_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    bag = record_plane(tmp_path / "bag", sweeps=400)
    output = tmp_path / "new" / "out"
    command = [sys.executable, "-m", "dfs_ros.cli.main", "replay", str(bag), "--output", str(output), *FAST]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 200_000 for p in tmp_path.rglob("*out.mcap")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "dfs replay: interrupted")
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]


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

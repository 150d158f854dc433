"""`dfs replay`: a bag through the depth node. Known planes come out at their depth; the same bytes each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bag_rig import PERIOD_NS, check_depth, dfs_replay, messages_of, record_plane, record_simulation
from node_rig import CAMERA, SIZE, START_NS

from dfs_ros.cli.main import main
from dfs_ros.config import Config
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    IMAGE,
    POINTS,
    camera_info_from_message,
    depth_from_message,
    image_from_message,
    stamp_ns,
)
from dfs_ros.messages.definitions import message, type_store
from dfs_ros.node.replay import ReplayOptions, replay
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.simulation.scenes import demo_scene
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.transport import BagTransport
from dfs_ros.transport.bag.writer import BagWriter
from dfs_ros.transport.base import LATCHED, RELIABLE

TYPES = {
    "/all_in_focus/camera_info": CAMERA_INFO,
    "/all_in_focus/image": IMAGE,
    "/depth/camera_info": CAMERA_INFO,
    "/depth/image": IMAGE,
    "/depth/points": POINTS,
    "/depth/sigma": IMAGE,
    "/depth/confidence": IMAGE,
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_plane(tmp_path_factory.mktemp("plane") / "plane")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_known_planes_come_out_at_their_depth(storage: str, rendered: Path, tmp_path: Path, capsys: Capture) -> None:
    bag = record_simulation(tmp_path / "bag", rendered, storage, seconds=0.34)  # there and back
    options = ["--network", "none", "--hypotheses", "48", "--min-depth", "0.4", "--max-depth", "4"]
    assert main(["replay", str(bag), "--output", str(tmp_path / "out"), "--format", storage, *options]) == 0
    assert "2 depth images of 2 stacks, 10 images, from /image, /camera_info, /focus" in capsys.readouterr().out
    with BagReader(tmp_path / "out") as reader:
        assert {t.name: t.type_name for t in reader.topics} == TYPES
        assert {t.name: t.messages for t in reader.topics} == {**dict.fromkeys(TYPES, 2), "/diagnostics": 1}
        order = [m.stamp_ns for m in reader.messages(reader.topics)]
        assert order == sorted(order)
    found = messages_of(tmp_path / "out")
    scene = demo_scene(240, 180)
    for depth in found["/depth/image"]:
        depth_m = depth_from_message(depth)
        for name, expected_m in scene.plane_depth_m.items():
            seen = depth_m[scene.mask(name, margin_px=4)]
            assert np.nanmedian(1.0 / seen) == pytest.approx(1.0 / expected_m, rel=0.04, abs=0.015), name
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

"""Inputs of a replay that belong to another camera, come early or late, or are described twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_rig import PERIOD_NS, check_depth, dfs_replay, messages_of, record_plane
from node_rig import CAMERA, SIZE, START_NS

from dfs_ros.config import ScheduleConfig
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    Diagnostic,
    camera_info_from_message,
    diagnostics_message,
    focus_from_diagnostics,
    image_message,
    stamp_ns,
    time_message,
)
from dfs_ros.messages.definitions import deserialize, message, serialize
from dfs_ros.node.commanded_focus import ReportedFocus
from dfs_ros.node.images import BitsInUse
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.metadata import BagMessage
from dfs_ros.transport.bag.transport import BagTransport
from dfs_ros.transport.bag.writer import BagWriter
from dfs_ros.transport.base import LATCHED, RELIABLE, Qos
from dfs_ros.types import LensState

Capture = pytest.CaptureFixture[str]
LENS = ("--set", "lens.focal_length_m=0.025", "--set", "lens.f_number=1.4")


def changed(bag: Path, output: Path, type_name: str, change: Callable[[Any, int], None]) -> Path:
    """A copy of a bag with `change(msg, number)` made to all messages of a type."""
    number = 0
    with BagReader(bag) as reader, BagWriter(output) as writer:
        for topic in reader.topics:
            writer.announce_copy(topic)
        for m in reader.messages(reader.topics):
            data: bytes | bytearray = m.data
            if m.topic.type_name == type_name:
                msg = deserialize(data, type_name)
                change(msg, number)
                data, number = serialize(msg, type_name), number + 1
            writer.write(m.topic.name, m.topic.type_name, m.stamp_ns, data)
    return output


def set_frame(frame_id: str) -> Callable[[Any, int], None]:
    def change(msg: Any, number: int) -> None:
        msg.header.frame_id = frame_id

    return change


def alternate(msg: Any, number: int) -> None:
    msg.header.frame_id = ("left", "right")[number % 2]


def two_intrinsics(msg: Any, number: int) -> None:
    msg.k = np.array(msg.k) * (1.0, 1.3)[number % 2]


@pytest.mark.parametrize(
    ("type_name", "change", "words"),
    [
        (IMAGE, alternate, "two cameras on /image: the first 6 messages are of frames left (3 times), right (3 times)"),
        (CAMERA_INFO, alternate, "two cameras on /camera_info: the first 6 messages are of frames left (3 times)"),
        (CAMERA_INFO, two_intrinsics, "two cameras on /camera_info: the first 6 messages are of intrinsics fx 187.5"),
    ],
)
def test_two_cameras_on_one_topic(
    type_name: str, change: Callable[[Any, int], None], words: str, tmp_path: Path, capsys: Capture
) -> None:
    bag = changed(record_plane(tmp_path / "plane"), tmp_path / "bag", type_name, change)
    assert dfs_replay(bag, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert words in error and "record each camera on topics of its own" in error and "Topics in the bag:" in error


def test_intrinsics_that_change_with_the_focus_are_of_one_camera(tmp_path: Path) -> None:
    def breathe(msg: Any, number: int) -> None:
        msg.k = np.array(msg.k) * (1.0, 1.001, 1.002)[number % 3]

    bag = changed(record_plane(tmp_path / "plane"), tmp_path / "bag", CAMERA_INFO, breathe)
    assert dfs_replay(bag, tmp_path / "out") == 0
    check_depth(tmp_path / "out")


def test_the_camera_info_of_another_camera_is_not_taken(tmp_path: Path, capsys: Capture) -> None:
    plane = record_plane(tmp_path / "plane", image="/usb/image_raw", info="/other/camera_info", focus="/usb/focus")
    bag = changed(plane, tmp_path / "bag", CAMERA_INFO, set_frame("other_frame"))
    assert dfs_replay(bag, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "the only one, /other/camera_info, is of frame 'other_frame', the images /usb/image_raw of 'lens'" in error
    assert "--remap camera_info:=/other/camera_info" in error and "lens.pixel_pitch_m" in error
    # With the pixel pitch it is not needed, and not taken; on demand it is.
    pitch = 2 * CAMERA.pixel_pitch_m
    assert dfs_replay(bag, tmp_path / "pitch", "--set", f"lens.pixel_pitch_m={pitch}", *LENS) == 0
    assert "from /usb/image_raw, /usb/focus" in capsys.readouterr().out
    info = camera_info_from_message(messages_of(tmp_path / "pitch")["/depth/camera_info"][0])
    assert info.intrinsics.fx == pytest.approx(CAMERA.focal_length_m / pitch, rel=0.03)
    assert dfs_replay(bag, tmp_path / "named", "--remap", "camera_info:=/other/camera_info") == 0
    found = check_depth(tmp_path / "named")
    status = {s.name: s for s in found["/diagnostics"][-1].status}["dfs: depth"]
    assert "camera_info is of frame 'other_frame', the images are of 'lens'" in status.message


def test_stamps_that_nearly_match_are_told(tmp_path: Path, capsys: Capture) -> None:
    def late(msg: Any, number: int) -> None:
        msg.header.stamp = time_message(stamp_ns(msg.header.stamp) + 1000)

    bag = changed(record_plane(tmp_path / "plane"), tmp_path / "bag", FOCUS, late)
    assert dfs_replay(bag, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "focus stamps differ from image stamps by 1000 ns: set stack.match_tolerance_ns above that" in error
    assert dfs_replay(bag, tmp_path / "out", "--set", "stack.match_tolerance_ns=1500") == 0
    check_depth(tmp_path / "out")


def test_stamps_of_other_images_are_no_hint(tmp_path: Path, capsys: Capture) -> None:
    def a_frame_late(msg: Any, number: int) -> None:
        msg.header.stamp = time_message(stamp_ns(msg.header.stamp) + PERIOD_NS // 2)

    bag = changed(record_plane(tmp_path / "plane"), tmp_path / "bag", FOCUS, a_frame_late)
    assert dfs_replay(bag, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "its focus metadata did not come in time" in error and "match_tolerance_ns" not in error


def test_a_lens_position_behind_any_number_of_other_diagnostics(tmp_path: Path) -> None:
    plane = record_plane(tmp_path / "plane", focus="", lens_position=True)
    bag = tmp_path / "bag"
    other = serialize(diagnostics_message({"cpu": Diagnostic("OK", "", {"load": 1})}, START_NS), DIAGNOSTICS)
    with BagReader(plane) as reader, BagWriter(bag) as writer:
        for topic in reader.topics:
            writer.announce_copy(topic)
        for i in range(1000):
            writer.write("/diagnostics", DIAGNOSTICS, START_NS - 10**9 + i, other)
        for m in reader.messages(reader.topics):
            writer.write(m.topic.name, m.topic.type_name, m.stamp_ns, m.data)
    assert dfs_replay(bag, tmp_path / "out", "--set", "stack.size=3", *LENS) == 0
    check_depth(tmp_path / "out")


# -- before the start --------------------------------------------------------------------------------------------------


def starting_with(plane: Path, bag: Path, qos: Qos) -> Path:
    """The bag of a plane with one camera_info and transforms at its start."""
    with BagReader(plane) as reader, BagWriter(bag) as writer, BagTransport("robot", writer, START_NS - 1) as robot:
        for topic in reader.topics:
            if topic.type_name != CAMERA_INFO:
                writer.announce_copy(topic)
        for m in reader.messages(reader.topics):
            if m.topic.type_name == CAMERA_INFO:
                robot.create_publisher("/camera_info", CAMERA_INFO, qos).publish(deserialize(m.data, CAMERA_INFO))
                break
        for name, child in (("/tf_static", "a"), ("/tf_static", "b"), ("/note", "c"), ("/note", "d")):
            stamped = message("geometry_msgs/msg/TransformStamped", child_frame_id=child)
            tf = message("tf2_msgs/msg/TFMessage", transforms=[stamped])
            robot.create_publisher(name, "tf2_msgs/msg/TFMessage", LATCHED).publish(tf)
        for m in reader.messages(reader.topics):
            if m.topic.type_name != CAMERA_INFO:
                writer.write(m.topic.name, m.topic.type_name, m.stamp_ns, m.data)
    return bag


@pytest.mark.parametrize("qos", [LATCHED, RELIABLE])
def test_latched_messages_before_the_start_are_played(qos: Qos, tmp_path: Path) -> None:
    plane = record_plane(tmp_path / "plane", sweeps=3)
    bag = starting_with(plane, tmp_path / "bag", qos)
    start = f"{3 * PERIOD_NS * 1e-9:.6f}"
    assert dfs_replay(bag, tmp_path / "out", "--start", start, "--copy", "all") == 0
    found = check_depth(tmp_path / "out")

    def children(topic: str) -> list[str]:
        return [m.transforms[0].child_frame_id for m in found[topic]]

    assert children("/tf_static") == ["a", "b"]  # all of them
    assert children("/note") == ["d"]  # as many as its publisher keeps
    with BagReader(tmp_path / "out") as reader:
        early: list[BagMessage] = [m for m in reader.messages(reader.topics) if m.topic.name in ("/tf_static", "/note")]
        assert {m.stamp_ns for m in early} == {reader.start_ns}


# -- rectified images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "options"),
    [
        ("/cam/image_rect", []),
        ("/cam/image_rect_color", []),
        ("/cam/photo", ["--set", "node.image_geometry=rectified"]),
    ],
)
def test_rectified_images_have_the_intrinsics_p(image: str, options: list[str], tmp_path: Path) -> None:
    def raw_camera(msg: Any, number: int) -> None:
        msg.k = np.array(msg.k) * 1.5
        msg.d = np.array([-0.3, 0.1, 0, 0, 0.0])

    plane = record_plane(tmp_path / "plane", image=image, info="/cam/camera_info", focus="/cam/focus")
    bag = changed(plane, tmp_path / "bag", CAMERA_INFO, raw_camera)
    assert dfs_replay(bag, tmp_path / "out", *options) == 0
    info = check_depth(tmp_path / "out")["/depth/camera_info"][0]
    assert camera_info_from_message(info).intrinsics.fx == pytest.approx(intrinsics(CAMERA, SIZE).fx, rel=0.03)
    assert not any(info.d)


def test_raw_images_keep_the_intrinsics_k(tmp_path: Path) -> None:
    def other_p(msg: Any, number: int) -> None:
        msg.p = np.array(msg.p) * 1.5

    plane = record_plane(tmp_path / "plane", image="/cam/image_rect", info="/cam/camera_info", focus="/cam/focus")
    bag = changed(plane, tmp_path / "bag", CAMERA_INFO, other_p)
    assert dfs_replay(bag, tmp_path / "out", "--set", "node.image_geometry=raw") == 0
    info = camera_info_from_message(check_depth(tmp_path / "out")["/depth/camera_info"][0])
    assert info.intrinsics.fx == pytest.approx(intrinsics(CAMERA, SIZE).fx, rel=0.03)


# -- encodings ---------------------------------------------------------------------------------------------------------


def of_bits(bits: int) -> Callable[[Any, int], None]:
    def change(msg: Any, number: int) -> None:
        grey = np.asarray(msg.data).reshape(*SIZE, 3)[..., 1].astype(np.float64)
        msg.encoding, msg.step = "mono16", 2 * SIZE[1]
        msg.data = np.rint(grey / 255 * (2**bits - 1)).astype("<u2").reshape(-1).view(np.uint8)

    return change


@pytest.mark.parametrize(
    ("bits", "options"), [(10, []), (12, []), (14, []), (16, []), (12, ["--set", "node.sample_bits=12"])]
)
def test_16_bit_images_of_fewer_bits(bits: int, options: list[str], tmp_path: Path) -> None:
    bag = changed(record_plane(tmp_path / "plane"), tmp_path / "bag", IMAGE, of_bits(bits))
    assert dfs_replay(bag, tmp_path / "out", *options) == 0
    check_depth(tmp_path / "out")


def test_bits_that_the_images_exceed(tmp_path: Path, capsys: Capture) -> None:
    bag = changed(record_plane(tmp_path / "plane"), tmp_path / "bag", IMAGE, of_bits(14))
    assert dfs_replay(bag, tmp_path / "out", "--set", "node.sample_bits=12") == 2
    assert "mono16: expected samples up to 4095 (node.sample_bits), received" in capsys.readouterr().err
    assert dfs_replay(bag, tmp_path / "out", "--set", "node.sample_bits=16") == 0


def test_a_brighter_image_starts_a_new_stack() -> None:
    bits = BitsInUse()
    dark, bright = (image_message(np.full(SIZE, value, np.uint16), 0, "") for value in (900, 5000))
    seen = [(bits.of(msg), bits.risen) for msg in (dark, dark, bright, dark, bright)]
    assert seen == [(10, False), (10, False), (14, True), (14, False), (14, False)]
    assert BitsInUse().of(image_message(np.zeros(SIZE, np.uint8), 0, "")) == 16


def test_an_encoding_without_an_order_of_channels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def generic(msg: Any, number: int) -> None:
        msg.encoding = "8UC3"

    bag = changed(record_plane(tmp_path / "plane"), tmp_path / "bag", IMAGE, generic)
    assert dfs_replay(bag, tmp_path / "out") == 0
    check_depth(tmp_path / "out")
    assert "encoding 8UC3 does not name the order of the channels: read as bgr8" in caplog.text


# -- a lens that is late -----------------------------------------------------------------------------------------------


def test_reported_positions_settle() -> None:
    def report(ms: int, diopters: float) -> LensState:
        msg = diagnostics_message({"camera": Diagnostic("OK", "", {"LensPosition": diopters})}, ms * 10**6)
        focus = reported.settled(focus_from_diagnostics(msg))
        assert focus is not None and focus.focus_diopters == diopters
        return focus.lens_state

    reported = ReportedFocus(ScheduleConfig(settle_s=0.05), 0.02)
    times = [(0, 1.0), (33, 1.01), (66, 2.0), (99, 2.0), (132, 2.0), (165, 1.0), (400, 1.0)]
    moving = [report(ms, diopters) == LensState.MOVING for ms, diopters in times]
    assert moving == [False, False, True, True, False, True, False]
    assert report(0, 1.0) == LensState.UNKNOWN  # the clock was set back
    other = diagnostics_message({"cpu": Diagnostic("OK", "")}, 0)
    assert reported.settled(focus_from_diagnostics(other)) is None
    reported = ReportedFocus(ScheduleConfig(), 0.02)
    assert [report(ms, d) for ms, d in times] == [LensState.UNKNOWN] * len(times)

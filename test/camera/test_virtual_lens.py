"""Virtual lens: images of a swept lens from folders, bags and topics of colour and depth, with the depth as truth."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dfs_ros.camera.source import SourceFrame, SweepCamera
from dfs_ros.camera.virtual_lens import LiveRgbd, RecordedRgbd
from dfs_ros.cli.participants import make_source
from dfs_ros.config import Config
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    FOCUS,
    IMAGE,
    camera_info_from_message,
    camera_info_message,
    depth_from_message,
    depth_message,
    focus_from_message,
    image_from_message,
    image_message,
    stamp_ns,
)
from dfs_ros.messages.definitions import serialize
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.simulation.scenes import Scene, plane_scene
from dfs_ros.transport.bag.writer import BagWriter
from dfs_ros.transport.base import SENSOR_DATA
from dfs_ros.transport.local import LocalBus, LocalTransport

PLANE_M = 0.8
SCENE = plane_scene(PLANE_M, 64, 48, seed=3)
HOLE = (slice(10, 14), slice(20, 24))
PINHOLE = Intrinsics(60.0, 61.0, 30.0, 25.0)
CALIBRATION = """image_width: 64
image_height: 48
camera_matrix: {rows: 3, cols: 3, data: [60, 0, 30, 0, 61, 25, 0, 0, 1]}
"""


def depth_m(scene: Scene = SCENE) -> Any:
    depth = scene.depth_m.copy()
    depth[HOLE] = np.nan
    return depth


def config(path: Path | str = "", **settings: Any) -> Config:
    return Config.from_dict(
        {
            "camera": {"source": "rgbd", "noise": 0.0},
            "rgbd": {"path": str(path), "focus_diopters": "2.5,1.25,0.1", **settings},
        }
    )


def write_png(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def tum_folder(folder: Path) -> Path:
    for i in range(2):
        write_png(folder / f"rgb/{i}.png", np.roll(SCENE.rgb, 3 * i, axis=1)[..., ::-1])
        write_png(folder / f"depth/{i}.png", np.rint(np.nan_to_num(depth_m()) * 5000).astype(np.uint16))
    (folder / "rgb.txt").write_text("# colour\n1.00 rgb/0.png\n1.03 rgb/1.png\n1.06 rgb/lost.png\n")
    (folder / "depth.txt").write_text("# depth\n1.04 depth/1.png\n1.015 depth/0.png\n")
    (folder / "groundtruth.txt").write_text("1.001 1 2 3 0 0 0 1\n1.031 1.1 2 2.9 0 0 0 1\n")
    (folder / "camera.yaml").write_text(CALIBRATION)
    return folder


def first(source: Any, count: int) -> list[SourceFrame]:
    frames = source.frames()
    found = list(itertools.islice(frames, count))
    frames.close()
    return found


def test_a_tum_folder_is_seen_through_the_lens_with_its_truth_and_its_poses(tmp_path: Path) -> None:
    folder = tum_folder(tmp_path / "fr1")
    frames = first(make_source(config(folder, calibration=str(folder / "camera.yaml"))), 5)
    # Two views: the second repetition begins a new sweep, there and back.
    assert [(f.focus.sweep_id, f.focus.index, f.focus.focus_diopters) for f in frames] == [
        *((0, 0, 2.5), (0, 1, 1.25), (1, 0, 0.1), (1, 1, 1.25), (2, 0, 2.5))
    ]
    for frame in frames:
        assert frame.true_depth_m is not None
        np.testing.assert_allclose(frame.true_depth_m, depth_m(), atol=1e-4)
        assert (frame.focus.focal_length_m, frame.focus.f_number, frame.focus.magnification) == (0.05, 1.4, 1.0)
    # In focus at 1.25 dioptres = 0.8 m: the colour image itself.
    sharp = np.roll(SCENE.rgb, 3, axis=1)
    np.testing.assert_allclose(frames[1].image.astype(int), sharp, atol=1)
    assert frames[0].moved is not None and frames[1].moved is not None
    np.testing.assert_allclose(frames[0].moved.translation_m, 0.0, atol=1e-12)
    np.testing.assert_allclose(frames[1].moved.translation_m, [0.1, 0.0, -0.1], atol=1e-12)


def test_the_blur_is_that_of_the_stated_lens(tmp_path: Path) -> None:
    """A bright point on the plane becomes a disk of the diameter f / N fx |1 / depth - focus|."""
    point = np.zeros((48, 64, 3), np.uint8)
    point[24, 32] = 255
    folder = tum_folder(tmp_path / "s")
    for i in range(2):
        write_png(folder / f"rgb/{i}.png", point)
        write_png(folder / f"depth/{i}.png", np.full((48, 64), round(5000 * PLANE_M), np.uint16))
    settings = {"calibration": str(folder / "camera.yaml"), "f_number": 0.5}
    image = first(RecordedRgbd(config(folder, **settings)), 1)[0].image[..., 1]
    expected_px = 0.05 / 0.5 * 60 * (2.5 - 1.25)  # 7.5
    rows, columns = np.nonzero(image)
    assert np.ptp(rows) + 1 == pytest.approx(expected_px, abs=1.5) == np.ptp(columns) + 1
    assert (rows.mean(), columns.mean()) == pytest.approx((24, 32), abs=0.01)


def test_a_scannet_folder_with_large_colour_and_a_lost_pose(tmp_path: Path) -> None:
    write_png(tmp_path / "color/2.jpg", SCENE.rgb.repeat(2, axis=0).repeat(2, axis=1)[..., ::-1])
    write_png(tmp_path / "depth/2.png", np.rint(np.nan_to_num(depth_m()) * 1000).astype(np.uint16))
    (tmp_path / "intrinsic").mkdir()
    (tmp_path / "intrinsic/intrinsic_depth.txt").write_text("60 0 30 0\n0 61 25 0\n0 0 1 0\n0 0 0 1\n")
    (tmp_path / "pose").mkdir()
    (tmp_path / "pose/2.txt").write_text("-inf -inf -inf -inf\n" * 4)
    source = RecordedRgbd(config(tmp_path))
    assert source.intrinsics == PINHOLE and source.size == (48, 64)
    (frame,) = first(source, 1)
    assert frame.moved is None
    np.testing.assert_allclose(frame.true_depth_m, depth_m(), atol=1e-3)
    small = RecordedRgbd(config(tmp_path, max_megapixels=0.001))
    assert small.size == (27, 37)
    np.testing.assert_allclose(small.intrinsics, [60 * 37 / 64, 61 * 27 / 48, 17.133, 13.844], atol=1e-3)


def messages(number: int, depth_late_ns: int = 0) -> list[tuple[str, str, Any]]:
    stamp = 10**18 + number * 10**8
    return [
        ("rgbd/camera_info", CAMERA_INFO, camera_info_message(PINHOLE, (48, 64), stamp, "gazebo_optical")),
        ("rgbd/depth", IMAGE, depth_message(depth_m(), stamp + depth_late_ns, "gazebo_optical", "16UC1")),
        ("rgbd/color", IMAGE, image_message(SCENE.rgb, stamp, "gazebo_optical")),
    ]


def test_live_topics_keep_their_stamps_and_frame() -> None:
    bus = LocalBus(start_ns=10**18)
    camera, simulator = LocalTransport("dfs_camera", bus), LocalTransport("simulator", bus)
    received: dict[str, list[Any]] = {"image": [], "camera_info": [], "focus": [], "true_depth/image": []}
    for topic, kind in zip(received, (IMAGE, CAMERA_INFO, FOCUS, IMAGE), strict=True):
        simulator.create_subscription(topic, kind, received[topic].append)
    settings = config(match_tolerance_s=0.02)
    source = LiveRgbd(settings)
    SweepCamera(camera, source, settings.camera).activate()
    publishers = {topic: simulator.create_publisher(topic, kind, SENSOR_DATA) for topic, kind, _ in messages(0)}
    for number, late_ns in enumerate((0, 15_000_000, 50_000_000, -15_000_000)):  # the third depth is of no image
        for topic, _, msg in messages(number, late_ns):
            publishers[topic].publish(msg)
        bus.advance_to(bus.now_ns() + 50_000_000)
        while camera.spin_once(0) or simulator.spin_once(0):
            pass
    stamps = [10**18 + i * 10**8 for i in (0, 1, 3)]
    for got in received.values():
        assert [(stamp_ns(m.header.stamp), m.header.frame_id) for m in got] == [(s, "gazebo_optical") for s in stamps]
    assert [focus_from_message(m).focus_diopters for m in received["focus"]] == [2.5, 1.25, 0.1]
    assert camera_info_from_message(received["camera_info"][0]).intrinsics == pytest.approx(PINHOLE)
    np.testing.assert_allclose(image_from_message(received["image"][1]).astype(int), SCENE.rgb, atol=1)
    truth = depth_from_message(received["true_depth/image"][2])
    assert np.isnan(truth[HOLE]).all()
    np.testing.assert_allclose(truth[20:], PLANE_M, atol=1e-6)


def test_a_bag_is_played_through_the_lens(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for topic, kind, _ in messages(0):
            bag.announce(f"/{topic}", kind, SENSOR_DATA)
        for number in range(3):
            for topic, kind, msg in messages(number):
                bag.write(f"/{topic}", kind, 10**18 + number * 10**8, bytes(serialize(msg, kind)))
    frames = first(RecordedRgbd(config(tmp_path / "bag")), 6)
    assert [f.focus.focus_diopters for f in frames] == [2.5, 1.25, 0.1, 0.1, 1.25, 2.5]
    np.testing.assert_allclose(frames[1].image.astype(int), SCENE.rgb, atol=1)
    np.testing.assert_allclose(frames[1].true_depth_m, depth_m(), atol=1e-6)
    with pytest.raises(ValueError, match=r"expected sensor_msgs/msg/Image on /aligned; set rgbd.depth") as refused:
        RecordedRgbd(config(tmp_path / "bag", depth="/aligned"))
    assert "/rgbd/depth  sensor_msgs/msg/Image  3 messages" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": "nowhere"}, "rgbd.path nowhere: no such folder or bag"),
        ({"path": "."}, "expected a folder with rgb.txt and depth.txt"),
        ({"path": "s", "calibration": ""}, "says no intrinsics; set rgbd.calibration"),
        ({"path": "s", "match_tolerance_s": 0.001}, "no colour image has a depth image"),
        ({"path": "s", "focus_diopters": "1,x"}, "rgbd.focus_diopters: expected numbers with commas"),
        ({"path": "s", "focus_diopters": "1"}, "rgbd.focus_diopters: expected 2 to 64"),
        ({"path": "s", "focus_diopters": "1,50"}, "rgbd.focus_diopters: 50.0 dioptres is 0.02 m, inside the focal"),
    ],
)
def test_refused(settings: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tum_folder(tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=words.replace(".", r"\.")):
        RecordedRgbd(config(**{"calibration": "s/camera.yaml", **settings}))


def test_files_outside_the_folder_and_views_that_differ_are_refused(tmp_path: Path) -> None:
    folder = tum_folder(tmp_path / "s")
    settings = config(folder, calibration=str(folder / "camera.yaml"))
    (folder / "depth.txt").write_text("1.0 ../secret.png\n")
    with pytest.raises(ValueError, match="expected files inside the folder"):
        RecordedRgbd(settings)
    (folder / "depth.txt").write_text("1.0 depth/0.png\n")
    write_png(folder / "rgb/0.png", SCENE.rgb[:, :40])
    with pytest.raises(ValueError, match="expected depth of the same view as the colour"):
        RecordedRgbd(settings)
    assert math.isnan(depth_m()[12, 22])

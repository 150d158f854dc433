"""Faults over DDS and on native ROS 2, with real time and threads: counted, said, and over when they are over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from live_rig import TIMEOUT_S, LiveRig, smaller
from node_rig import ERROR, OK, PLANE_M
from ros_rig import namespace, ros_domain

from dfs_ros.config import Config
from dfs_ros.messages.convert import COMPRESSED, header, image_message, message
from dfs_ros.transport import open_transport
from dfs_ros.types import FocalStack

__all__ = ["namespace", "ros_domain"]  # fixtures


@pytest.fixture(scope="module", params=["dds", "ros"])
def kind(request: pytest.FixtureRequest, ros_domain: None) -> str:
    if request.param == "dds":
        pytest.importorskip("cyclonedds", reason="cyclonedds, which has no package for this machine, carries this")
    else:
        pytest.importorskip("rclpy", reason="ROS 2 is not installed, or its setup file is not sourced")
        pytest.importorskip("dfs_ros.msg", reason="this package was not built with colcon, or not sourced")
    return str(request.param)


@pytest.fixture
def make_live(kind: str, namespace: str, plane: FocalStack) -> Iterator[Callable[..., LiveRig]]:
    rigs: list[LiveRig] = []

    def open_node(name: str, config: Config) -> Any:
        return open_transport(kind, name, namespace=namespace, config=config)

    def make(settings: dict[str, dict[str, Any]] | None = None) -> LiveRig:
        rigs.append(LiveRig(plane, open_node, settings or {}))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def live(make_live: Callable[..., LiveRig]) -> LiveRig:
    rig = make_live()
    rig.listen("depth/image")
    return rig


def near_plane(tolerance: float = 0.03) -> Any:
    return pytest.approx(PLANE_M, rel=tolerance)


def test_the_camera_stops_and_comes_back(live: LiveRig) -> None:
    assert live.next_depth_m() == near_plane()
    live.close_camera()
    live.until(lambda: live.said("nobody publishes it", ERROR))
    live.open_camera()
    live.meet()
    assert live.next_depth_m() == near_plane()
    live.forget()
    while not live.said("computing depth", OK):
        live.next_depth_m()


def test_the_camera_restarts_with_another_size(live: LiveRig) -> None:
    assert live.next_depth_m() == near_plane()
    live.close_camera()
    live.stack = smaller(live.stack)
    live.open_camera()
    live.meet()
    live.send_sweep()
    live.until(lambda: len(live.depths()) == 2)
    assert [(m.height, m.width) for m in live.depths()] == [(72, 96), (48, 64)]
    live.until(lambda: live.state()[2]["wrong_size"] == "1")


def test_the_clock_of_the_camera_jumps_back(live: LiveRig) -> None:
    assert live.next_depth_m() == near_plane()
    hour_ago = live.camera.now_ns() - 3600 * 10**9
    assert live.next_depth_m(start_ns=hour_ago) == near_plane()
    assert live.next_depth_m(start_ns=hour_ago + 10**9) == near_plane()
    live.until(lambda: live.state()[2]["clock_reset"] == "1")


def test_the_focus_stops_and_comes_back(make_live: Callable[..., LiveRig]) -> None:
    live = make_live({"stack": {"max_pending": 4}})
    live.listen("depth/image")
    assert live.next_depth_m() == near_plane()
    deadline = time.monotonic() + TIMEOUT_S
    while not live.said("its focus metadata did not come in time", ERROR):
        assert time.monotonic() < deadline
        live.send_sweep(with_focus=False)
        while live.listener.spin_once(0):
            pass
    assert len(live.depths()) == 1
    assert live.next_depth_m() == near_plane()


def test_images_that_cannot_be_read(live: LiveRig) -> None:
    wrong = image_message(live.stack.images[0], live.camera.now_ns(), "lens")
    wrong.encoding = "jpeg2000"
    live.publishers["image"].publish(wrong)
    live.until(lambda: live.state()[2]["bad_image"] == "1")
    assert live.said("encoding: expected one of", ERROR)
    live.until(lambda: any(v == "1" for k, v in live.state("transport")[2].items() if k.endswith("image refused")))
    assert live.next_depth_m() == near_plane()


def bayer(image: np.ndarray, stamp: int) -> Any:
    mosaic = image[..., 1].copy()
    mosaic[::2, ::2] = image[::2, ::2, 0]
    mosaic[1::2, 1::2] = image[1::2, 1::2, 2]
    return image_message(mosaic, stamp, "lens", "bayer_rggb8")


def yuv_planes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Y of each pixel, and (U, V) of each block of 2 x 2."""
    height, width = image.shape[:2]
    planar = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    luma, chroma = planar[: height * width], planar[height * width :]
    return luma.reshape(height, width), np.moveaxis(chroma.reshape(2, height // 2, width // 2), 0, -1)


def nv12(image: np.ndarray, stamp: int) -> Any:
    luma, chroma = yuv_planes(image)
    return image_message(np.vstack([luma, chroma.reshape(-1, luma.shape[1])]), stamp, "lens", "nv12")


def yuyv(image: np.ndarray, stamp: int) -> Any:
    luma, chroma = yuv_planes(image)
    packed = np.stack([luma, np.repeat(chroma.reshape(-1, luma.shape[1]), 2, axis=0)], axis=-1)
    return image_message(packed, stamp, "lens", "yuv422_yuy2")


@pytest.mark.parametrize("make", [bayer, nv12, yuyv])
def test_bayer_and_yuv_images(make_live: Callable[..., LiveRig], make: Callable[[np.ndarray, int], Any]) -> None:
    live = make_live()
    live.listen("depth/image")
    assert live.next_depth_m(make) == near_plane(0.05)  # colour is interpolated


def compressed(image: np.ndarray, stamp: int) -> Any:
    good, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert good
    return message(COMPRESSED, header=header(stamp, "lens"), format="jpeg", data=data.reshape(-1))


def test_compressed_images(make_live: Callable[..., LiveRig]) -> None:
    live = make_live({"node": {"image_transport": "compressed"}})
    live.listen("depth/image")
    assert live.next_depth_m(compressed, topic="image/compressed") == near_plane(0.05)


def test_a_subscriber_comes_and_goes(make_live: Callable[..., LiveRig]) -> None:
    live = make_live()
    live.meet()
    live.send_sweep()
    live.until(lambda: live.state()[2]["ignored"] == "3")
    assert live.state()[2]["state"] == "ready; nobody subscribes to depth"
    assert live.state()[2]["received"] == "0"
    live.listen("depth/image")
    assert live.next_depth_m() == near_plane()
    (subscription,) = [s for s in live.listener.subscriptions if s.topic.endswith("depth/image")]
    live.listener.unsubscribe(subscription)
    live.forget()
    live.until(lambda: "nobody subscribes" in live.state()[2].get("state", ""))
    live.send_sweep()
    live.until(lambda: live.state()[2]["ignored"] == "6")
    assert live.state()[2]["published"] == "1"
    live.listen("depth/image")
    assert live.next_depth_m() == near_plane()

"""RTAB-Map, as examples/rtabmap.launch.py starts it, fed with images and depth one by one; needs native ROS 2.

Each view waits for the odometry of the one before: the result does not depend on how fast the machine is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.slam_score import Mapped
from dfs_ros.config import DdsConfig
from dfs_ros.messages.convert import CAMERA_INFO, IMAGE, POINTS
from dfs_ros.messages.definitions import Message, stamp_ns
from dfs_ros.messages.motion import ODOMETRY, TF, StampedTransform, tf_message
from dfs_ros.transforms.rigid import Transform, transform
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import Qos, Transport
from dfs_ros.transport.dds.domain import large_messages_xml

_PATIENCE_S = 240.0
_QUIET_S = 5.0
_AGAIN_S = 4.0
"""Time after which a view is sent again: its synchroniser drops a view of which one message came late."""
_GUESS = "dfs_odom"
_LOST_VARIANCE = 9999.0
"""Variance of the pose that rgbd_odometry publishes where it is lost."""
_QOS = Qos(reliable=True, depth=100)


class RgbdMessages(NamedTuple):
    """Messages of one view: image, camera_info, depth image."""

    stamp_ns: int
    rgb: Message
    info: Message
    depth: Message


def run(
    views: Sequence[RgbdMessages], log: Path, guess: Mapping[int, Transform], progress: Callable[[float], None]
) -> Mapped:
    """Map a sequence of views; `guess`: places of the body by stamp, on tf before the view of that stamp.

    Raises TimeoutError if RTAB-Map does not answer; its output is in `log`.
    """
    arguments = (f"guess_frame:={_GUESS}",) if guess else ()
    with _launched(log, arguments), open_transport("ros", "slam_bench") as transport:
        feeder = _Feeder(transport)
        feeder.wait(feeder.ready, "RTAB-Map's subscriptions")
        for number, view in enumerate(views, start=1):
            feeder.send(view, guess.get(view.stamp_ns))
            progress(number)
        feeder.settle()
        return feeder.mapped


@contextmanager
def _launched(log: Path, arguments: tuple[str, ...]) -> Iterator[None]:
    command = ["ros2", "launch", "dfs_ros", "rtabmap.launch.py", "camera:=none", *arguments]
    environment = {"CYCLONEDDS_URI": large_messages_xml(DdsConfig()), **os.environ}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


class _Feeder:
    def __init__(self, transport: Transport) -> None:
        self.mapped = Mapped()
        self._transport = transport
        self._answered: set[int] = set()
        self._heard = time.monotonic()
        self._rgb = transport.create_publisher("all_in_focus/image", IMAGE)
        self._info = transport.create_publisher("all_in_focus/camera_info", CAMERA_INFO)
        self._depth = transport.create_publisher("depth/image", IMAGE)
        self._tf = transport.create_publisher("/tf", TF)
        self._answers = [
            transport.create_subscription("odom", ODOMETRY, self._on_odometry, _QOS),
            transport.create_subscription("mapPath", "nav_msgs/msg/Path", self._on_path, _QOS),
            transport.create_subscription("cloud_map", POINTS, self._on_cloud, _QOS),
        ]

    def ready(self) -> bool:
        """True once odometry and mapping listen to every topic, and are heard."""
        listening = all(each.subscription_count() >= 2 for each in (self._rgb, self._info, self._depth))
        return listening and all(each.publisher_count() for each in self._answers)

    def send(self, view: RgbdMessages, place: Transform | None) -> None:
        if place is not None:
            self._tf.publish(tf_message([StampedTransform(_GUESS, "camera_link", view.stamp_ns, place)]))
        deadline = time.monotonic() + _PATIENCE_S
        while view.stamp_ns not in self._answered:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {_PATIENCE_S:g} s: odometry of the image at {view.stamp_ns}")
            self._info.publish(view.info)
            self._depth.publish(view.depth)
            self._rgb.publish(view.rgb)
            again = time.monotonic() + _AGAIN_S
            while view.stamp_ns not in self._answered and time.monotonic() < again:
                self._transport.spin_once(0.05)

    def settle(self) -> None:
        """Wait until the map no longer changes."""
        self._heard = time.monotonic()
        while time.monotonic() - self._heard < _QUIET_S:
            self._transport.spin_once(0.1)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {_PATIENCE_S:g} s: {what}")
            self._transport.spin_once(0.05)

    def _on_odometry(self, msg: Message) -> None:
        stamp = stamp_ns(msg.header.stamp)
        if msg.pose.covariance[0] >= _LOST_VARIANCE:
            self.mapped.lost.append(stamp)
        else:
            self.mapped.odometry[stamp] = _transform_of(msg.pose.pose)
        self._answered.add(stamp)

    def _on_path(self, msg: Message) -> None:
        self._heard = time.monotonic()
        self.mapped.path = {stamp_ns(each.header.stamp): _transform_of(each.pose) for each in msg.poses}

    def _on_cloud(self, msg: Message) -> None:
        self._heard = time.monotonic()
        offset = {each.name: each.offset for each in msg.fields}
        data = np.asarray(msg.data, np.uint8).reshape(-1, msg.point_step)
        at = [offset[axis] for axis in "xyz"]
        self.mapped.points = np.stack([data[:, i : i + 4].copy().view("<f4")[:, 0] for i in at], axis=-1).astype(float)
        if "rgb" in offset:
            self.mapped.colours = data[:, offset["rgb"] : offset["rgb"] + 3][:, ::-1].copy()


def _transform_of(pose: Message) -> Transform:
    place, turn = pose.position, pose.orientation
    return transform((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))

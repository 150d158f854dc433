"""A moving robot for tests: its true motion, and transforms and gyroscope samples of it on a transport."""

from __future__ import annotations

import numpy as np

from dfs_ros.messages.motion import (
    IMU,
    TF,
    AngularVelocity,
    StampedTransform,
    imu_message,
    tf_message,
)
from dfs_ros.transforms.rigid import Transform, rotation_of, transform
from dfs_ros.transport.base import LATCHED, Transport

FRAME = "lens"
"""Optical frame of the images of node_rig."""
MOUNT = transform((0.1, 0.0, 0.3), (-0.5, 0.5, -0.5, 0.5))
"""The optical frame on the robot, which looks ahead."""
SPEED_M_S, TURN_RAD_S = 0.2, 0.1
IMU_TURN = rotation_of(np.array([0.0, 0.0, 0.5 * np.pi]))
"""Axes of the gyroscope on the robot: x to the left."""


def robot(seconds: float) -> Transform:
    """The robot in odom: ahead, and in a turn to the left."""
    return Transform(
        rotation_of(np.array([0.0, 0.0, TURN_RAD_S * seconds])), np.array([SPEED_M_S * seconds, 0.05, 0.0])
    )


def camera_between(first_s: float, last_s: float) -> Transform:
    """The camera at `last_s` in its frame at `first_s`."""
    return robot(first_s).after(MOUNT).inverse().after(robot(last_s).after(MOUNT))


class Robot:
    """Publisher of a moving robot's transforms and gyroscope; times are those of its start."""

    def __init__(self, transport: Transport, start_ns: int) -> None:
        self._start_ns = start_ns
        self._tf = transport.create_publisher("/tf", TF)
        self._static = transport.create_publisher("/tf_static", TF, LATCHED)
        self._imu = transport.create_publisher("imu", IMU)

    def send_mount(self, imu: bool = False) -> None:
        mounts = [StampedTransform("base_link", FRAME, 0, MOUNT)]
        mounts += [StampedTransform("base_link", "imu_link", 0, Transform(IMU_TURN, np.zeros(3)))] if imu else []
        self._static.publish(tf_message(mounts))

    def send_tf(self, seconds: float, moved: Transform | None = None, parent: str = "odom") -> None:
        stamp_ns = self._start_ns + round(seconds * 1e9)
        pose = robot(seconds) if moved is None else moved
        self._tf.publish(tf_message([StampedTransform(parent, "base_link", stamp_ns, pose)]))

    def send_imu(self, seconds: float, bias_rad_s: float = 0.0) -> None:
        rate = IMU_TURN.T @ np.array([0.0, 0.0, TURN_RAD_S]) + bias_rad_s
        stamp_ns = self._start_ns + round(seconds * 1e9)
        self._imu.publish(imu_message(AngularVelocity(stamp_ns, "imu_link", rate)))

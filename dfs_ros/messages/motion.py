"""Messages of motion: tf2_msgs/TFMessage, sensor_msgs/Imu, nav_msgs/Odometry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfs_ros.messages.definitions import Message, header, message, stamp_ns
from dfs_ros.transforms.rigid import Transform, transform

TF = "tf2_msgs/msg/TFMessage"
IMU = "sensor_msgs/msg/Imu"
ODOMETRY = "nav_msgs/msg/Odometry"

_UNKNOWN = 1e6  # variance of what is not measured: large, as 0 would count as exact


class StampedTransform(NamedTuple):
    """Transform of points from frame `child` to frame `parent` at a time."""

    parent: str
    child: str
    stamp_ns: int
    transform: Transform


class AngularVelocity(NamedTuple):
    """Rate (3,) of a gyroscope in rad/s, about the axes of its frame."""

    stamp_ns: int
    frame_id: str
    rate_rad_s: NDArray[np.float64]


def tf_message(transforms: Iterable[StampedTransform]) -> Message:
    """Make a tf2_msgs/TFMessage."""
    return message(
        TF,
        transforms=[
            message(
                "geometry_msgs/msg/TransformStamped",
                header=header(each.stamp_ns, each.parent),
                child_frame_id=each.child,
                transform=message(
                    "geometry_msgs/msg/Transform",
                    translation=_vector(each.transform.translation_m),
                    rotation=_named("geometry_msgs/msg/Quaternion", "xyzw", each.transform.rotation_xyzw),
                ),
            )
            for each in transforms
        ],
    )


def transforms_from_message(msg: Message) -> tuple[list[StampedTransform], list[str]]:
    """Transforms of a tf2_msgs/TFMessage, and the errors of those that are none: not finite, no unit quaternion."""
    found, errors = [], []
    for each in msg.transforms:
        position, turn = each.transform.translation, each.transform.rotation
        try:
            moved = transform((position.x, position.y, position.z), (turn.x, turn.y, turn.z, turn.w))
            found.append(
                StampedTransform(each.header.frame_id, each.child_frame_id, stamp_ns(each.header.stamp), moved)
            )
        except ValueError as error:
            errors.append(f"{each.header.frame_id} -> {each.child_frame_id}: {error}")
    return found, errors


def imu_message(angular: AngularVelocity) -> Message:
    """Make a sensor_msgs/Imu of a gyroscope alone."""
    unknown = np.array([-1.0] + 8 * [0.0])  # as the definition says of what is not measured
    return message(
        IMU,
        header=header(angular.stamp_ns, angular.frame_id),
        orientation=_named("geometry_msgs/msg/Quaternion", "xyzw", (0.0, 0.0, 0.0, 1.0)),
        orientation_covariance=unknown,
        angular_velocity=_vector(angular.rate_rad_s),
        linear_acceleration_covariance=unknown,
    )


def angular_velocity_from_message(msg: Message) -> AngularVelocity:
    """Angular velocity of a sensor_msgs/Imu; raises ValueError for one that does not measure it or has no frame."""
    if msg.angular_velocity_covariance[0] == -1:
        raise ValueError("imu: expected a gyroscope, received angular_velocity_covariance[0] = -1: no angular velocity")
    rate = np.array([msg.angular_velocity.x, msg.angular_velocity.y, msg.angular_velocity.z])
    if not np.isfinite(rate).all():
        raise ValueError(f"imu: expected finite angular velocities, received {rate.tolist()}")
    if not msg.header.frame_id:
        raise ValueError("imu: expected a frame_id, in which the angular velocity is, received none")
    return AngularVelocity(stamp_ns(msg.header.stamp), msg.header.frame_id, rate)


def odometry_message(
    stamp_ns: int,
    fixed_frame: str,
    frame_id: str,
    velocity_m_s: NDArray[np.float64],
    covariance: NDArray[np.float64],
) -> Message:
    """Make a nav_msgs/Odometry of a linear velocity (3,) in frame `frame_id`, with covariance (3, 3) in m^2/s^2.

    Pose and angular velocity are not measured: zero, with variances of 10^6.
    """
    twist = np.diag(np.full(6, _UNKNOWN))
    twist[:3, :3] = covariance
    return message(
        ODOMETRY,
        header=header(stamp_ns, fixed_frame),
        child_frame_id=frame_id,
        pose=message(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=message(
                "geometry_msgs/msg/Pose",
                orientation=_named("geometry_msgs/msg/Quaternion", "xyzw", (0.0, 0.0, 0.0, 1.0)),
            ),
            covariance=np.diag(np.full(6, _UNKNOWN)).ravel(),
        ),
        twist=message(
            "geometry_msgs/msg/TwistWithCovariance",
            twist=message("geometry_msgs/msg/Twist", linear=_vector(velocity_m_s)),
            covariance=twist.ravel(),
        ),
    )


def _vector(values: NDArray[np.float64]) -> Message:
    return _named("geometry_msgs/msg/Vector3", "xyz", values)


def _named(type_name: str, names: str, values: Iterable[float]) -> Message:
    return message(type_name, **{name: float(value) for name, value in zip(names, values, strict=True)})

"""Messages of motion: values to and fro, bytes as ROS writes them, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from message_rig import STAMP

from dfs_ros.messages.definitions import deserialize, message, serialize, type_store
from dfs_ros.messages.motion import (
    IMU,
    ODOMETRY,
    TF,
    AngularVelocity,
    StampedTransform,
    angular_velocity_from_message,
    imu_message,
    odometry_message,
    tf_message,
    transforms_from_message,
)
from dfs_ros.transforms.rigid import IDENTITY, transform

HALF = math.sqrt(0.5)
MOVED = StampedTransform("odom", "base_link", STAMP, transform((1.0, -2.0, 0.5), (0.0, 0.0, HALF, HALF)))

# CDR by field: little-endian header; sizes, text with its 0, padding to 8 before doubles that count from the header.
TF_CDR = (
    "00010000 01000000 00f15365 15cd5b07 05000000 6f646f6d 00000000 0a000000 626173655f6c696e6b00 0000"
    "000000000000f03f 00000000000000c0 000000000000e03f"
    "0000000000000000 0000000000000000 cd3b7f669ea0e63f cd3b7f669ea0e63f"
)
IMU_CDR = (
    "00010000 00f15365 15cd5b07 04000000 696d7500"
    "0000000000000000 0000000000000000 0000000000000000 000000000000f03f"
    "000000000000f0bf"
    + 8 * "0000000000000000"
    + "000000000000c03f 000000000000d0bf 0000000000000040"
    + 9 * 8 * "00"
    + 3 * 8 * "00"
    + "000000000000f0bf"
    + 8 * "0000000000000000"
)


def test_bytes_of_transforms():
    ours, expected = bytes(serialize(tf_message([MOVED]), TF)), bytes.fromhex(TF_CDR)
    assert ours[:44] == expected[:44]
    np.testing.assert_allclose(np.frombuffer(ours[44:], "<f8"), np.frombuffer(expected[44:], "<f8"), atol=1e-15)
    # as `ros2 topic info -v` of Jazzy prints it
    assert type_store().hash_rihs01(TF) == "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"


def test_bytes_of_a_gyroscope():
    angular = AngularVelocity(STAMP, "imu", np.array([0.125, -0.25, 2.0]))
    assert serialize(imu_message(angular), IMU).hex() == IMU_CDR.replace(" ", "")


def test_transforms_come_back():
    msg = deserialize(serialize(tf_message([MOVED, MOVED._replace(child="arm")]), TF), TF)
    (first, second), errors = transforms_from_message(msg)
    assert errors == [] and (first.parent, first.child, first.stamp_ns, second.child) == (
        *MOVED[:1],
        "base_link",
        STAMP,
        "arm",
    )
    np.testing.assert_allclose(first.transform.rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    assert first.transform.translation_m.tolist() == [1.0, -2.0, 0.5]


def test_a_transform_that_is_none_costs_that_one_alone():
    msg = tf_message([MOVED, MOVED._replace(child="zero"), MOVED._replace(child="long"), MOVED._replace(child="time")])
    msg.transforms[1].transform.rotation = message("geometry_msgs/msg/Quaternion")
    msg.transforms[2].transform.translation.y = math.inf
    msg.transforms[3].header.stamp.nanosec = 10**9
    found, errors = transforms_from_message(msg)
    assert [each.child for each in found] == ["base_link"]
    assert [error.split(":")[0] for error in errors] == ["odom -> zero", "odom -> long", "odom -> time"]
    assert "received length 0" in errors[0] and "expected finite" in errors[1] and "below 10^9" in errors[2]


def test_rates_come_back_and_others_are_refused():
    angular = AngularVelocity(STAMP, "imu", np.array([0.1, -0.2, 0.3]))
    stamp, frame_id, rate = angular_velocity_from_message(imu_message(angular))
    assert (stamp, frame_id, rate.tolist()) == (STAMP, "imu", [0.1, -0.2, 0.3])
    accelerometer = imu_message(angular)
    accelerometer.angular_velocity_covariance[0] = -1
    for msg, said in (
        (accelerometer, "expected a gyroscope"),
        (imu_message(angular._replace(frame_id="")), "expected a frame_id"),
        (imu_message(angular._replace(rate_rad_s=np.array([0.0, math.nan, 0.0]))), "expected finite"),
    ):
        with pytest.raises(ValueError, match=said):
            angular_velocity_from_message(msg)


def test_no_transforms_is_a_message_too():
    assert transforms_from_message(tf_message([])) == ([], [])
    assert IDENTITY.rotation_xyzw == (0.0, 0.0, 0.0, 1.0)


def test_a_velocity_leaves_all_else_unknown():
    covariance = np.array([[0.01, 0.002, 0.0], [0.002, 0.04, 0.0], [0.0, 0.0, 0.09]])
    sent = odometry_message(STAMP, "odom", "lens", np.array([0.2, -0.1, 0.05]), covariance)
    msg = deserialize(serialize(sent, ODOMETRY), ODOMETRY)
    assert (msg.header.frame_id, msg.child_frame_id) == ("odom", "lens")
    linear, angular, turned = msg.twist.twist.linear, msg.twist.twist.angular, msg.pose.pose.orientation
    assert (linear.x, linear.y, linear.z) == (0.2, -0.1, 0.05)
    assert (angular.x, angular.y, angular.z, turned.w) == (0.0, 0.0, 0.0, 1.0)
    twist, pose = (np.reshape(part.covariance, (6, 6)) for part in (msg.twist, msg.pose))
    np.testing.assert_array_equal(twist[:3, :3], covariance)
    np.testing.assert_array_equal(twist[3:, 3:], 1e6 * np.eye(3))
    np.testing.assert_array_equal(pose, 1e6 * np.eye(6))
    # as `ros2 topic info -v` of Jazzy prints it
    assert (
        type_store().hash_rihs01(ODOMETRY) == "RIHS01_3cc97dc7fb7502f8714462c526d369e35b603cfc34d946e3f2eda2766dfec6e0"
    )

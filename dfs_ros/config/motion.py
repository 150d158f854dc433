"""Settings of the camera's motion."""

from __future__ import annotations

from dataclasses import dataclass

from dfs_ros.config.setting import setting


@dataclass(frozen=True)
class MotionConfig:
    """Motion of the camera during a sweep: source of the poses of its images."""

    source: str = setting(
        "auto",
        "Source of the poses. tf: transforms of /tf and /tf_static; imu: rotation from a gyroscope on topic imu "
        "(sensor_msgs/Imu), beside which a velocity is found in the images; images: no poses; none: no poses, nor a "
        "velocity from the images; "
        "auto: tf where it reaches motion.frame, otherwise imu where it is received. Without poses, a steady velocity "
        "is found in the images where they tell one; otherwise they are registered to each other",
        choices=("auto", "tf", "imu", "images", "none"),
    )
    frame: str = setting(
        "odom", "Fixed frame of the poses of tf: one without jumps (REP 105), in which the camera moves smoothly"
    )
    wait_s: float = setting(
        0.1,
        "Longest wait for transforms or gyroscope samples up to the stamp of a stack's newest image; only while they "
        "are received",
        unit="s",
        low=0,
        high=10,
        dynamic=True,
    )
    max_gap_s: float = setting(
        0.2,
        "Longest time between two transforms, or two gyroscope samples, that is interpolated; nothing is extrapolated",
        unit="s",
        low=0.001,
        high=10,
        dynamic=True,
    )
    max_acceleration: float = setting(
        30.0,
        "Largest acceleration of a transform, beyond which it counts as a jump (odometry reset, wrong stamps) and the "
        "stack gets no poses",
        unit="m/s^2",
        low=0.1,
        high=1e6,
        dynamic=True,
    )
    translation_sigma: float = setting(
        0.05,
        "Standard deviation of the movement within a sweep by tf, as a fraction of its distance",
        low=0,
        high=1,
        dynamic=True,
    )
    rotation_sigma: float = setting(
        0.02,
        "Standard deviation of the rotation within a sweep by tf or imu, as a fraction of its angle",
        low=0,
        high=1,
        dynamic=True,
    )
    gyroscope_bias: float = setting(
        0.02,
        "Largest bias of the gyroscope, each axis: its standard deviation until it is measured, while the camera "
        "stands still for a second",
        unit="rad/s",
        low=0,
        high=1,
        dynamic=True,
    )
    odometry: bool = setting(
        False,
        "Publish the velocity found within each sweep on ~/odometry (nav_msgs/Odometry, in the frame of the images)",
    )

"""Pose of a camera in a frame that all images of a stack share, as in stack.yaml."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-3
_UNKNOWN = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Pose:
    """Rigid motion from the camera's optical frame (x right, y down, z forward) to a reference.

    A point p of the camera lies at ``R p + t`` in the reference.

    Parameters
    ----------
    translation_m
        (x, y, z) of the camera in the frame of the reference; all NaN (the default) = unknown, as of a gyroscope.
    rotation_xyzw
        Unit quaternion.
    sigma_m, sigma_rad
        Standard deviations of translation and rotation, along and about each axis; NaN = unknown.
    """

    translation_m: tuple[float, float, float] = _UNKNOWN
    rotation_xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    sigma_m: float = math.nan
    sigma_rad: float = math.nan

    def __post_init__(self) -> None:
        for name, count in (("translation_m", 3), ("rotation_xyzw", 4)):
            values = tuple(float(value) for value in getattr(self, name))
            if name == "translation_m" and len(values) == count and all(map(math.isnan, values)):
                values = _UNKNOWN  # one object, as below
            elif len(values) != count or not all(map(math.isfinite, values)):
                raise ValueError(f"pose.{name}: expected {count} finite numbers, received {list(values)}")
            object.__setattr__(self, name, values)
        length = math.hypot(*self.rotation_xyzw)
        if abs(length - 1.0) > _ROUNDING:
            raise ValueError(
                f"pose.rotation_xyzw: expected a quaternion of length 1 (x, y, z, w), received length {length:.4g}"
            )
        for name in ("sigma_m", "sigma_rad"):
            value = getattr(self, name)
            if value < 0 or math.isinf(value):
                raise ValueError(f"pose.{name}: expected a finite number of 0 or more, received {value}")
            if math.isnan(value):
                object.__setattr__(self, name, math.nan)  # one object: poses with the same unknowns are equal

    @property
    def is_rotation_alone(self) -> bool:
        """True if the translation is unknown."""
        return math.isnan(self.translation_m[0])

    @property
    def rotation(self) -> NDArray[np.float64]:
        """Rotation matrix R, float64 (3, 3)."""
        x, y, z, w = np.array(self.rotation_xyzw) / math.hypot(*self.rotation_xyzw)
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )

    def seen_from(self, other: Pose) -> Pose:
        """Motion from this camera to the camera of `other`, with the standard deviations of this pose.

        Both poses lead to the same frame.
        """
        offset = np.subtract(self.translation_m, other.translation_m)
        x, y, z, w = self.rotation_xyzw
        a, b, c, d = np.array([-1.0, -1.0, -1.0, 1.0]) * other.rotation_xyzw
        qx, qy, qz, qw = (
            d * x + a * w + b * z - c * y,
            d * y - a * z + b * w + c * x,
            d * z + a * y - b * x + c * w,
            d * w - a * x - b * y - c * z,
        )
        n = math.hypot(qx, qy, qz, qw)
        moved_x, moved_y, moved_z = other.rotation.T @ offset
        return replace(self, translation_m=(moved_x, moved_y, moved_z), rotation_xyzw=(qx / n, qy / n, qz / n, qw / n))


def stack_poses(poses: Sequence[Pose | None]) -> tuple[Pose | None, ...]:
    """Poses of the frames of a stack; empty if none is known."""
    return tuple(poses) if any(pose is not None for pose in poses) else ()

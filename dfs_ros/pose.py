"""Pose of a camera relative to a reference, as in stack.yaml."""

from __future__ import annotations

import math
from dataclasses import dataclass

_ROUNDING = 1e-3


@dataclass(frozen=True)
class Pose:
    """Rigid motion from the camera to the reference.

    Parameters
    ----------
    translation_m
        (x, y, z) of the camera in the frame of the reference.
    rotation_xyzw
        Unit quaternion.
    sigma_m, sigma_rad
        Standard deviations of translation and rotation, along and about each axis; NaN = unknown.
    """

    translation_m: tuple[float, float, float]
    rotation_xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    sigma_m: float = math.nan
    sigma_rad: float = math.nan

    def __post_init__(self) -> None:
        for name, count in (("translation_m", 3), ("rotation_xyzw", 4)):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != count or not all(map(math.isfinite, values)):
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

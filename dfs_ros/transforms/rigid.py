"""Rigid motions between frames: composition, inverse, interpolation, quaternions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.pose import Pose

Array = NDArray[np.float64]
_UNIT_ERROR = 1e-2
_NEAR_HALF_TURN = -0.99  # cosine; OpenCV takes angles under 1e-5 for none


class Transform(NamedTuple):
    """Motion ``x -> rotation @ x + translation_m`` of points from a frame to another.

    `rotation` (3, 3), `translation_m` (3,): the frame's axes and origin, seen from the other.
    """

    rotation: Array
    translation_m: Array

    def after(self, first: Transform) -> Transform:
        """This motion after `first`."""
        return Transform(self.rotation @ first.rotation, self.rotation @ first.translation_m + self.translation_m)

    def inverse(self) -> Transform:
        """The opposite motion."""
        return Transform(self.rotation.T, -self.rotation.T @ self.translation_m)

    def towards(self, other: Transform, share: float) -> Transform:
        """Motion between this (share 0) and another (1): straight, about one axis at a steady rate (slerp)."""
        turn = rotation_of(share * vector_of(self.rotation.T @ other.rotation))
        return Transform(self.rotation @ turn, (1 - share) * self.translation_m + share * other.translation_m)

    @property
    def rotation_xyzw(self) -> tuple[float, float, float, float]:
        """The rotation as a unit quaternion."""
        vector = vector_of(self.rotation)
        angle = float(np.linalg.norm(vector))
        x, y, z = (vector * (0.5 if angle < 1e-12 else math.sin(angle / 2) / angle)).tolist()
        return x, y, z, math.cos(angle / 2)


IDENTITY = Transform(np.eye(3), np.zeros(3))


def transform(translation_m: Sequence[float], rotation_xyzw: Sequence[float] = (0.0, 0.0, 0.0, 1.0)) -> Transform:
    """Transform of a translation and a quaternion, made of unit length.

    Raises ValueError for numbers that are not finite, and for a quaternion whose length is over 1 % off 1.
    """
    numbers = np.array([*translation_m, *rotation_xyzw], np.float64)
    if numbers.shape != (7,) or not np.isfinite(numbers).all():
        raise ValueError(f"transform: expected finite x, y, z and quaternion x, y, z, w, received {numbers.tolist()}")
    length = math.hypot(*rotation_xyzw)
    if abs(length - 1.0) > _UNIT_ERROR:
        raise ValueError(f"transform: expected a quaternion of length 1 (x, y, z, w), received length {length:.4g}")
    x, y, z, w = (numbers[3:] / length).tolist()
    return Transform(Pose((0.0, 0.0, 0.0), (x, y, z, w)).rotation, numbers[:3])


def rotation_of(vector: Array) -> Array:
    """Rotation matrix (3, 3) of a rotation vector (3,): axis times angle in radians."""
    return np.asarray(cv2.Rodrigues(np.asarray(vector, np.float64))[0], np.float64)


def vector_of(rotation: Array) -> Array:
    """Rotation vector (3,) of a matrix (3, 3), of length 0 to pi."""
    (_, a, b), (c, _, d), (e, f, _) = rotation.tolist()
    vector = 0.5 * np.array([f - d, b - e, c - a])
    sine, cosine = float(np.linalg.norm(vector)), 0.5 * (float(np.trace(rotation)) - 1.0)
    if cosine < _NEAR_HALF_TURN:
        return np.asarray(cv2.Rodrigues(rotation)[0], np.float64).reshape(3)
    return vector * (math.atan2(sine, cosine) / sine if sine > 0 else 1.0)

"""Depth and sigma, in millimetres, of points that a browser chooses in the 3-D scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.pose import Pose

_WITHIN_RAD = math.radians(1.0)  # of the ray through the cursor


class View(NamedTuple):
    """Camera of a browser: place and rotation (w, x, y, z) in the scene, vertical field of view, width / height."""

    position: ArrayLike
    wxyz: Sequence[float]
    fov_rad: float
    aspect: float


def at_ray(points_m: NDArray[np.float32], origin: ArrayLike, direction: ArrayLike) -> NDArray[np.intp]:
    """Number of the point (N, 3) nearest to a ray by angle; none if all are over a degree off."""
    towards = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    away = points_m - np.asarray(origin, np.float64)
    along = away @ towards
    off = np.linalg.norm(away - along[:, None] * towards, axis=1)
    angle = np.where(along > 0, off / np.maximum(along, 1e-9), np.inf)
    return np.flatnonzero(angle <= min(_WITHIN_RAD, angle.min(initial=np.inf)))[:1]


def in_rectangle(
    points_m: NDArray[np.float32], view: View, low: tuple[float, float], high: tuple[float, float]
) -> NDArray[np.intp]:
    """Numbers of the points (N, 3) within a rectangle of the screen, whose corners are (0, 0) and (1, 1)."""
    w, x, y, z = (float(part) for part in view.wxyz)
    rotation = Pose((0.0, 0.0, 0.0), (x, y, z, w)).rotation
    seen = (points_m - np.asarray(view.position, np.float64)) @ rotation
    half = math.tan(view.fov_rad / 2)
    before = seen[:, 2] > 1e-6
    distance = np.where(before, seen[:, 2], 1.0)
    across = 0.5 + seen[:, 0] / distance / (2 * half * view.aspect)
    down = 0.5 + seen[:, 1] / distance / (2 * half)
    inside = (across >= low[0]) & (across <= high[0]) & (down >= low[1]) & (down <= high[1])
    return np.flatnonzero(before & inside)


def text(points_m: NDArray[np.float32], sigma_m: NDArray[np.float32] | None, pinhole: Intrinsics) -> str:
    """Line of text on the depth of chosen points (N, 3), with the sigma of their pixels."""
    if not len(points_m):
        return "No depth there"
    z = points_m[:, 2]
    column = np.rint(points_m[:, 0] / z * pinhole.fx + pinhole.cx).astype(int)
    row = np.rint(points_m[:, 1] / z * pinhole.fy + pinhole.cy).astype(int)
    sigma = "" if sigma_m is None else f" ± {1e3 * np.nanmedian(sigma_m[row, column]):,.0f}"
    depth = f"{1e3 * np.median(z):,.0f}{sigma} mm"
    if len(points_m) == 1:
        return f"Pixel ({column[0]}, {row[0]}): {depth}"
    low, high = 1e3 * np.percentile(z, (10, 90))
    return f"{len(z):,} points: median {depth}; 80 % from {low:,.0f} to {high:,.0f} mm"

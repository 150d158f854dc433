"""Points that the browser draws, from a depth image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_ros.optics.pinhole import Intrinsics, points_from_depth


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points of pixels with depth, in the optical frame (x right, y down, z forward).

    `points_m` float32 (N, 3), `colors` uint8 (N, 3) RGB; `stride`: every stride-th row and column was taken;
    `spacing_m` is the distance between neighbouring points of a surface at the median depth.
    """

    points_m: NDArray[np.float32]
    colors: NDArray[np.uint8]
    stride: int
    spacing_m: float


def grid_stride(height: int, width: int, max_points: int) -> int:
    """Smallest row and column stride with at most `max_points` points."""
    stride = max(1, math.isqrt(height * width // max_points))
    while -(-height // stride) * -(-width // stride) > max_points:
        stride += 1
    return stride


def hide_uncertain(
    depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32] | None, max_relative_sigma: float
) -> NDArray[np.float32]:
    """Remove depth with sigma NaN or over ``max_relative_sigma * depth``.

    Without sigma, all depth stays.
    """
    if sigma_m is None or not math.isfinite(max_relative_sigma):
        return depth_m
    with np.errstate(invalid="ignore"):
        certain = sigma_m <= max_relative_sigma * depth_m
    return np.where(certain, depth_m, np.float32(np.nan))


def make_cloud(
    depth_m: NDArray[np.float32], image: NDArray[np.uint8], intrinsics: Intrinsics, max_points: int
) -> Cloud:
    """Make the cloud of pixels with depth, at most `max_points` on a regular grid.

    Parameters
    ----------
    depth_m
        float32 (H, W) in metres; pixels that are NaN, infinite or not over 0 have no point.
    image
        uint8 (H, W, 3) RGB, the colour of each point.
    intrinsics
        fx, fy, cx, cy in pixels.
    max_points
        Larger images are subsampled on a regular grid, so the density does not depend on the depth's distribution.
    """
    height, width = depth_m.shape
    stride = grid_stride(height, width, max_points)
    z = depth_m[::stride, ::stride]
    fx, fy, cx, cy = (float(v) / stride for v in intrinsics)  # of the subsampled image
    kept = np.isfinite(z) & (z > 0)
    points = points_from_depth(z, (fx, fy, cx, cy))[kept]
    spacing = float(np.median(points[:, 2])) / min(fx, fy) if len(points) else 0.0
    return Cloud(points, image[::stride, ::stride][kept], stride, spacing)

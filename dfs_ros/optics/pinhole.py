"""Pinhole intrinsics of a breathing lens, and back-projection of depth.

Points are in the optical frame of ROS (REP 103): x right, y down, z forward, metres; NaN without depth.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfs_ros.optics.thin_lens import magnification
from dfs_ros.types import Camera


class Intrinsics(NamedTuple):
    """Pinhole camera in pixels; the centre of the first pixel is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float


def intrinsics(camera: Camera, size: tuple[int, int], focus_diopters: float | None = None) -> Intrinsics:
    """Pinhole intrinsics of images of `size` (height, width) pixels taken at a focus.

    Unknown values (NaN) of `camera` are derived: ``fx = fy = f / ((1 - f D_ref) p)``, the distance from lens to sensor
    in pixels, and the centre of the image, ``((W - 1) / 2, (H - 1) / 2)``. At another focus than the reference the
    image of a thin lens is larger by ``(1 - f D_ref) / (1 - f D_f)`` about the principal point. `focus_diopters` None =
    the camera's reference focus.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size: expected (height, width) over 0, received {size}")
    f, reference = camera.focal_length_m, camera.reference_focus_diopters
    derived = f / ((1.0 - f * reference) * camera.pixel_pitch_m)
    fx = next(v for v in (camera.fx_px, camera.fy_px, derived) if not math.isnan(v))
    fy = next(v for v in (camera.fy_px, camera.fx_px, derived) if not math.isnan(v))
    cx = (width - 1) / 2 if math.isnan(camera.cx_px) else camera.cx_px
    cy = (height - 1) / 2 if math.isnan(camera.cy_px) else camera.cy_px
    scale = 1.0
    if focus_diopters is not None and focus_diopters != reference:
        scale = float(magnification(focus_diopters, camera) / magnification(reference, camera))
    return Intrinsics(fx * scale, fy * scale, cx, cy)


def pixel_pitch_from_intrinsics(fx_px: float, focal_length_m: float, reference_focus_diopters: float = 0.0) -> float:
    """Pixel pitch in metres, ``p = f / ((1 - f D_ref) fx)``; inverse of :func:`intrinsics`."""
    if not (math.isfinite(fx_px) and fx_px > 0):
        raise ValueError(f"fx_px: expected a finite number of pixels over 0, received {fx_px}")
    unit = Camera(focal_length_m, 1.0, 1e-6, reference_focus_diopters=reference_focus_diopters)  # checks both
    return unit.focal_length_m / ((1.0 - unit.focal_length_m * reference_focus_diopters) * fx_px)


def points_from_depth(
    depth_m: NDArray[np.float32], camera_intrinsics: tuple[float, float, float, float]
) -> NDArray[np.float32]:
    """Back-project a depth image to points.

    ``((u - cx) / fx, (v - cy) / fy, 1) * depth``

    Parameters
    ----------
    depth_m
        (H, W), distance along the optical axis in metres; NaN = unknown and stays NaN in x, y and z.
    camera_intrinsics
        (fx, fy, cx, cy) in pixels of the same image, as :func:`intrinsics` gives them.

    Returns
    -------
    float32 (H, W, 3), x right, y down, z forward.
    """
    depth = np.asarray(depth_m, np.float32)
    if depth.ndim != 2:
        raise ValueError(f"depth_m: expected shape (H, W), received {depth.shape}")
    fx, fy, cx, cy = (float(v) for v in camera_intrinsics)
    if not (all(map(math.isfinite, (fx, fy, cx, cy))) and fx > 0 and fy > 0):
        raise ValueError(
            f"camera_intrinsics: expected finite (fx, fy, cx, cy) with fx, fy over 0 px, received {(fx, fy, cx, cy)}"
        )
    height, width = depth.shape
    ray_x = ((np.arange(width) - cx) / fx).astype(np.float32)  # (W,)
    ray_y = ((np.arange(height) - cy) / fy).astype(np.float32)  # (H,)
    points = np.empty((height, width, 3), np.float32)
    with np.errstate(invalid="ignore"):  # infinity times 0 on the axis gives NaN, as intended
        np.multiply(depth, ray_x[None, :], out=points[..., 0])
        np.multiply(depth, ray_y[:, None], out=points[..., 1])
    points[..., 2] = depth
    return points

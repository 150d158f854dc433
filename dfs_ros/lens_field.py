"""Field of a lens: focal surface and vignetting over the image, by a calibration, with their doubt.

A lens focuses nearer or farther at a pixel than in the mean over the image, and its aperture narrows to the corners:

    blur = k (1 - vignetting R^2) / (1 - vignetting mean R^2) |focus + s - D|
    s    = curvature (R^2 - mean R^2) + tilt_x (X - mean X) + tilt_y (Y - mean Y)

with X, Y and R in half diagonals of the image from the principal point, inverse depth D, and k and focus those of the
mean over the image. All images of a stack share s: it acts on blur as -s does on D. So a stack through a curved focal
surface is one through a flat surface of a scene at D - s, exactly, and s is added to what is found. For D - s to be
positive everywhere, the flat surface is that of the nearest focus: `level_diopters` is its distance from the mean.
A softness that grows to the corners is alike in all images: it belongs to the sharp image that the cost is made with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

LEAST_OPEN = 0.05
"""Share of the aperture that a corner of the image keeps."""

DOUBTS = ("focus", "focus_gain", "focus_bend", "curvature", "tilt_x", "tilt_y", "log_aperture", "vignetting")
"""Parameters of the covariance. A focus f, the mean over the image, is off by ``focus + focus_gain f + focus_bend f^2``
on the axis; X, Y and R^2 are not less their means."""

_MOST = 100.0  # dioptres over half a diagonal


@dataclass(frozen=True)
class LensField:
    """Focal surface and vignetting, see the head of this module.

    Attributes
    ----------
    curvature, tilt_x, tilt_y
        Of the focal surface, in dioptres over half a diagonal.
    vignetting
        Share of the aperture that is lost half a diagonal off the axis.
    covariance
        (36,) lower triangle, row by row, of the covariance of DOUBTS; empty = not known.
    level_diopters
        What has been added to the focus values of a stack, see :func:`levelled`.
    """

    curvature: float = 0.0
    tilt_x: float = 0.0
    tilt_y: float = 0.0
    vignetting: float = 0.0
    covariance: tuple[float, ...] = ()
    level_diopters: float = 0.0

    def __post_init__(self) -> None:
        for name in ("curvature", "tilt_x", "tilt_y", "vignetting", "level_diopters"):
            value = getattr(self, name)
            if not (math.isfinite(value) and abs(value) <= _MOST):
                raise ValueError(f"camera.field.{name}: expected a number of at most {_MOST:g}, received {value}")
        if self.vignetting >= 1:
            raise ValueError(f"camera.field.vignetting: expected a share below 1, received {self.vignetting:g}")
        count = len(DOUBTS) * (len(DOUBTS) + 1) // 2
        if len(self.covariance) not in (0, count) or not np.isfinite(self.covariance).all():
            raise ValueError(
                f"camera.field.covariance: expected {count} finite numbers, the lower triangle of {', '.join(DOUBTS)}, "
                f"received {len(self.covariance)}"
            )
        if self.covariance and np.diag(self.covariance_matrix).min() < 0:
            raise ValueError("camera.field.covariance: expected variances of 0 or more")

    @property
    def covariance_matrix(self) -> NDArray[np.float64]:
        """Covariance (8, 8) of DOUBTS; zero if unknown."""
        matrix = np.zeros((len(DOUBTS), len(DOUBTS)))
        if self.covariance:
            rows, columns = np.tril_indices(len(DOUBTS))
            matrix[rows, columns] = matrix[columns, rows] = self.covariance
        return matrix

    def surface(self, size: tuple[int, int], cx_px: float, cy_px: float) -> Plane:
        """Inverse depth (H, W) by which a pixel's exceeds that found with a flat focal surface, in dioptres."""
        x, y = axes(size, cx_px, cy_px)
        # Column and row apart: R^2 = X^2 + Y^2, and each has its own mean.
        across = self.curvature * x * x + self.tilt_x * x
        down = self.curvature * y * y + self.tilt_y * y
        total = (across - across.mean()) + (down - down.mean())
        return np.asarray(total - self.level_diopters, np.float32)

    def openness(self, size: tuple[int, int], cx_px: float, cy_px: float) -> Plane:
        """Aperture (H, W) at each pixel over that of the mean over the image."""
        x, y = axes(size, cx_px, cy_px)
        r2 = x * x + y * y
        mean = float(np.square(x).mean() + np.square(y).mean())
        opened = np.maximum(1.0 - self.vignetting * r2, LEAST_OPEN)
        return np.asarray(opened / max(1.0 - self.vignetting * mean, LEAST_OPEN), np.float32)


def axes(size: tuple[int, int], cx_px: float, cy_px: float) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """X (1, W) and Y (H, 1) of the pixels; NaN as principal point = the centre."""
    height, width = size
    half = math.hypot(height, width) / 2
    cx, cy = ((n - 1) / 2 if math.isnan(c) else c for n, c in ((width, cx_px), (height, cy_px)))
    return (np.arange(width) - cx)[None, :] / half, (np.arange(height) - cy)[:, None] / half

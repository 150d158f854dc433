"""Lens position of the sharpest image, for calibration by targets at known distances."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.depth.parabola import vertex

_BLUR_PX = 1.0  # suppresses noise, which would count as detail
_LEAST_RISE = 1.5  # least ratio of the sharpest to the typical position


def sharpness(image: NDArray[np.uint8], share: float = 0.5) -> float:
    """Mean squared gradient over squared mean, in the middle `share` of an image.

    `image` uint8 (H, W, 3) or (H, W).
    """
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    y, x = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    middle = cv2.GaussianBlur(grey[y : height - y, x : width - x].astype(np.float32), (0, 0), _BLUR_PX)
    down, across = np.gradient(middle)
    return float((down**2 + across**2).mean() / max(float(middle.mean()), 1.0) ** 2)


def sharpest_position(positions: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Peak position of `values` (N,) over rising `positions` (N,), by a parabola.

    The parabola goes through the logarithms of the maximum and its neighbours. Raises ValueError without a clear peak,
    or with a peak at an end, beyond which the true one may be.
    """
    positions, values = np.asarray(positions, np.float64), np.asarray(values, np.float64)
    if positions.ndim != 1 or positions.shape != values.shape or len(positions) < 5:
        raise ValueError(f"positions: expected five or more with as many values, received {positions.shape}")
    best = int(values.argmax())
    if not values[best] > _LEAST_RISE * np.median(values):
        raise ValueError(
            "no lens position is clearly sharper than the others: is there fine texture in the middle of the image, "
            "still, and well lit?"
        )
    if best in (0, len(values) - 1):
        raise ValueError(
            f"the sharpest position, {positions[best]:g}, is the end of the lens's range: move the target to where the "
            "lens can focus before and behind it"
        )
    before, after = np.diff(positions[best - 1 : best + 2])
    low, mid, high = -np.log(np.maximum(values[best - 1 : best + 2], 1e-30))
    offset, _ = vertex(low, mid, high, before, after)
    return float(positions[best] + np.clip(offset, -before, after))


def spread(peaks: list[float], step: float) -> float:
    """Standard error of repeated peaks, at least that of rounding to `step`."""
    measured = float(np.std(peaks, ddof=1)) / math.sqrt(len(peaks)) if len(peaks) > 1 else 0.0
    return max(measured, step / math.sqrt(12))

"""Filters and weights of images that are compared."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.optics.srgb import linear_table

Image = NDArray[np.float32]

WINDOW_PX = 17  # of the local mean that is subtracted: exposure and vignetting
OUTLIER = 3.0  # residuals of this many times the mean count half


def light(image: NDArray[np.uint8], shape: tuple[int, int], transfer_curve: str) -> Image:
    """Linear intensity (h, w) of the grey values of an image, reduced to `shape`."""
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image, np.uint8)
    linear = linear_table(transfer_curve).astype(np.float32).take(grey)
    return np.asarray(cv2.resize(linear, shape[::-1], interpolation=cv2.INTER_AREA), np.float32)


def detail(image: Image) -> Image:
    """Image (h, w) without its local mean."""
    return np.asarray(image - cv2.blur(image, (WINDOW_PX, WINDOW_PX), borderType=cv2.BORDER_REFLECT))


def weighted(residual: Image) -> tuple[Image, float]:
    """Weights of pixels, small for outliers, and the mean squared residual."""
    typical = float(np.abs(residual).mean()) + 1e-9
    weight = 1.0 / (1.0 + np.square(residual / np.float32(OUTLIER * typical)))
    return weight, float((weight * residual) @ residual / weight.sum()) + 1e-14

"""Working size of images, and images of that size."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray


def working_size(size: tuple[int, int], max_megapixels: float) -> tuple[int, int]:
    """Size (height, width) of an image reduced to `max_megapixels`, or its own if smaller.

    Sides are rounded and at least 16 px. The function is idempotent: a reduced image is not reduced again.
    """
    height, width = size
    most_px = max_megapixels * 1e6
    factor = max(math.sqrt(most_px / (height * width)), 16 / min(size))
    # Rounding adds up to half a pixel to each side.
    if factor >= 1.0 or (height - 0.5) * (width - 0.5) <= most_px:
        return size
    return round(height * factor), round(width * factor)


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an image to (height, width) by area."""
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)

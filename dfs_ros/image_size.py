"""Working size of images, images of that size, and the check that an array is an image."""

from __future__ import annotations

import math
from typing import Any

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


def check_image(image: Any, name: str) -> None:
    """Raise TypeError or ValueError unless an image is uint8, (H, W) or (H, W, 3), of at least 16 x 16 pixels."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise TypeError(f"{name}: expected a uint8 array, received {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"{name}: expected shape (H, W) or (H, W, 3) RGB, received {image.shape}")
    if min(image.shape[:2]) < 16:
        raise ValueError(f"{name}: expected at least 16 x 16 pixels, received {image.shape[1]} x {image.shape[0]}")

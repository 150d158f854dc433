"""Pixel values and linear intensity: the sRGB curve of IEC 61966-2-1, or none."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LUMA_WEIGHTS = (0.2126, 0.7152, 0.0722)  # Rec. 709, of linear intensity


def linear_table(transfer_curve: str) -> NDArray[np.float64]:
    """Table of linear intensity in [0, 1] by pixel value, float64 (256,); ``srgb`` or ``linear``."""
    value = np.arange(256) / 255.0
    return value if transfer_curve == "linear" else np.asarray(decode_srgb(value), np.float64)


def decode_srgb(value: NDArray[np.floating]) -> NDArray[np.floating]:
    """Linear intensity of sRGB values in [0, 1]; float32 stays float32."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def pixel_value(linear: ArrayLike, transfer_curve: str) -> NDArray[np.floating]:
    """Unrounded pixel value, 0 to 255, of a linear intensity clipped to [0, 1]; the inverse of :func:`linear_table`."""
    value = np.clip(np.asarray(linear), 0.0, 1.0)  # float32 stays float32
    if transfer_curve == "srgb":
        value = np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 0.0031308) ** (1 / 2.4) - 0.055)
    return np.asarray(value * 255.0)


def encode_linear(linear: ArrayLike, transfer_curve: str) -> NDArray[np.uint8]:
    """Pixel values of linear intensities in [0, 1], rounded; values outside are clipped."""
    return np.asarray(np.rint(pixel_value(linear, transfer_curve)), np.uint8)

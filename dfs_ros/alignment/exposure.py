"""Exposure ratio of two images of a scene, and its correction."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.registration import Motion
from dfs_ros.optics.srgb import linear_table, pixel_value

_LONGEST_PX = 160
BLUR_PX = 2.0  # reduces the effect of different focus
BLACK, SATURATED = 8, 245
MIN_SHARE = 0.02  # least share of pixels for a meaningful ratio
SAME_WITHIN = 0.002  # gains this close to 1 are rounding
_CLIPPED = 250  # pixel value from which light is clipped, or nearly
_OVEREXPOSED = 0.1  # share of clipped pixels, beyond that of the stack's median image, that an image is left out for


class Exposure:
    """Image prepared for the comparison of brightness."""

    def __init__(self, image: NDArray[np.uint8], transfer_curve: str) -> None:
        size = reduced_shape(image.shape[:2])[::-1]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        channels = small.reshape(size[1], size[0], -1).shape[2]
        usable = cv2.inRange(small, (BLACK,) * channels, (SATURATED,) * channels)
        linear = cv2.transform(
            cv2.LUT(small, linear_table(transfer_curve).astype(np.float32)), np.full((1, channels), 1.0 / channels)
        )
        self.linear = cv2.GaussianBlur(linear, (0, 0), BLUR_PX)
        # Blur spreads clipped values.
        self.usable = cv2.erode(usable, np.ones((5, 5), np.uint8))


def reduced_shape(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of the images compared, of images of `size`."""
    step = max(1.0, max(size) / _LONGEST_PX)
    return max(round(size[0] / step), 1), max(round(size[1] / step), 1)


def exposure_gain(reference: Exposure, frame: Exposure, motion: Motion) -> float:
    """Gain that matches the linear intensity of `frame` to `reference`; 1 if undetermined.

    The median ratio of blurred linear intensities over pixels that are neither black nor saturated in either.
    `motion` leads from pixels of the reference to pixels of the frame.
    """
    shape = (int(reference.linear.shape[0]), int(reference.linear.shape[1]))
    map_x, map_y = motion.maps(shape)
    linear = cv2.remap(frame.linear, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    usable = cv2.remap(frame.usable, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    both = (usable > 0) & (reference.usable > 0)
    if both.mean() < MIN_SHARE:
        return 1.0
    gain = float(np.median(reference.linear[both] / linear[both]))
    return gain if abs(gain - 1.0) > SAME_WITHIN else 1.0


def exposure_gains(
    images: NDArray[np.uint8], reference: int, motions: Mapping[int, Motion], transfer_curve: str
) -> dict[int, float]:
    """Gain of every frame with a motion, see :func:`exposure_gain`."""
    own = Exposure(images[reference], transfer_curve)
    return {i: exposure_gain(own, Exposure(images[i], transfer_curve), motion) for i, motion in motions.items()}


def clipped_share(image: NDArray[np.uint8]) -> float:
    """Share of the pixels of (H, W, 3) RGB or (H, W) whose green, or grey, is clipped."""
    grey = image if image.ndim == 2 else image[..., 1]
    return float(np.count_nonzero(grey >= _CLIPPED)) / grey.size


def overexposed(images: NDArray[np.uint8]) -> list[str]:
    """For every image of a stack why its exposure is no use beside that of the others; empty for those that are."""
    clipped = np.array([clipped_share(image) for image in images])
    usual = float(np.median(clipped))
    return [
        f"it is over-exposed: {share:.0%} of its pixels are clipped, {usual:.0%} of the median image's; use one "
        "exposure for the whole stack"
        if share > usual + _OVEREXPOSED
        else ""
        for share in clipped
    ]


def gain_table(gain: float, transfer_curve: str) -> NDArray[np.float32]:
    """Lookup table of an exposure gain, float32 (256,): unrounded pixel values."""
    return pixel_value(linear_table(transfer_curve) * gain, transfer_curve).astype(np.float32)

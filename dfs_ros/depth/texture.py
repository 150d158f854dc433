"""Pixels with texture of their own, and those without it beside strong edges: phantom surfaces.

Before a textureless background, the blurred edge of an object makes the cost of its surroundings look sure. A pixel's
own texture tells: the greatest of the frames' local contrasts, high-passed so that blurred edges do not count.

The contrast's threshold and the edge's were set on training photos through two cameras: without edges beside them,
pixels of weak texture are as accurate as others.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

HIGH_PASS_SIGMA_PX = 3.0
WINDOW_PX = (7, 7)
WEAK, STRONG = 2.0, 20.0  # contrast, in units of the noise
FLATTEST = 5.0  # percentile of the contrast that is noise
# Contrast of noise, correlated over some pixels by reduction and JPEG, over its second difference's.
CORRELATED = 2.5
ROUNDING = 12**-0.5  # noise of whole levels
_SECOND_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6.0  # of unit gain for white noise


def texture_of(images: NDArray[np.uint8], reach_px: float) -> tuple[Mask, Mask]:
    """Pixels with texture of their own, and phantoms, whose depth is that of an edge beside them, bool (H, W).

    Texture: contrast over twice the noise, and over twice that of rounding to whole levels. Phantoms: contrast under
    twice the noise, and over 20 times the noise somewhere within `reach_px`, the widest blur. Noise: 5th percentile of
    the contrast, at most 2.5 times that of second differences, which texture raises less.

    `images` of an aligned stack: uint8 (F, H, W, 3) or (F, H, W).
    """
    contrast = np.zeros(images.shape[1:3], np.float32)
    flattest, differences = [], []
    for image in images:
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        grey = np.asarray(grey, np.float32)
        own = _local_rms(np.subtract(grey, cv2.GaussianBlur(grey, (0, 0), HIGH_PASS_SIGMA_PX), dtype=np.float32))
        np.maximum(contrast, own, out=contrast)
        flattest.append(np.percentile(own, FLATTEST))
        differences.append(
            np.percentile(_local_rms(np.asarray(cv2.filter2D(grey, -1, _SECOND_DIFFERENCE), np.float32)), FLATTEST)
        )
    noise = min(float(np.median(flattest)), CORRELATED * float(min(differences)))
    size = 2 * round(reach_px) + 1
    strong = cv2.dilate((contrast > STRONG * noise).astype(np.uint8), np.ones((size, size), np.uint8))
    return contrast > WEAK * max(noise, ROUNDING), np.asarray((contrast < WEAK * noise) & (strong > 0))


def _local_rms(values: Image) -> Image:
    return np.sqrt(np.maximum(cv2.boxFilter(values * values, -1, WINDOW_PX), 0.0), dtype=np.float32)

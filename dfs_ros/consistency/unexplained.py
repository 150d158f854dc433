"""Pixels whose images no hypothesis explains: something moves there, or the motion of the camera is not found.

    u = least energy - ln mean variance of the images,       both over a window of a few pixels

Blur and depth explain the images of a still scene to a small part of their variance, and noise where there is no more.
What moves within the sweep leaves most of it: u is about 0 there.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import CostConfig
from dfs_ros.consistency.findings import Finding, Findings
from dfs_ros.cost_volume.energy import COST_FLOOR
from dfs_ros.cost_volume.spectra import linear_planes
from dfs_ros.depth.scene_range import RELIABLE
from dfs_ros.types import FocalStack

Image = NDArray[np.float32]

HIGH_PASS_SIGMA_PX, WINDOW_SIGMA_PX = 3.0, 2.0
# Of training photos: 1 % of the pixels of a still scene, 19 of 20 of a patch that moves before it.
_MOST = -0.2
_MOST_SHARE = 0.5  # of the pixels that tell a depth or contradict one


def fine_variance(images: NDArray[np.uint8], transfer_curve: str, channels: int) -> Image:
    """Variance (H, W) of the fine detail of images (F, H, W[, 3]), mean over the images, sum over `channels` 1 or 3."""
    variance = np.zeros(images.shape[1:3], np.float32)
    for image in images:
        for plane in linear_planes(image, transfer_curve, channels):
            fine = plane - cv2.GaussianBlur(plane, (0, 0), HIGH_PASS_SIGMA_PX)
            variance += cv2.GaussianBlur(fine * fine, (0, 0), WINDOW_SIGMA_PX)
    return variance / np.float32(len(images))


def unexplained(
    least: Image,
    stack: FocalStack,
    cost: CostConfig,
    variance_of: Callable[[NDArray[np.uint8], str, int], Image] = fine_variance,
) -> NDArray[np.bool_]:
    """Pixels (H, W) that no hypothesis explains.

    `least`: least energy of a hypothesis (H, W) of an aligned stack; `variance_of`: :func:`fine_variance`, or that of
    another device. Other costs than `residual` do not tell: none.
    """
    cost = cost.resolved()
    if cost.method != "residual":
        return np.zeros(stack.size, np.bool_)
    channels = 3 if cost.channels == "rgb" and stack.images.ndim == 4 else 1
    variance = variance_of(stack.images, cost.transfer_curve, channels)
    return np.asarray(least - np.log(variance + np.float32(COST_FLOOR)) > _MOST)


def motion_finding(moving: NDArray[np.bool_], confidence: Image) -> Findings:
    """The finding that most of the images do not fit each other at their places.

    `moving`: pixels (H, W) with texture that no hypothesis explains: noise alone is not explained either; `confidence`
    (H, W).
    """
    telling = moving | (confidence > RELIABLE)
    share = float(moving.sum()) / max(int(telling.sum()), 1)
    if share <= _MOST_SHARE:
        return ()
    text = (
        f"no motion found explains the images at {share:.0%} of the pixels with texture, expected {_MOST_SHARE:.0%} at "
        "most: move the camera more slowly, or provide its poses (motion.source)"
    )
    return (Finding("motion", text),)

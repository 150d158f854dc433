"""Pixels whose images no hypothesis explains: something moves there, or the motion of the camera is not found.

    u = least energy - ln mean variance of the images,       both over a window of a few pixels

Blur and depth explain the images of a still scene to a small part of their variance, and noise where there is no more.
What moves within the sweep leaves most of it: u is about 0 there.
"""

from __future__ import annotations

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

_HIGH_PASS_SIGMA_PX, _WINDOW_SIGMA_PX = 3.0, 2.0
# Of training photos: 1 % of the pixels of a still scene, 19 of 20 of a patch that moves before it.
_MOST = -0.2
_MOST_SHARE = 0.5  # of the pixels that tell a depth or contradict one


def unexplained(least: Image, stack: FocalStack, cost: CostConfig) -> NDArray[np.bool_]:
    """Pixels (H, W) that no hypothesis explains.

    `least`: least energy of a hypothesis (H, W) of an aligned stack. Other costs than `residual` do not tell: none.
    """
    cost = cost.resolved()
    if cost.method != "residual":
        return np.zeros(stack.size, np.bool_)
    variance = np.zeros(stack.size, np.float32)
    for image in stack.images:
        for plane in linear_planes(image, cost.transfer_curve, 3 if cost.channels == "rgb" and image.ndim == 3 else 1):
            fine = plane - cv2.GaussianBlur(plane, (0, 0), _HIGH_PASS_SIGMA_PX)
            variance += cv2.GaussianBlur(fine * fine, (0, 0), _WINDOW_SIGMA_PX)
    variance /= len(stack)
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

"""What is worked on: the stack at a size that suffices, its lens as wide as it really is, and the depths to try."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.optics.thin_lens import thin_lens
from dfs_ros.config import NEAREST_DEPTH_M, HypothesesConfig
from dfs_ros.types import FocalStack


def reduced(stack: FocalStack, max_megapixels: float) -> FocalStack:
    """The stack with its images reduced to at most that size, by area; the same stack where they are not larger."""
    height, width = stack.size
    factor = float(np.sqrt(max_megapixels * 1e6 / (height * width)))
    if factor >= 1.0:
        return stack
    size = (max(16, round(width * factor)), max(16, round(height * factor)))
    images = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in stack.images])
    return dataclasses.replace(stack, images=images, camera=stack.camera.scaled(size[0] / width))


def opened(stack: FocalStack, aperture_scale: float) -> FocalStack:
    """The stack as of a lens whose blur is `aperture_scale` times as wide."""
    if aperture_scale == 1.0:
        return stack
    camera = dataclasses.replace(stack.camera, f_number=stack.camera.f_number / aperture_scale)
    return dataclasses.replace(stack, camera=camera)


def hypotheses_for(stack: FocalStack, config: HypothesesConfig) -> NDArray[np.float64]:
    """Depth hypotheses in metres, near to far; a near end that the configuration leaves open comes from the focus."""
    nearest = config.min_depth_m or min(NEAREST_DEPTH_M, 1.0 / (1.2 * float(stack.focus_diopters.max())))
    return thin_lens.depth_hypotheses(nearest, config.max_depth_m, config.count, config.spacing)

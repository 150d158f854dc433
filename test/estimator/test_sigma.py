"""Sigma of the pixels: what was done to the images counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfs_ros.alignment.align import AlignedStack, aligned_as_is
from dfs_ros.alignment.matching import FrameAlignment
from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.alignment.registration import Motion
from dfs_ros.depth.readout import AS_TAKEN, FOLLOWED, REGISTERED
from dfs_ros.estimator.host import HostSteps
from dfs_ros.types import Camera, FocalStack

SIZE = (24, 32)
IMAGES, FOCUS, CAMERA = np.zeros((2, *SIZE), np.uint8), np.array([1.0, 0.5]), Camera(0.008, 1.4, 6e-6)


def with_shift(shift_px: float) -> AlignedStack:
    motion = Motion.from_parameters(SIZE, (shift_px / 16.0, 0.0), 0.0, 0.0, 0.0)
    estimates = (FrameAlignment(Motion.identity(SIZE), 1.0), FrameAlignment(motion, 1.0))
    return replace(aligned_as_is(FocalStack(IMAGES, FOCUS, CAMERA)), estimates=estimates)


def with_scale(shift_px: float, told: float | None = 1.05) -> AlignedStack:
    """Images whose scale grows by 5 % about a principal point 4 px beside the centre, and which are shifted besides."""
    centre = (4.0 * (1.0 - 1.05) + shift_px) / 16.0
    motion = Motion.from_parameters(SIZE, (centre, 0.0), float(np.log(1.05)), 0.0, 0.0)
    estimates = (FrameAlignment(Motion.identity(SIZE), 1.0), FrameAlignment(motion, 1.05))
    aligned = aligned_as_is(FocalStack(IMAGES, FOCUS, replace(CAMERA, cx_px=15.5 + 4.0, cy_px=11.5)))
    return replace(aligned, estimates=estimates, told_scales=None if told is None else np.array([1.0, told]))


def followed() -> AlignedStack:
    stack = MovingStack(IMAGES, FOCUS, CAMERA, views=(View(np.zeros(3)), View(np.array([0.01, 0.0, 0.0]))))
    return replace(with_shift(3.0), stack=stack)


@pytest.mark.parametrize(
    ("aligned", "linear"),
    [
        (aligned_as_is(FocalStack(IMAGES, FOCUS, CAMERA)), AS_TAKEN),
        (with_shift(0.05), AS_TAKEN),  # too little to be resampled
        (with_shift(0.5), REGISTERED),
        (with_scale(0.0), AS_TAKEN),  # as the calibration says
        (with_scale(0.05), AS_TAKEN),
        (with_scale(0.3), REGISTERED),
        (with_scale(0.0, told=1.03), REGISTERED),
        (with_scale(0.0, told=None), REGISTERED),
        (followed(), FOLLOWED),
    ],
)
def test_spread_counts_by_what_was_done_to_the_images(aligned: AlignedStack, linear: float) -> None:
    spread = np.full(SIZE, 1e-5, np.float32)
    sigma = HostSteps(None, 1).sigma(spread, np.zeros(SIZE, np.float32), aligned)
    np.testing.assert_allclose(sigma, 2.0 * linear * 1e-5, rtol=1e-3)  # of two images: twice the noise of five

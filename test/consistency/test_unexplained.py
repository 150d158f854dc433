"""Pixels whose images no hypothesis explains, and sweeps that hold nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from consistency_rig import findings_of, honest_stack
from numpy.typing import NDArray

from dfs_ros.config import Config, CostConfig
from dfs_ros.consistency import unexplained_torch
from dfs_ros.consistency.unexplained import fine_variance, motion_finding, unexplained
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.types import DepthResult, FocalStack

CONFIG = Config.from_dict({"network": {"name": "none"}, "processing": {"threads": 1}, "lens": {"aperture_scale": 1.08}})


def with_hand(stack: FocalStack, size_px: tuple[int, int] = (40, 40), step_px: int = 9) -> FocalStack:
    """The stack with a textured patch that moves to the right and covers (30, 30) onwards in the middle image."""
    rng = np.random.default_rng(2)
    patch = np.kron(rng.integers(40, 220, (size_px[0] // 2, size_px[1] // 2, 3)), np.ones((2, 2, 1)))
    images = stack.images.copy()
    for i, image in enumerate(images):
        left = 60 + step_px * (i - 2)
        image[30 : 30 + size_px[0], left : left + size_px[1]] = patch[:, : image.shape[1] - left]
    return dataclasses.replace(stack, images=images)


def estimated(stack: FocalStack) -> DepthResult:
    return DepthEstimator(CONFIG).estimate(stack, sharpen=False)


def known(result: DepthResult) -> NDArray[np.bool_]:
    return np.isfinite(result.depth_m)


def test_a_hand_has_no_depth_and_the_rest_keeps_its_own() -> None:
    still, moved = estimated(honest_stack()), estimated(with_hand(honest_stack()))
    assert known(moved)[36:64, 66:94].mean() < 0.02
    away = np.ones(known(still).shape, np.bool_)
    away[15:85, 25:135] = False
    assert known(moved)[away].mean() > 0.85 * known(still)[away].mean() > 0.3
    both = away & known(still) & known(moved)
    assert np.median(np.abs(moved.depth_m / still.depth_m - 1.0)[both]) < 0.02
    assert not [text for text in moved.report["warnings"] if "focus" in text or "motion" in text]


def test_tiles_that_something_moves_through_are_no_evidence_on_the_focus() -> None:
    assert findings_of(with_hand(honest_stack())) == ()


def test_variance_that_is_left_is_unexplained() -> None:
    rng = np.random.default_rng(0)
    images = np.clip(128 + 30 * rng.standard_normal((3, 48, 64)), 0, 255).astype(np.uint8)
    stack = dataclasses.replace(
        honest_stack(), images=images, focus_diopters=np.arange(1.0, 4.0), stamp_ns=np.arange(3),
        magnification=np.ones(3), blur_scale=np.ones(3), focus_sigma_diopters=np.zeros(3),
    )  # fmt: skip
    light = np.square((images / 255.0 + 0.055) / 1.055) * 0.9
    variance = float(np.mean([plane.var() for plane in light]))
    for share, expected in ((1.5, True), (0.1, False)):
        least = np.full((48, 64), np.log(share * variance), np.float32)
        assert unexplained(least, stack, CostConfig()).mean() == expected
    assert not unexplained(least + 9.0, stack, CostConfig(method="paper")).any()


@pytest.mark.parametrize(("shape", "channels"), [((3, 40, 52, 3), 3), ((3, 40, 52, 3), 1), ((3, 39, 53), 1)])
def test_the_variance_of_a_device_is_that_of_opencv(shape: tuple[int, ...], channels: int) -> None:
    images = np.random.default_rng(4).integers(0, 256, shape, np.uint8)
    images[:, :20] //= 3
    found = unexplained_torch.fine_variance(torch.from_numpy(images), "srgb", channels).numpy()
    np.testing.assert_allclose(found, fine_variance(images, "srgb", channels), rtol=1e-4)


def test_a_sweep_that_is_mostly_unexplained_is_a_contradiction() -> None:
    moving, confidence = np.zeros((10, 10), np.bool_), np.zeros((10, 10), np.float32)
    moving[:4], confidence[4:8] = True, 0.9
    assert motion_finding(moving, confidence) == () == motion_finding(0 * moving, 0 * confidence)
    (found,) = motion_finding(moving, np.where(np.arange(10)[:, None] < 7, confidence, 0.0))
    assert found.cause == "motion" and found.contradiction and "at 57% of the pixels" in found.text

"""Cost volume of a camera that moves within the sweep: by phase as by warps, and the depth in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from moving_rig import REFERENCE, SIZE, moving_stack, truth_m

from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.types import FocalStack

DEPTHS_M = 1.0 / np.linspace(2.2, 0.4, 13)
INNER = np.s_[12:-12, 24:-24]
AWAY_FROM_THE_EDGE = np.abs(np.arange(SIZE[0]) - SIZE[0] / 2) > 8


def followed(stack: FocalStack, forward_m: float = 0.0) -> MovingStack:
    views = []
    for i, pose in enumerate(stack.poses):
        assert pose is not None
        views.append(View(np.array(pose.translation_m) + np.array([0.0, 0.0, forward_m * (i - REFERENCE)])))
    return MovingStack(
        stack.images, stack.focus_diopters, stack.camera, stack.stamp_ns,
        source=stack.images, gains=np.ones(len(stack)), views=tuple(views), reference=REFERENCE,
    )  # fmt: skip


def depth_error(stack: FocalStack) -> float:
    """Median relative error of the depth of least cost."""
    volume = cost_volume_from_config(stack, DEPTHS_M, CostConfig(window_sigma_px=3.0), threads=1)
    found = DEPTHS_M[volume.argmin(axis=0)]
    error = np.abs(found / truth_m() - 1.0)[AWAY_FROM_THE_EDGE]
    return float(np.mean(error))


def test_parallax_counts_as_depth() -> None:
    moving, still = moving_stack(0.2), moving_stack(0.0)
    alone = depth_error(still)
    assert alone < 0.1
    assert depth_error(followed(moving)) < 1.1 * alone
    assert depth_error(moving) > 3 * alone


@pytest.mark.parametrize("forward_m", [0.0, 0.004])
def test_shifted_spectra_are_resampled_images(forward_m: float) -> None:
    stack = followed(moving_stack(0.2), forward_m)
    by_phase = cost_volume_from_config(stack, DEPTHS_M, CostConfig(), threads=1)
    by_warps = cost_volume_from_config(stack, DEPTHS_M, CostConfig(), backend="reference")
    ratio = np.log(by_phase / by_warps)[(slice(None), *INNER)]
    assert abs(np.median(ratio)) < 0.01
    assert np.mean(np.abs(ratio) < 0.2) > 0.9
    steps_apart = np.abs(by_phase.argmin(axis=0) - by_warps.argmin(axis=0))[INNER]
    assert np.mean(steps_apart <= 1) > 0.95


def test_a_frame_counts_where_it_sees_a_pixel_only() -> None:
    stack = followed(moving_stack(0.2))
    linear = stack.linear("srgb", 1)
    seen, inside = stack.seen(linear, 1.0)
    shift_px = round(300.0 * float(stack.positions_m[4, 0]))  # at one dioptre
    assert shift_px == 4
    assert not inside[4, :, :shift_px].any() and inside[4, :, shift_px:].all()
    assert inside[REFERENCE].all()
    np.testing.assert_array_equal(seen[4, 0, :, : shift_px - 1], seen[REFERENCE, 0, :, : shift_px - 1])
    # What no other frame sees tells nothing: the same cost at every depth but for the noise it would leave.
    away = replace(stack, views=tuple(View(v.position_m * 40.0) for v in stack.views))
    volume = cost_volume_from_config(away, DEPTHS_M, CostConfig(), threads=1)
    assert np.isfinite(volume).all()


def test_blur_goes_by_the_depth_that_each_frame_sees() -> None:
    stack = followed(moving_stack(0.0), forward_m=0.05)
    diopters, nearer = stack.seen_diopters(np.array([[1.0]]))
    np.testing.assert_allclose(1.0 / diopters, [[1.1, 1.05, 1.0, 0.95, 0.9]])
    np.testing.assert_allclose(nearer, [[1.1, 1.05, 1.0, 0.95, 0.9]])


def test_other_costs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cost.method: expected residual .* received released"):
        cost_volume_from_config(followed(moving_stack()), DEPTHS_M, CostConfig("released"))

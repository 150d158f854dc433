"""Range of the scene in the estimator: planes anywhere, and a live camera whose scene moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera, DepthResult, FocalStack

CAMERA = Camera(0.008, 1.4, 6e-6)  # 7.7 px of blur a dioptre
FOCUS = (2.2, 1.7, 1.3, 0.9, 0.5)


def stack_of(depth_m: float, focus: tuple[float, ...] = FOCUS) -> FocalStack:
    scene = plane_scene(depth_m, 128, 96, seed=3)
    return render_stack(scene.rgb, scene.depth_m, CAMERA, focus, rng=1)


def estimator_of(one_camera: bool = False, **hypotheses: Any) -> DepthEstimator:
    config = {
        "network": {"name": "none"},
        "alignment": {"mode": "off"},
        "confidence": {"on_contradiction": "warn"},
        "processing": {"threads": 1},
        "hypotheses": hypotheses,
    }
    return DepthEstimator(Config.from_dict(config), one_camera=one_camera)


def range_of(result: DepthResult) -> tuple[float, float]:
    return result.report["hypotheses_m"]["min"], result.report["hypotheses_m"]["max"]


@settings(max_examples=2)
@given(diopters=st.floats(1 / 20, 10.0))
@example(diopters=1 / 15)
@example(diopters=1 / 0.12)
@example(diopters=1 / 0.2)
@example(diopters=1 / 0.25)
def test_a_plane_anywhere_has_its_depth_or_none(diopters: float) -> None:
    depth_m = 1.0 / diopters
    result = estimator_of().estimate(stack_of(depth_m), sharpen=False)
    known = np.isfinite(result.depth_m)
    error = np.abs(result.depth_m - depth_m)
    # In dioptres, in which errors are symmetric: at 15 m two standard deviations are twice as long on the far side.
    sigmas = np.abs(1.0 / result.depth_m - diopters) / (result.sigma_m / result.depth_m**2)
    wrong = known & (sigmas > 3.0) & (error > 0.1 * depth_m)
    assert wrong.mean() < 0.05 or result.report["warnings"]
    if 0.5 <= diopters <= 2.2:
        assert known.mean() > 0.95


@pytest.mark.parametrize("depth_m", [0.8, 1.5, 2.0])
def test_two_images_have_as_many_hypotheses_as_their_sharp_costs_need(depth_m: float) -> None:
    result = estimator_of().estimate(stack_of(depth_m, (1.3, 0.5)), sharpen=False)
    assert result.report["hypotheses"] == 61
    assert np.median(result.dense_depth_m) == pytest.approx(depth_m, rel=0.03)


def test_a_live_camera_keeps_the_range_until_the_scene_leaves_it() -> None:
    estimator = estimator_of(one_camera=True)
    first, again, far, back = (estimator.estimate(stack_of(depth_m), sharpen=False) for depth_m in (0.5, 0.5, 3.0, 0.5))
    assert range_of(again) == range_of(first) and "range" not in again.report["seconds"]
    assert range_of(first)[1] < 3.0 < range_of(far)[1] and "range" in far.report["seconds"]
    for result, depth_m in ((first, 0.5), (again, 0.5), (far, 3.0), (back, 0.5)):
        assert result.coverage > 0.9
        assert abs(np.nanmedian(result.depth_m) / depth_m - 1.0) < 0.05


def test_an_object_that_comes_into_view_is_noticed_at_once() -> None:
    estimator = estimator_of(one_camera=True)
    wall, object_ = stack_of(2.0), stack_of(0.5)
    before = estimator.estimate(wall, sharpen=False)
    images = wall.images.copy()
    images[:, 30:66, 40:76] = object_.images[:, 30:66, 40:76]  # a tenth of the image
    entered = estimator.estimate(replace(wall, images=images), sharpen=False)
    assert range_of(before)[0] > 0.6 > 0.5 > range_of(entered)[0]
    assert np.nanmedian(entered.depth_m[36:60, 46:70]) == pytest.approx(0.5, rel=0.05)
    assert np.nanmedian(entered.depth_m[:, 90:]) == pytest.approx(2.0, rel=0.05)


def test_separate_stacks_have_ranges_of_their_own() -> None:
    estimator = estimator_of()
    found = [range_of(estimator.estimate(stack_of(depth_m), sharpen=False)) for depth_m in (0.5, 2.0, 0.5)]
    assert found[0] == found[2] != found[1]


def test_depth_outside_the_limits_is_none() -> None:
    result = estimator_of(min_depth_m=0.8, max_depth_m=4.0).estimate(stack_of(0.5), sharpen=False)
    assert result.coverage < 0.02
    assert any("their blur fits 0.8 m best" in warning for warning in result.report["warnings"])


def test_a_stack_that_lacks_an_image_has_as_many_hypotheses_as_its_depth_needs() -> None:
    """Four images with a gap: 31 hypotheses tell what 61 do, 16 would be off by 1 to 2 %."""
    camera, depths_m = Camera(0.035, 2.8, 3.65e-5), (0.8, 1.1, 1.5, 2.0)
    depth = np.repeat(depths_m, 48) * np.ones((96, 1))
    stack = render_stack(plane_scene(1.0, 192, 96, seed=4).rgb, depth, camera, (1.3, 1.05, 0.65, 0.5), rng=1)
    config = Config.from_dict(
        {"network": {"name": "none"}, "lens": {"aperture": "given"}, "alignment": {"mode": "off"}}
    )
    fewer, all_of_them = (
        DepthEstimator(config.updated({"hypotheses": {"interpolate_to": most}})).estimate(stack, sharpen=False)
        for most in (61, 0)
    )
    assert (fewer.report["hypotheses"], all_of_them.report["hypotheses"]) == (31, 61)
    for middle in (24, 72, 120, 168):
        ratio = (fewer.depth_m / all_of_them.depth_m)[:, middle - 12 : middle + 12]
        assert np.nanmedian(ratio) == pytest.approx(1.0, abs=0.005)

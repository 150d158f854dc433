"""Depths outside the range of focus."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dfs_ros.config import Config
from dfs_ros.depth.extrapolation import beyond_px, doubtful, extrapolation_sigma, gain, unchanged_energy, veiled
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera, FocalStack

NEAR_SWEEP = Camera(0.008, 1.4, 6e-6), (2.2, 1.7, 1.3, 0.9, 0.5)
FAR_SWEEP = Camera(0.015, 2.8, 5.6e-6), (0.5, 0.25, 0.125)
CONFIG = Config.from_dict({"network": {"name": "none"}, "processing": {"threads": 1}})


def stack_of(values: list[int], size: tuple[int, int] = (40, 60)) -> FocalStack:
    """Even images of these grey values."""
    images = np.stack([np.full(size, value, np.uint8) for value in values])
    return FocalStack(images, np.array(NEAR_SWEEP[1][: len(values)]), NEAR_SWEEP[0])


def test_blur_beyond_the_range_of_focus_has_a_sign() -> None:
    camera = NEAR_SWEEP[0]
    stack = stack_of([90] * 5)
    at = np.array([[3.2, 2.2, 1.0, 0.5, 0.1]], np.float32)
    near, far = (camera.focal_length_m**2 / 1.4 / 6e-6 / (1 - 0.008 * d) for d in (2.2, 0.5))
    np.testing.assert_allclose(beyond_px(at, stack), [[near, 0, 0, 0, -0.4 * far]], rtol=1e-5)


def test_energy_of_unchanging_images_is_the_variance_of_their_light() -> None:
    config = CONFIG.updated({"cost": {"transfer_curve": "linear", "eps": 1e-6}})
    energy = unchanged_energy(stack_of([51, 102, 153]), config)
    np.testing.assert_allclose(energy, np.log(0.04), rtol=1e-3)  # 0.2, 0.4, 0.6
    assert unchanged_energy(stack_of([51, 51, 51]), config).max() < np.log(1e-6)


def test_what_a_near_edge_veils_is_left_out_and_a_slope_is_not() -> None:
    """Blurred by 20 px in the nearest image, 27 px in the farthest: half of that, and 7 px of windows."""
    stack = stack_of([90] * 3)  # 2.2 to 1.3 dioptres: 7 px
    blur = np.zeros(stack.size, np.float32)
    blur[:, :20] = 20.0
    found = veiled(blur, stack, CONFIG)
    assert not found[:, :20].any() and found[:, 20:34].all() and not found[:, 41:].any()
    slope = np.broadcast_to(np.linspace(10.0, 0.0, 60, dtype=np.float32), stack.size)
    assert not veiled(slope, stack, CONFIG).any()
    assert not veiled(0.1 * blur, stack, CONFIG).any() and not veiled(-blur, stack, CONFIG).any()


def test_depth_far_outside_the_focus_needs_evidence_and_a_scene_around_it() -> None:
    stack = stack_of([51, 102, 153])
    sure = np.ones(stack.size, np.float32)
    unchanged = unchanged_energy(stack, CONFIG)

    def left_out(depth_diopters: float, misfit: float, config: Config = CONFIG) -> NDArray[np.bool_]:
        diopters = np.full(stack.size, depth_diopters, np.float32)
        beyond = beyond_px(diopters, stack)
        found = gain(beyond, unchanged + np.float32(misfit), sure, stack, config)
        return doubtful(diopters, beyond, found, sure, stack)

    assert not left_out(2.4, 0.0).any()  # 1.5 px nearer than 2.2 dioptres
    assert left_out(2.8, -0.4).all()  # 4.6 px
    kept = ~left_out(2.8, -0.6)  # 11.6 px of blur in the image at 1.3 dioptres
    assert kept[6:-6, 6:-6].all() and not kept[:6].any() and not kept[:, -6:].any()
    assert left_out(1.2, -0.05).all() and not left_out(1.2, -0.2).any()  # 0.8 px beyond 1.3
    assert not left_out(1.2, 0.0, CONFIG.updated({"cost": {"method": "paper"}})).any()


def test_depth_is_left_out_where_unchanging_images_explain_more_or_two_sweeps_before_the_nearest_focus() -> None:
    stack = stack_of([51, 102, 153], (100, 100))  # 2.2 to 1.3 dioptres, 6.9 px of blur apart
    sure = np.ones(stack.size, np.float32)
    unchanged = unchanged_energy(stack, CONFIG)
    diopters = np.full(stack.size, 1.7, np.float32)
    diopters[40:60, 40:50], diopters[40:60, 50:60] = 3.9, 4.1  # 1.9 and 2.1 sweeps before the nearest
    beyond = beyond_px(diopters, stack)
    for misfit, expected in ((0.01, False), (0.03, True)):
        left_out = doubtful(diopters, beyond, np.full_like(diopters, -misfit), sure, stack)
        assert left_out[diopters == np.float32(1.7)].all() == expected
    left_out = doubtful(diopters, beyond, gain(beyond, unchanged - 0.9, sure, stack, CONFIG), sure, stack)
    assert not left_out[:, :50].any() and left_out[40:60, 50:60].all()


def test_uncertainty_of_the_pupil_grows_outside_the_range_of_focus() -> None:
    sigma = extrapolation_sigma(np.array([[4.2, 2.2, 1.0, 0.5, 0.1]], np.float32), stack_of([90] * 5))
    np.testing.assert_allclose(sigma, [[0.1, 0, 0, 0, 0.02]], atol=1e-6)


@pytest.mark.parametrize(
    ("depth_m", "coverage", "error"),
    [(0.22, (0.4, 0.8), 0.04), (0.3, (0.6, 0.9), 0.02)],
)
def test_planes_nearer_than_the_sweep_are_told_and_right_or_without_depth(
    depth_m: float, coverage: tuple[float, float], error: float
) -> None:
    """Blurred by 18 and 9 px in the sharpest image; the widest blur that 160 x 120 px can tell is 20 px."""
    camera, focus = NEAR_SWEEP
    scene = plane_scene(depth_m, 160, 120, seed=3)
    result = DepthEstimator(CONFIG).estimate(
        render_stack(scene.rgb, scene.depth_m, camera, focus, rng=1), sharpen=False
    )
    assert coverage[0] <= result.coverage <= coverage[1]
    assert "too_near" in [finding["cause"] for finding in result.report["findings"]]
    assert np.nanmedian(result.depth_m) == pytest.approx(depth_m, rel=error)
    wrong = np.abs(result.depth_m - depth_m) > np.maximum(0.1 * depth_m, 3.0 * result.sigma_m)
    assert wrong.mean() < 0.01


def test_a_plane_beyond_the_sweep_is_told_where_its_blur_is_wide() -> None:
    for (camera, focus), causes in ((NEAR_SWEEP, ["too_far"]), (FAR_SWEEP, [])):  # 3.3 and 0.8 px
        scene = plane_scene(15.0, 160, 120, seed=3)
        stack = render_stack(scene.rgb, scene.depth_m, camera, focus, rng=1)
        result = DepthEstimator(CONFIG).estimate(stack, sharpen=False)
        assert [finding["cause"] for finding in result.report["findings"]] == causes
    wrong = np.abs(result.depth_m - 15.0) > np.maximum(1.5, 3.0 * result.sigma_m)
    assert wrong.mean() < 0.01 and result.coverage > 0.95

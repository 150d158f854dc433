"""Costs between hypotheses: exact where a spline is, bounded where it swings, and better depth of few hypotheses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from dfs_ros.config import Config
from dfs_ros.cost_volume.hypotheses import (
    Subdivision,
    depth_hypotheses,
    fine_count,
    subdivided,
    subdivided_tensor,
    subdivision,
    subdivision_for,
)
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera


@pytest.mark.parametrize("count", [2, 3, 4, 5, 16, 61])
def test_between_hypotheses_lies_a_cubic_spline(count: int) -> None:
    depths = 1.0 / np.sort(np.random.default_rng(count).uniform(0.2, 5.0, count))
    found = made(depths, 100)
    expected = CubicSpline(1.0 / depths, np.eye(count))(1.0 / found.depths_m)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def made(depths_m: np.ndarray, least: int) -> Subdivision:
    found = subdivision(depths_m, least)
    assert found is not None
    return found


@given(
    count=st.integers(2, 70),
    least=st.integers(0, 200),
    near_m=st.floats(0.05, 5.0),
    ratio=st.floats(1.1, 100.0),
    spacing=st.sampled_from(["inverse", "linear"]),
    descending=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_hypotheses_stay_and_others_come_between(count, least, near_m, ratio, spacing, descending):
    depths = depth_hypotheses(near_m, near_m * ratio, count, spacing)
    depths = depths[::-1].copy() if descending else depths
    found = subdivision(depths, least)
    if count >= least:
        assert found is None and fine_count(count, least) == count
        return
    assert found is not None
    assert len(found.depths_m) == fine_count(count, least) == len(found.weights) >= least
    # One part less would have been too few.
    assert (count - 1) * (found.parts - 1) + 1 < least
    np.testing.assert_allclose(found.depths_m[:: found.parts], depths, rtol=1e-12)
    assert (np.diff(found.depths_m) * np.sign(depths[1] - depths[0]) > 0).all()
    cost = np.random.default_rng(count).random((count, 2, 3), np.float32)
    fine = subdivided(cost, found)
    assert fine.dtype == np.float32
    np.testing.assert_allclose(fine[:: found.parts], cost, rtol=1e-6)
    lesser = np.minimum(cost[:-1], cost[1:]).repeat(found.parts, axis=0)
    assert (fine[:-1] >= 0.25 * lesser - 1e-6).all()


@pytest.mark.parametrize("spacing", ["inverse", "linear"])
def test_a_cost_that_is_a_cubic_of_inverse_depth_is_found_exactly(spacing):
    depths = depth_hypotheses(0.4, 4.0, 9, spacing)

    def cost(at_m: np.ndarray) -> np.ndarray:
        x = 1.0 / at_m
        return np.stack([2.0 + (x - 1.3) ** 2, 1.0 + 0.2 * x + 0.1 * (x - 1.0) ** 3], axis=1)[:, :, None]

    found = made(depths, 60)
    np.testing.assert_allclose(
        subdivided(cost(depths).astype(np.float32), found), cost(found.depths_m).astype(np.float32), rtol=2e-6
    )


def test_where_the_spline_would_fall_below_zero_a_quarter_of_the_lesser_neighbour_is_kept():
    depths = depth_hypotheses(0.4, 4.0, 6)
    cost = np.array([1.0, 1.0, 1.0, 0.01, 0.01, 1.0], np.float32).reshape(6, 1, 1)
    found = made(depths, 11)
    fine = subdivided(cost, found)
    assert (found.weights @ cost.reshape(6))[7] < 0.0
    assert fine[7, 0, 0] == np.float32(0.0025)


@pytest.mark.parametrize("count", [2, 3, 24])
def test_tensors_and_arrays_agree(count):
    cost = np.random.default_rng(0).random((count, 5, 7), np.float32)
    found = made(depth_hypotheses(0.3, 5.0, count), 60)
    tensor = subdivided_tensor(torch.from_numpy(cost), torch.from_numpy(found.weights), found.parts)
    np.testing.assert_allclose(tensor.numpy(), subdivided(cost, found), rtol=1e-6, atol=1e-7)


def test_only_residual_costs_are_interpolated():
    depths = depth_hypotheses(0.3, 5.0, 20)
    assert subdivision_for(Config(), depths) is not None
    assert subdivision_for(Config.from_dict({"cost": {"method": "released"}}), depths) is None
    assert subdivision_for(Config.from_dict({"hypotheses": {"interpolate_to": 0}}), depths) is None


def test_a_plane_between_two_of_a_few_hypotheses_is_found_more_exactly():
    # 15 steps of .2 dioptres, each 2.9 px of blur.
    depths = depth_hypotheses(1.0 / 3.2, 5.0, 16)
    true_m = float(2.0 / (1.0 / depths[9] + 1.0 / depths[10]))
    camera = Camera(0.015, 2.8, 5.6e-6)
    scene = plane_scene(true_m, 96, 72, seed=2)
    stack = render_stack(scene.rgb, scene.depth_m, camera, (2.2, 1.6, 1.1, 0.6), rng=1)

    def error_of(interpolate_to: int) -> float:
        hypotheses = {"count": 16, "min_depth_m": 1.0 / 3.2, "max_depth_m": 5.0, "interpolate_to": interpolate_to}
        config = {"network": {"name": "none"}, "hypotheses": hypotheses, "lens": {"aperture": "given"}}
        settings = {**config, "alignment": {"mode": "off"}, "confidence": {"dense": True}}
        result = DepthEstimator(Config.from_dict(settings)).estimate(stack, sharpen=False)
        return float(np.mean(np.abs(result.depth_m / true_m - 1.0)))

    assert error_of(60) < 0.5 * error_of(0)
    assert error_of(60) < 0.015

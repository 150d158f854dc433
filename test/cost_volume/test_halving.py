"""Planes at half size and back: arrays and tensors alike, at even and odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cost_volume_rig import random_stack

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.cost_volume.halving import (
    enlarged,
    enlarged_along,
    enlarged_tensor,
    enlarged_tensor_along,
    half_size,
    halved,
    halved_tensor,
)

SIZES = [(20, 30), (21, 30), (20, 31), (33, 47), (2, 3), (1, 2)]


def plane(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(size, np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_half_size_is_the_mean_of_four_pixels(size: tuple[int, int]) -> None:
    full = plane(size)
    repeated = np.pad(full, ((0, size[0] % 2), (0, size[1] % 2)), "edge")
    expected = (repeated[::2, ::2] + repeated[1::2, ::2] + repeated[::2, 1::2] + repeated[1::2, 1::2]) / 4
    assert expected.shape == half_size(size)
    np.testing.assert_allclose(halved(full), expected, atol=1e-6)
    np.testing.assert_allclose(halved_tensor(torch.from_numpy(full)[None])[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_tensors_are_enlarged_as_arrays(size: tuple[int, int]) -> None:
    guide, half = plane(size), plane(half_size(size), 1)
    tensors = torch.from_numpy(half), torch.from_numpy(guide)
    for found, expected in (
        (enlarged_tensor(tensors[0], size), enlarged(half, size)),
        (enlarged_tensor_along(*tensors), enlarged_along(half, guide)),
    ):
        assert expected.shape == size and expected.dtype == np.float32
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_a_slope_stays_and_a_jump_follows_the_guide() -> None:
    slope = np.add.outer(np.arange(12.0), 2.0 * np.arange(16.0)).astype(np.float32)
    inside = slice(2, -2)
    for found in (enlarged(halved(slope), slope.shape), enlarged_along(halved(slope), np.zeros_like(slope))):
        np.testing.assert_allclose(found[inside, inside], slope[inside, inside], atol=1e-5)
    # An edge between pixels of half size: linear smears it over four pixels, the guide holds it to one.
    guide = np.where(np.arange(16) < 8, 0.2, 0.8).astype(np.float32) * np.ones((12, 1), np.float32)
    depth = np.where(guide < 0.5, 1.0, 3.0).astype(np.float32)
    np.testing.assert_allclose(enlarged_along(halved(depth), guide), depth, atol=1e-4)
    assert np.abs(enlarged(halved(depth), depth.shape) - depth).max() == pytest.approx(0.5)


@pytest.mark.parametrize("method", ["residual", "released"])
@pytest.mark.parametrize("size", [(30, 44), (31, 43)])
def test_costs_at_half_size_are_the_mean_of_those_at_full_size(method: str, size: tuple[int, int]) -> None:
    stack = random_stack(3, (*size, 3))
    depths_m = [0.5, 0.8, 2.0]
    config = CostConfig(method=method)
    full = cost_volume_from_config(stack, depths_m, config, threads=1)
    half = cost_volume_from_config(stack, depths_m, config, threads=1, half=True)
    assert half.shape == (3, *half_size(size))
    np.testing.assert_allclose(half, [halved(costs) for costs in full], rtol=1e-5)

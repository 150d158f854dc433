"""All-in-focus image on a device, by the kernels' host build, held to that of numpy."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from cost_volume_rig import random_stack
from cuda_host import HostKernels
from numpy.typing import NDArray

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.cuda.sharp import all_in_focus
from dfs_ros.cost_volume.sharp import all_in_focus as of_numpy
from dfs_ros.types import FocalStack

CPU = torch.device("cpu")


def on_device(stack: FocalStack, depth_m: NDArray[Any], config: CostConfig, kernels: HostKernels) -> NDArray[np.uint8]:
    with torch.inference_mode():
        return all_in_focus(stack, torch.from_numpy(stack.images), depth_m, config, Engines(kernels, CPU))


def slanted(size: tuple[int, int]) -> NDArray[np.float64]:
    """Depth (H, W) in metres, other in every column, with pixels that have none."""
    depth = 1.0 / np.linspace(0.3, 2.4, size[1]) * np.ones((size[0], 1))
    depth[3:9, 5:20] = np.nan
    return depth


@pytest.mark.parametrize("shape", [(41, 56, 3), (36, 47)])
@pytest.mark.parametrize(
    "settings",
    [{}, {"psf": "gaussian"}, {"padding_px": 0}, {"transfer_curve": "linear"}, {"channels": "luma", "eps": 0.1}],
)
def test_the_image_is_that_of_numpy(kernels: HostKernels, shape: tuple[int, ...], settings: dict[str, Any]) -> None:
    stack = random_stack(4, shape)
    stack = dataclasses.replace(stack, blur_scale=np.array([1.0, 1.01, 1.02, 1.03]))
    config, depth_m = CostConfig(**settings), slanted(stack.size)
    found, expected = on_device(stack, depth_m, config, kernels), of_numpy(stack, depth_m, config)
    assert found.dtype == np.uint8 and found.shape == expected.shape == (*stack.size, 3)
    off = np.abs(found.astype(int) - expected)
    assert off.max() <= 1 and (off > 0).mean() < 1e-3  # float32 rounds a few pixel values the other way
    assert np.ptp(expected) > 100


@pytest.mark.parametrize("depth_m", [0.8, np.nan])
def test_one_depth_everywhere_and_none(kernels: HostKernels, depth_m: float) -> None:
    stack = random_stack(3, (30, 44, 3))
    depths = np.full(stack.size, depth_m)
    found, expected = on_device(stack, depths, CostConfig(), kernels), of_numpy(stack, depths)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_comparison_can_tell(kernels: HostKernels) -> None:
    stack = random_stack(4, (41, 56, 3))
    depth_m = slanted(stack.size)
    wrong = on_device(stack, depth_m[:, ::-1], CostConfig(), kernels)
    assert np.abs(wrong.astype(int) - of_numpy(stack, depth_m)).max() > 1

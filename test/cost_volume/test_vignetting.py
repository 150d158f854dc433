"""Cost volumes of a lens that vignettes: at every pixel that of its own aperture, on every backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cost_volume_rig import plane_stack
from cuda_host import HostKernels

from dfs_ros.alignment.align import aligned_as_is
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.cost_volume.halving import halved
from dfs_ros.cost_volume.vignetting import aperture_states
from dfs_ros.estimator.gpu import GpuSteps
from dfs_ros.lens_field import LensField
from dfs_ros.types import FocalStack, opened

DEPTHS_M = 1.0 / np.linspace(1.6, 0.4, 5)
COST = CostConfig(window_sigma_px=2.0)


def vignetted(vignetting: float) -> FocalStack:
    stack = plane_stack(1.0, (48, 64))
    return replace(stack, camera=replace(stack.camera, field=LensField(vignetting=vignetting)))


@pytest.mark.parametrize(("vignetting", "count", "within"), [(0.3, 3, 0.03), (0.05, 2, 0.01)])
def test_each_pixel_has_the_cost_of_its_aperture(vignetting: float, count: int, within: float) -> None:
    stack = vignetted(vignetting)
    states = aperture_states(stack, DEPTHS_M)
    assert states is not None and len(states.factors) == count
    np.testing.assert_allclose(states.weights.sum(axis=0), 1.0, atol=1e-5)
    assert stack.camera.field is not None
    openness = stack.camera.field.openness(stack.size, np.nan, np.nan)
    np.testing.assert_allclose(np.tensordot(states.factors, states.weights, 1), openness, atol=1e-5)
    volume = cost_volume_from_config(stack, DEPTHS_M, COST, threads=1)
    for factor in np.linspace(openness.min(), openness.max(), 5):
        here = np.abs(openness - factor) < 0.003
        even = replace(stack, camera=replace(stack.camera, field=None))
        alone = cost_volume_from_config(opened(even, float(factor)), DEPTHS_M, COST, threads=1)
        off = np.abs(np.log(volume[:, here] / alone[:, here]))
        assert here.any() and np.median(off) < within


def test_one_aperture_serves_where_blur_differs_by_little() -> None:
    assert aperture_states(vignetted(0.0), DEPTHS_M) is None
    assert aperture_states(vignetted(0.001), DEPTHS_M) is None
    assert aperture_states(plane_stack(1.0, (48, 64)), DEPTHS_M) is None


def test_backends_agree(kernels: HostKernels) -> None:
    stack = vignetted(0.3)
    volume = cost_volume_from_config(stack, DEPTHS_M, COST, threads=1)
    plain = cost_volume_from_config(stack, DEPTHS_M, COST, backend="reference")
    np.testing.assert_allclose(volume, plain, rtol=1e-3, atol=1e-7)
    half = cost_volume_from_config(stack, DEPTHS_M, COST, threads=1, half=True)
    np.testing.assert_allclose(half, [halved(s) for s in volume], rtol=0.05, atol=1e-6)
    steps = GpuSteps(kernels, torch.device("cpu"), None)
    there = steps.cost_volume(aligned_as_is(stack), steps.upload(stack.images), DEPTHS_M, COST)
    np.testing.assert_allclose(there.numpy(), half, rtol=1e-3, atol=1e-7)


def test_costs_are_never_below_a_quarter_of_the_least() -> None:
    states = aperture_states(vignetted(0.3), DEPTHS_M)
    assert states is not None
    costs = dict(zip(states.factors, (np.array(1.0), np.array(0.01), np.array(1.0)), strict=True))
    found = states.blended(lambda a: np.broadcast_to(costs[a], (2, 48, 64)).astype(np.float32).copy())
    assert found.min() >= 0.0025
    tensors = states.blended(lambda a: torch.full((2, 48, 64), float(costs[a])), torch.from_numpy(states.weights))
    np.testing.assert_allclose(tensors.numpy(), found, rtol=1e-6)

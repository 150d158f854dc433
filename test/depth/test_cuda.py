"""What follows a volume, by the kernels' own source on the CPU: equal to the numpy path that it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_host import HostKernels, changed_kernels
from numpy.typing import NDArray

from dfs_ros.config import RegularizationConfig
from dfs_ros.depth import cuda, readout, regularization
from dfs_ros.depth.confidence import confidence_of as cpu_confidence
from dfs_ros.depth.confidence import least_of
from dfs_ros.depth.cuda import Aggregation
from dfs_ros.depth.scene_range import at_ends as cpu_at_ends

SIZES = [(5, 33, 47), (8, 48, 30), (1, 20, 64), (2, 31, 16), (67, 18, 21)]


def both(steps: Any, energy: Any, guide: Any, config: RegularizationConfig) -> tuple[Any, Any]:
    """The energy aggregated, and that optimised, by numpy or by the kernels."""
    aggregated = steps.aggregated(energy, guide, config)
    return aggregated, steps.optimized(aggregated, guide, config)


@pytest.fixture
def on_device(kernels: HostKernels) -> Aggregation:
    return Aggregation(kernels)


def energy_and_guide(shape: tuple[int, int, int], seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Costs of a step in depth where the guide has one too, with noise."""
    rng = np.random.default_rng(seed)
    depths, height, width = shape
    at = np.where(np.arange(width) < width // 3, 0.2, 0.8) * depths
    valley = np.abs(np.arange(depths)[:, None, None] - at) * (6.0 / depths)
    energy = np.minimum(valley, 3.0) - 4.0 + rng.normal(0, 0.5, shape)
    guide = np.where(np.arange(width) < width // 3, 0.3, 0.7) + rng.normal(0, 0.03, (height, width))
    return energy.astype(np.float32), guide.astype(np.float32)


def tensors(*arrays: NDArray[np.float32]) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("radius", "eps"), [(0, 1e-3), (1, 1e-3), (4, 1e-3), (9, 0.1), (64, 1e-3)])
def test_guided_filter(
    on_device: Aggregation, shape: tuple[int, int, int], radius: int, eps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    energy, guide = energy_and_guide(shape)
    expected = regularization.guided_filter(energy, guide, radius, eps)
    # Slices of 16 bytes a pixel: all at once, and two at a time.
    for block_bytes in (1 << 30, 33 * shape[1] * shape[2]):
        monkeypatch.setattr(cuda, "_BLOCK_BYTES", block_bytes)
        filtered = on_device.guided_filter(*tensors(energy, guide), radius, eps).numpy()
        # The variance is a difference of nearly equal numbers; OpenCV sums in another order.
        np.testing.assert_allclose(filtered, expected, atol=2e-4)
    assert radius == 0 or np.abs(expected - energy).max() > 0.3


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("smoothness", [0.02, 0.5])
def test_semi_global(on_device: Aggregation, shape: tuple[int, int, int], smoothness: float) -> None:
    energy, guide = energy_and_guide(shape)
    expected = regularization.semi_global(energy, guide, smoothness, 0.05)
    costs, guide_tensor = tensors(np.ascontiguousarray(energy.transpose(1, 2, 0)), guide)
    found = on_device.semi_global(costs, guide_tensor, smoothness, 0.05).numpy().transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert shape[0] == 1 or np.abs(expected - energy).max() > smoothness / 2


def test_semi_global_of_more_hypotheses_than_threads(on_device: Aggregation) -> None:
    energy, guide = energy_and_guide((300, 9, 12))
    costs = torch.from_numpy(np.ascontiguousarray(energy.transpose(1, 2, 0)))
    found = on_device.semi_global(costs, torch.from_numpy(guide), 0.1, 0.05).numpy().transpose(2, 0, 1)
    np.testing.assert_allclose(found, regularization.semi_global(energy, guide, 0.1, 0.05), atol=2e-5)
    with pytest.raises(ValueError, match="at most 512 hypotheses, received 513"):
        on_device.semi_global(torch.zeros(2, 2, 513), torch.zeros(2, 2), 0.1, 0.05)


@pytest.mark.parametrize("shape", SIZES)
def test_smoothed_energy(on_device: Aggregation, shape: tuple[int, int, int]) -> None:
    energy, guide = energy_and_guide(shape)
    for config in (RegularizationConfig(), RegularizationConfig(smoothness=0.0)):
        expected = both(regularization, energy, guide, config)
        for found, wanted in zip(both(on_device, *tensors(energy, guide), config), expected, strict=True):
            np.testing.assert_allclose(found.numpy(), wanted, atol=3e-4)


@pytest.mark.parametrize("depths", [2, 3, 64])
@pytest.mark.parametrize("sigma_scale", [1.0, 1.7])
def test_read_out(on_device: Aggregation, depths: int, sigma_scale: float) -> None:
    rng = np.random.default_rng(depths)
    logits = rng.normal(0, 1, (depths, 17, 23)) * rng.choice([0.1, 3.0, 30.0], (1, 17, 23))
    probability = np.exp(logits - logits.max(axis=0))
    probability = (probability / probability.sum(axis=0)).astype(np.float32)
    probability[:, 0, 0] = np.eye(depths)[0]
    probability[:, 0, 1] = np.eye(depths)[-1]
    probability[:, 0, 2] = 1.0 / depths
    depths_m = 1.0 / np.linspace(3.0, 0.1, depths)
    for m in (depths_m, depths_m[::-1], np.linspace(0.4, 9.0, depths)):
        diopters, sigma = readout.read_out(probability, m, sigma_scale)
        found = on_device.read_out(torch.from_numpy(probability), m, sigma_scale)
        np.testing.assert_allclose(found[0].numpy(), diopters, atol=1e-5)
        np.testing.assert_allclose(found[1].numpy(), sigma, atol=1e-5, rtol=1e-4)
    assert diopters.std() > 0.1


@pytest.mark.parametrize("depths", [1, 2, 3, 40])
def test_minimum_with_offset(depths: int) -> None:
    energy = np.random.default_rng(depths).normal(0, 1, (depths, 15, 22)).astype(np.float32)
    energy[:, 3, 3] = 1.0  # a tie: the first
    found = cuda.minimum_with_offset(torch.from_numpy(energy)).numpy()
    np.testing.assert_allclose(found, regularization.minimum_with_offset(energy), atol=1e-5)


@pytest.mark.parametrize("depths", [1, 2, 3, 40])
@pytest.mark.parametrize(("outer", "nearer"), [(0, 0), (5, 0), (5, 2), (5, 5)])
def test_confidence_and_ends(depths: int, outer: int, nearer: int) -> None:
    energies = np.random.default_rng(depths).normal(0, 1, (depths + outer, 15, 22)).astype(np.float32)
    inside, around = energies[:depths], energies[depths:]
    tensors = torch.from_numpy(inside), torch.from_numpy(around)
    np.testing.assert_allclose(cuda.confidence_of(*tensors, 0.3), cpu_confidence(inside, around, 0.3), atol=1e-6)
    np.testing.assert_array_equal(cuda.at_ends(*tensors, nearer), cpu_at_ends(inside, around, nearer))
    np.testing.assert_array_equal(cuda.least_of(*tensors), energies.min(axis=0))
    np.testing.assert_array_equal(least_of(inside, around), energies.min(axis=0))


def test_wrong_kernels_are_rejected(tmp_path: Path) -> None:
    """The comparisons above see a path that does not fall back, a lost direction, a wrong model and a wrong median."""
    energy, guide = energy_and_guide((12, 24, 30))
    config = RegularizationConfig()
    expected = both(regularization, energy, guide, config)
    probability = regularization.probability_of(expected[1], 4.0)
    depths_m = np.linspace(0.4, 5.0, 12)
    diopters, _ = readout.read_out(probability, depths_m)
    changes = [
        ("cost += best - least;", "cost += best;", 1),
        ("previous[d + 1] + small", "previous[d + 1]", 1),
        ("way < 2", "way < 1", 1),
        (
            "job.mean[plane_index(job, 2 * block.z + 1, y, x)] = cost - a * guide;",
            "job.mean[plane_index(job, 2 * block.z + 1, y, x)] = cost;",
            0,
        ),
        ("position + half - 0.5f", "position + half", 2),
    ]
    for i, (before, after, seen_in) in enumerate(changes):
        wrong = Aggregation(changed_kernels(tmp_path / str(i), "aggregation.cuh", before, after))
        aggregated, smoothed = both(wrong, *tensors(energy, guide), config)
        found = wrong.read_out(torch.from_numpy(probability), depths_m)[0]
        off = [
            float(np.abs(a.numpy() - b).max())
            for a, b in zip((aggregated, smoothed, found), (*expected, diopters), strict=True)
        ]
        assert off[seen_in] > 1e-2, (before, off)

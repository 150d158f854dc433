"""Barriers of the CUDA kernels, threads as fibres: results hold in any order, and without any barrier they do not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cost_volume_rig import METHODS, random_stack, relative_error
from cuda_host import BACKWARDS, FORWARDS, HostKernels, changed_kernels
from numpy.typing import NDArray

from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.config import CostConfig, RegularizationConfig
from dfs_ros.cost_volume import moving, reference
from dfs_ros.cost_volume.cuda import build
from dfs_ros.cost_volume.cuda import moving as moving_on_device
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.cuda.job import Job
from dfs_ros.cost_volume.cuda.volume import VolumeEngine
from dfs_ros.cost_volume.problem import make_problem
from dfs_ros.depth import regularization
from dfs_ros.depth.cuda import Aggregation

Arrays = list[NDArray[Any]]
WIDTH = 38  # two tiles, the second of them not full


class Volume:
    """A volume by one method, in colour and with the tabulated disk: those take the most barriers."""

    def __init__(self, method: str) -> None:
        cost = CostConfig(method=method, psf="table", channels="rgb", window_sigma_px=0.8)
        self._problem = make_problem(random_stack(2, (17, WIDTH, 3)), [0.4, 1.3], cost)
        self._expected = reference.cost_volume(self._problem)

    def computed(self, kernels: HostKernels, output: str = "cost") -> Arrays:
        engine = VolumeEngine(self._problem, kernels, torch.device("cpu"), output=output)
        return [engine.volume(engine.spectra(self._problem.stack.images), self._problem.coc_px).numpy()]

    def is_right(self, kernels: HostKernels) -> bool:
        return relative_error(self.computed(kernels)[0], self._expected) < 1e-5


class Moving:
    """The volume of a camera that moves sideways."""

    def __init__(self) -> None:
        stack = random_stack(2, (17, WIDTH))
        views = View(np.zeros(3)), View(np.array([0.01, 0.0, 0.0]))
        own = {name: getattr(stack, name) for name in ("images", "focus_diopters", "camera")}
        followed = MovingStack(**own, source=stack.images, gains=np.ones(2), views=views)
        cost = CostConfig(window_sigma_px=0.8)
        self._problem = make_problem(followed, [0.4, 1.3], cost)
        self._expected = moving.cost_volume(self._problem, threads=1)

    def computed(self, kernels: HostKernels, output: str = "cost") -> Arrays:
        engines = Engines(kernels, torch.device("cpu"))
        return [
            moving_on_device.cost_volume(self._problem, torch.from_numpy(self._problem.stack.images), engines).numpy()
        ]

    def is_right(self, kernels: HostKernels) -> bool:
        return relative_error(self.computed(kernels)[0], self._expected) < 1e-4


class Smoothing:
    """Guided filter and semi-global paths, of more hypotheses than share the search for the least."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._energy = rng.normal(0.0, 1.0, (18, 6, WIDTH)).astype(np.float32)
        self._guide = rng.random((6, WIDTH), np.float32)
        self._expected = self._both(regularization, self._energy, self._guide)

    def computed(self, kernels: HostKernels) -> Arrays:
        both = self._both(Aggregation(kernels), torch.from_numpy(self._energy), torch.from_numpy(self._guide))
        return [tensor.numpy() for tensor in both]

    def is_right(self, kernels: HostKernels) -> bool:
        pairs = zip(self.computed(kernels), self._expected, strict=True)
        return all(np.allclose(found, expected, atol=3e-4) for found, expected in pairs)

    @staticmethod
    def _both(steps: Any, energy: Any, guide: Any) -> list[Any]:
        aggregated = steps.aggregated(energy, guide, RegularizationConfig())
        return [aggregated, steps.optimized(aggregated, guide, RegularizationConfig())]


Check = Volume | Moving | Smoothing


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    return [*map(Volume, METHODS), Moving(), Smoothing()]


def everything(kernels: HostKernels, checks: list[Check]) -> Arrays:
    """What all kernels write."""
    arrays = [array for check in checks for array in check.computed(kernels)]
    arrays += [array for check in checks if isinstance(check, Volume) for array in check.computed(kernels, "bounded")]
    probability = torch.softmax(torch.from_numpy(-arrays[-1]), 0)
    return [*arrays, *(plane.numpy() for plane in Aggregation(kernels).read_out(probability, np.array([0.4, 1.3])))]


@pytest.mark.parametrize("order", [FORWARDS, BACKWARDS, 3, 4, 5])
def test_threads_and_blocks_in_any_order_give_the_same(kernels: HostKernels, checks: list[Check], order: int) -> None:
    fibres = kernels.ordered(order)
    for found, expected in zip(everything(fibres, checks), everything(kernels, checks), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert all(check.is_right(fibres) for check in checks)
    assert set(fibres.launched) == set(re.findall(r"^KERNEL\((\w+)\)", "".join(build.sources().values()), re.M))


def test_without_any_one_barrier_a_result_is_wrong(kernels: HostKernels, checks: list[Check]) -> None:
    """Whichever barrier of whichever kernel is left out, in an adversarial and in a random order."""
    needed = set()
    for check in checks:
        fibres = kernels.ordered(FORWARDS)
        assert check.is_right(fibres)
        for left_out in sorted(fibres.barriers):
            without = {order: kernels.ordered(order, left_out) for order in (FORWARDS, BACKWARDS, 3)}
            assert not all(check.is_right(without[order]) for order in (FORWARDS, BACKWARDS)), left_out
            assert not check.is_right(without[3]), left_out
        needed |= fibres.barriers
    assert {barrier for _, barrier in needed} == set(range(kernels.barrier_count))


DIVERGING = """
#include "phases.cuh"
ELEMENT void together_block(const Job&, const Block& block, float*) { if (block.threads > 7) BARRIER(); }
ELEMENT void apart_block(const Job&, const Block& block, float*) { if (block.first < 7) BARRIER(); else BARRIER(); }
ELEMENT void gone_block(const Job&, const Block& block, float*) { if (block.first >= 7) return; BARRIER(); }
KERNEL(together)
KERNEL(apart)
KERNEL(gone)
"""


def test_threads_that_part_at_a_barrier_are_an_error(tmp_path: Path) -> None:
    source = build.sources()[build.KERNEL_FILE]
    fibres = changed_kernels(tmp_path / "diverging", build.KERNEL_FILE, source, DIVERGING).ordered(FORWARDS)
    for kernel in ("apart", "gone"):
        with pytest.raises(RuntimeError, match=f"{kernel}: threads of one block wait at different barriers"):
            fibres.launch(kernel, (1, 1, 1), 32, 0, Job())
        fibres.launch("together", (2, 1, 1), 32, 0, Job())
    assert fibres.barriers == {("together", 0)}

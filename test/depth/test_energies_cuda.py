"""Energies of searches by the kernels' host build, held to those of the host; and what is found by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cuda_host import HostKernels
from moving_rig import moving_stack

from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.calibration.aperture import fit_aperture
from dfs_ros.config import Config, CostConfig
from dfs_ros.cost_volume import SpectraCache
from dfs_ros.depth.energies import HostEnergies
from dfs_ros.depth.energies_cuda import DeviceEnergies
from dfs_ros.depth.scene_range import find_range, search_range
from dfs_ros.types import FocalStack, opened

DEPTHS_M = 1.0 / np.linspace(2.2, 0.4, 6)
HOST = HostEnergies(1)


def cropped() -> FocalStack:
    """Two planes at 1.6 m and 0.55 m."""
    stack = moving_stack(0.0)
    return replace(stack, images=np.ascontiguousarray(stack.images[:, 16:80, 24:104]), poses=())


@pytest.fixture
def device(kernels: HostKernels) -> DeviceEnergies:
    return DeviceEnergies(kernels, torch.device("cpu"), torch.from_numpy)


def test_energies_are_those_of_the_host(device: DeviceEnergies) -> None:
    still = cropped()
    views = tuple(View(0.01 * np.array([i - 2.0, 0.0, 0.0])) for i in range(len(still)))
    followed = MovingStack(
        still.images,
        still.focus_diopters,
        still.camera,
        source=still.images,
        gains=np.ones(5),
        views=views,
        reference=2,
    )
    spectra = SpectraCache()
    for stack, kept in ((still, None), (still, spectra), (still, spectra), (followed, None)):
        expected = HOST.volume(stack, DEPTHS_M, CostConfig())
        found = device.volume(stack, DEPTHS_M, CostConfig(), kept)
        assert found.shape == (6, 64, 80) and np.percentile(np.abs(found - expected), 99.0) < 1e-3
        least = device.least(stack, DEPTHS_M, CostConfig(), kept)
        assert np.percentile(np.abs(least - HOST.least(stack, DEPTHS_M, CostConfig())), 99.0) < 2e-3
        assert (least <= found.min(axis=0) + 1e-6).all()
    assert spectra.misses == 5 and spectra.hits == 15


def test_aperture_and_range_are_those_of_the_host(device: DeviceEnergies) -> None:
    stack, config = opened(cropped(), 1.0 / 1.25), Config()
    on_device = fit_aperture(stack, 0.4, config.cost, near_factor=1.25, energies=device)
    on_host = fit_aperture(stack, 0.4, config.cost, near_factor=1.25, energies=HOST)
    assert on_device is not None and on_host is not None
    assert on_host.measured == pytest.approx(1.25, rel=0.05)
    assert on_device.measured == pytest.approx(on_host.measured, rel=1e-3)
    assert on_device.sigma == pytest.approx(on_host.sigma, rel=1e-2)
    limits = search_range(stack, config)
    found, expected = (find_range(stack, limits, config, 1, energies) for energies in (device, HOST))
    assert (found.far, found.near) == pytest.approx((expected.far, expected.near), abs=2e-3)
    assert expected.width < 0.8 * limits.width

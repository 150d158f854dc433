"""Energies on a device, as :mod:`.energies`: one transfer each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfs_ros.alignment.moving import MovingStack
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import SpectraCache
from dfs_ros.cost_volume.cuda import moving
from dfs_ros.cost_volume.cuda.driver import Kernels
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.energy import log_energy_tensor
from dfs_ros.cost_volume.problem import make_problem
from dfs_ros.depth.cuda import least_energy
from dfs_ros.system.transfers import downloaded
from dfs_ros.types import FocalStack

Real = NDArray[np.float32]


class DeviceEnergies:
    """See :class:`.energies.Energies`. `upload`: brings images to the device."""

    def __init__(self, kernels: Kernels, device: torch.device, upload: Callable[[NDArray[np.uint8]], Tensor]) -> None:
        # Searches ask for many sizes, which must not displace the engine of the live stacks.
        self._engines, self._upload = Engines(kernels, device), upload

    def volume(
        self, stack: FocalStack, depths_m: ArrayLike, cost: CostConfig, spectra: SpectraCache | None = None
    ) -> Real:
        return downloaded(self._volume(stack, depths_m, cost, spectra))

    def least(
        self, stack: FocalStack, depths_m: ArrayLike, cost: CostConfig, spectra: SpectraCache | None = None
    ) -> Real:
        return downloaded(least_energy(self._volume(stack, depths_m, cost, spectra)))

    def _volume(self, stack: FocalStack, depths_m: ArrayLike, cost: CostConfig, spectra: SpectraCache | None) -> Tensor:
        problem = make_problem(stack, depths_m, cost)
        if isinstance(stack, MovingStack):
            return log_energy_tensor(moving.cost_volume(problem, self._upload(stack.source), self._engines), "residual")
        engine = self._engines.of(problem)
        keys = None if spectra is None else range(len(stack))
        volume = engine.volume(engine.spectra(self._upload(stack.images), spectra, keys), problem.coc_px)
        return log_energy_tensor(volume, "residual")

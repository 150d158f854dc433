"""Logarithm of cost volumes, as searches use them: on the host here, on a device in energies_cuda.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import SpectraCache, cost_volume_from_config
from dfs_ros.cost_volume.energy import log_energy
from dfs_ros.depth.regularization import least_energy
from dfs_ros.types import FocalStack

Real = NDArray[np.float32]


class Energies(Protocol):
    """Maker of energies of the method `residual`.

    `spectra`: cache of the spectra of this stack's images, under their index.
    """

    def volume(
        self, stack: FocalStack, depths_m: ArrayLike, cost: CostConfig, spectra: SpectraCache | None = None
    ) -> Real:
        """Logarithm of the cost volume, float32 (D, H, W)."""

    def least(
        self, stack: FocalStack, depths_m: ArrayLike, cost: CostConfig, spectra: SpectraCache | None = None
    ) -> Real:
        """Least of it over the hypotheses, float32 (H, W), see :func:`.regularization.least_energy`."""


class HostEnergies:
    """Energies on CPU cores; `threads` 0 = all usable."""

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads

    def volume(
        self, stack: FocalStack, depths_m: ArrayLike, cost: CostConfig, spectra: SpectraCache | None = None
    ) -> Real:
        keys = None if spectra is None else range(len(stack))
        camera = stack.camera
        if camera.field is not None:  # the mean aperture will do for a search
            stack = replace(stack, camera=replace(camera, field=replace(camera.field, vignetting=0.0)))
        volume = cost_volume_from_config(
            stack, depths_m, cost, threads=self._threads, spectra_cache=spectra, frame_keys=keys
        )
        return log_energy(volume, "residual")

    def least(
        self, stack: FocalStack, depths_m: ArrayLike, cost: CostConfig, spectra: SpectraCache | None = None
    ) -> Real:
        return np.asarray(least_energy(self.volume(stack, depths_m, cost, spectra)), np.float32)

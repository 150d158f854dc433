"""Steps of pipeline.py on the CPU, on numpy arrays."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack
from dfs_ros.config import Config, CostConfig, RegularizationConfig
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.cost_volume.energy import log_energy
from dfs_ros.cost_volume.halving import enlarged, enlarged_along, halved
from dfs_ros.cost_volume.hypotheses import subdivided, subdivision_for
from dfs_ros.depth import regularization
from dfs_ros.depth.confidence import confidence_of, least_of
from dfs_ros.depth.guide import guide_image
from dfs_ros.depth.readout import at_index, read_out
from dfs_ros.depth.scene_range import at_ends
from dfs_ros.estimator.host import HostSteps

Image = NDArray[np.float32]
Volume = NDArray[np.float32]
Depths = NDArray[np.float64]
Planes = tuple[Image, ...]


class CpuSteps(HostSteps):
    """Steps on the CPU, see :class:`dfs_ros.pipeline.Steps`."""

    @property
    def description(self) -> str:
        """Device of the cost volume, for reports."""
        return f"cpu, {self.threads} threads"

    def upload(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return images

    def guide(self, images: NDArray[np.uint8]) -> Image:
        return guide_image(images)

    def halve(self, guide: Image) -> Image:
        return halved(guide)

    def cost_volume(
        self, aligned: AlignedStack, images: NDArray[np.uint8], depths_m: Depths, config: CostConfig
    ) -> Volume:
        keys = None if self.spectra is None else aligned.frame_keys
        return cost_volume_from_config(
            aligned.stack,
            depths_m,
            config,
            threads=self.threads,
            spectra_cache=self.spectra,
            frame_keys=keys,
            half=True,
        )

    def split(self, volume: Volume, inner: slice) -> tuple[Volume, Volume]:
        return volume[inner], np.concatenate([volume[: inner.start], volume[inner.stop :]])

    def interpolate(self, cost: Volume, depths_m: Depths, config: Config) -> tuple[Volume, Depths]:
        between = subdivision_for(config, depths_m)
        return (cost, depths_m) if between is None else (subdivided(cost, between), between.depths_m)

    def energy(self, cost: Volume, method: str) -> Volume:
        return log_energy(cost, method)

    def aggregate(self, energy: Volume, guide: Image, config: RegularizationConfig) -> Volume:
        return regularization.aggregated(energy, guide, config, threads=self.threads)

    def optimize(self, aggregated: Volume, guide: Image, config: RegularizationConfig) -> Volume:
        return regularization.optimized(aggregated, guide, config, threads=self.threads)

    def decide(
        self, energy: Volume, smoothed: Volume, guide: Image, image: NDArray[np.uint8], sharpness: float
    ) -> Volume:
        if self.network is None:
            return regularization.probability_of(smoothed, sharpness)
        return self.network.probability(energy, smoothed, guide, image)

    def read_out(self, probability: Volume, smoothed: Volume, depths_m: Depths) -> tuple[Image, Image, Image]:
        diopters, spread = read_out(probability, depths_m, self.sigma_scale)
        minimum = at_index(1.0 / depths_m, regularization.minimum_with_offset(smoothed))
        if self.network is None:
            return minimum, spread, np.zeros_like(spread)
        return diopters, spread, np.abs(minimum - diopters)

    def confidence(self, aggregated: Volume, outer: Volume, outer_share: float) -> Image:
        return confidence_of(aggregated, outer, outer_share)

    def at_ends(self, aggregated: Volume, outer: Volume, nearer: int) -> Image:
        return at_ends(aggregated, outer, nearer)

    def least(self, aggregated: Volume, outer: Volume) -> Image:
        return least_of(aggregated, outer)

    def enlarge_along(self, plane: Image, guide: Image) -> Image:
        return enlarged_along(plane, guide)

    def enlarge(self, planes: Planes, size: tuple[int, int]) -> Planes:
        return tuple(enlarged(plane, size) for plane in planes)

    def download(self, planes: Planes) -> Planes:
        return planes

    def now(self) -> float:
        """Time mark for :meth:`seconds_between`."""
        return time.perf_counter()

    def seconds_between(self, before: float, after: float) -> float:
        return after - before

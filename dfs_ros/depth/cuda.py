"""Aggregation, optimization and readout by kernels. Formulas: dfs_ros/depth/regularization.py.

    guided filter   guided_rows, guide_columns                                          statistics of the guide
                    guided_rows, guided_columns, coefficient_rows, filtered_columns     for a block of slices
    semi-global     paths_down, paths_across                                            hypotheses last in memory
    readout         read_out

As in volume.py, this code does not depend on whether the kernels run on a GPU, and does not wait for the device.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfs_ros.config import RegularizationConfig
from dfs_ros.cost_volume.cuda.driver import Kernels
from dfs_ros.cost_volume.cuda.job import THREADS, Job, blocks, columns_grid, rows_grid, with_arrays
from dfs_ros.depth.parabola import vertex
from dfs_ros.system.transfers import uploaded

_BLOCK_BYTES = 32 << 20  # windowed rows and coefficients of the slices filtered in one block
_PARTS = 16  # as in aggregation.cuh
_MOST_HYPOTHESES = 512  # two path costs of each, in shared memory


class Aggregation:
    """Aggregation, optimization and readout with the kernels of one device."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def aggregated(self, energy: Tensor, guide: Tensor, config: RegularizationConfig) -> Tensor:
        """Guided filter: :func:`dfs_ros.depth.regularization.aggregated` of float32 (D, H, W) and (H, W)."""
        return self.guided_filter(energy, guide, config.guided_radius_px, config.guided_eps)

    def optimized(self, aggregated: Tensor, guide: Tensor, config: RegularizationConfig) -> Tensor:
        """:func:`dfs_ros.depth.regularization.optimized` of the same."""
        if config.smoothness == 0:
            return aggregated
        last = aggregated.permute(1, 2, 0).contiguous()
        smoothed = self.semi_global(last, guide, config.smoothness, config.edge_contrast)
        return smoothed.permute(2, 0, 1).contiguous()

    def guided_filter(self, volume: Tensor, guide: Tensor, radius_px: int, eps: float) -> Tensor:
        """:func:`dfs_ros.depth.regularization.guided_filter`."""
        size = guide.shape[0], guide.shape[1]
        box = torch.full((radius_px + 1,), 1.0 / (2 * radius_px + 1), device=volume.device)
        guide_mean, guide_scale, result = torch.empty_like(guide), torch.empty_like(guide), torch.empty_like(volume)
        job = Job(height=size[0], width=size[1], channels=2, window_radius=radius_px, eps=eps)
        job = with_arrays(job, 0, window=box, guide=guide, guide_mean=guide_mean, guide_scale=guide_scale)
        at_once = min(len(volume), max(1, _BLOCK_BYTES // (16 * size[0] * size[1])))
        rows, coefficients = (torch.empty((2 * at_once, *size), device=volume.device) for _ in range(2))

        def rows_then_columns(row_kernel: str, column_kernel: str, job: Job) -> None:
            for kernel, (grid, shared) in (
                (row_kernel, rows_grid(size, 2 * job.depths, radius_px)),
                (column_kernel, columns_grid(size, job.depths, 2, radius_px)),
            ):
                self._kernels.launch(kernel, grid, THREADS, 4 * shared, job)

        rows_then_columns("guided_rows", "guide_columns", with_arrays(job, 1, costs=guide, rows=rows))
        for first in range(0, len(volume), at_once):
            block = slice(first, min(first + at_once, len(volume)))
            job = with_arrays(
                job, len(volume[block]), costs=volume[block], rows=rows, mean=coefficients, volume=result[block]
            )
            rows_then_columns("guided_rows", "guided_columns", job)
            rows_then_columns("coefficient_rows", "filtered_columns", job)
        return result

    def semi_global(self, costs: Tensor, guide: Tensor, smoothness: float, edge_contrast: float) -> Tensor:
        """:func:`dfs_ros.depth.regularization.semi_global`, hypotheses last: (H, W, D) in, the same out."""
        height, width, depths = costs.shape
        if depths > _MOST_HYPOTHESES:
            raise ValueError(f"semi_global: expected at most {_MOST_HYPOTHESES} hypotheses, received {depths}")
        total = torch.empty_like(costs)
        guide = guide.contiguous()
        job = Job(height=height, width=width, smoothness=smoothness, edge_contrast=edge_contrast)
        job = with_arrays(job, depths, costs=costs, guide=guide, rows=total)
        threads = min(THREADS, 32 * blocks(depths, 32))
        for kernel, paths in (("paths_down", width), ("paths_across", height)):
            self._kernels.launch(kernel, (paths, 1, 1), threads, 4 * (2 * depths + _PARTS), job)
        return total.mul_(0.25)

    def read_out(
        self, probability: Tensor, depths_m: NDArray[np.float64], sigma_scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """:func:`dfs_ros.depth.readout.read_out`: inverse depth and its standard deviation (H, W) in dioptres."""
        depths, height, width = probability.shape
        probability = probability.contiguous()
        levels, steps = (uploaded(values, probability.device) for values in levels_and_steps(depths_m))
        planes = torch.empty((2, height, width), device=probability.device)
        job = Job(height=height, width=width, sigma_scale=sigma_scale)
        job = with_arrays(job, depths, costs=probability, levels=levels, level_steps=steps, volume=planes)
        self._kernels.launch("read_out", (blocks(height * width), 1, 1), THREADS, 0, job)
        return planes[0], planes[1]


def levels_and_steps(depths_m: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inverse depth of every hypothesis and its local step, float32 (D,)."""
    inverse = 1.0 / np.asarray(depths_m, np.float64)
    return inverse.astype(np.float32), np.abs(np.gradient(inverse)).astype(np.float32)


def minimum_with_offset(energy: Tensor) -> Tensor:
    """:func:`dfs_ros.depth.regularization.minimum_with_offset` of a tensor: float32 (H, W)."""
    best = energy.argmin(dim=0)
    if len(energy) < 3:
        return best.float()
    middle = best.clamp(1, len(energy) - 2)
    low, mid, high = (energy.gather(0, (middle + k)[None])[0] for k in (-1, 0, 1))
    offset, _ = vertex(low, mid, high, where=torch.where)
    return torch.where(best == middle, middle + offset.clamp(-0.5, 0.5), best.float())


def least_energy(energy: Tensor) -> Tensor:
    """:func:`dfs_ros.depth.regularization.least_energy` of a tensor (D, H, W)."""
    middle = energy.argmin(dim=0).clamp(1, len(energy) - 2)
    low, mid, high = (energy.gather(0, (middle + k)[None])[0] for k in (-1, 0, 1))
    offset, _ = vertex(low, mid, high, where=torch.where)
    inside = (mid <= low) & (mid <= high)
    return torch.where(inside, mid - 0.25 * (low - high) * offset, torch.minimum(torch.minimum(low, mid), high))


def at_index(values: Tensor, index: Tensor) -> Tensor:
    """`values` (D,) at fractional indices, linear in between."""
    below = index.long().clamp(max=len(values) - 2)
    return torch.lerp(values[below], values[below + 1], index - below)


def confidence_of(aggregated: Tensor, outer: Tensor, outer_share: float) -> Tensor:
    """:func:`dfs_ros.depth.confidence.confidence_of` of tensors."""
    mean, least = aggregated.mean(dim=0), least_of(aggregated, outer)
    if len(outer):
        mean = (1.0 - outer_share) * mean + outer_share * outer.mean(dim=0)
    return 1.0 - torch.exp((least - mean).clamp(max=0.0))


def least_of(aggregated: Tensor, outer: Tensor) -> Tensor:
    """:func:`dfs_ros.depth.confidence.least_of` of tensors."""
    least = aggregated.amin(dim=0)
    return torch.minimum(least, outer.amin(dim=0)) if len(outer) else least


def at_ends(aggregated: Tensor, outer: Tensor, nearer: int) -> Tensor:
    """:func:`dfs_ros.depth.scene_range.at_ends` of tensors."""
    if len(aggregated) < 3:
        return torch.zeros_like(aggregated[0])
    inner = aggregated[1:-1].amin(dim=0)
    near = torch.cat([aggregated[:1], outer[:nearer]]).amin(dim=0)
    far = torch.cat([aggregated[-1:], outer[nearer:]]).amin(dim=0)
    return ((near < inner) & (near <= far)).float() - ((far < inner) & (far < near)).float()

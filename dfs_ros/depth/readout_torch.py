"""Differentiable readout in PyTorch, as :mod:`dfs_ros.depth.readout`."""

from __future__ import annotations

import torch
from torch import Tensor

from dfs_ros.depth.readout import SIGMA_FLOOR, SIGMA_PER_DEVIATION

_LEAST_INSIDE = 1e-3  # bounds the gradient of the median


def median_and_spread(probability: Tensor, sigma_scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """:func:`dfs_ros.depth.readout.median_and_spread` of a batch (B, D, H, W)."""
    depths = probability.shape[1]
    cumulative = probability.cumsum(dim=1)
    with torch.no_grad():
        cell = (cumulative < 0.5).sum(dim=1, keepdim=True).clamp(max=depths - 1)
    inside = probability.gather(1, cell).clamp(min=_LEAST_INSIDE)
    before = cumulative.gather(1, cell) - probability.gather(1, cell)
    index = (cell + (0.5 - before) / inside - 0.5).clamp(0.0, depths - 1.0)[:, 0]
    fixed = index.detach()
    every = torch.arange(depths, device=fixed.device, dtype=probability.dtype)[:, None, None]
    deviation = (probability * (every - fixed[:, None]).abs()).sum(dim=1)
    return index, sigma_scale * SIGMA_PER_DEVIATION * deviation + SIGMA_FLOOR

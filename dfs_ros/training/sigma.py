"""Calibration of a network's sigma on scenes that it was not trained with.

A network is unsure in the right places and by the right proportion, but not by the right amount: its training rewards
other things more. One factor on its spread mends that, the one that 68.3 % of errors are then within.

Cameras are taken as they are described here, with a little noise: a wrong lens moves all depths together, which no
pixel's probability can tell of. It is the factor of such stacks that ships with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dfs_ros.config import CostConfig
from dfs_ros.network.light import DOWNSAMPLING, LightNetwork
from dfs_ros.network.readout import SIGMA_FLOOR, median_and_spread
from dfs_ros.training.samples import Perturbation, cropped, disturbed, random_hypotheses, sample_of
from dfs_ros.training.stacks import Sources, StackSet, TrainingStack

SHARE_WITHIN_SIGMA = 0.683
_SEED = 20_000_001  # far from any that trainings are given: other random scenes, too
_HYPOTHESES = 64
_AS_DESCRIBED = Perturbation(noise=0.01, f_number=0.0, focus=0.0, shift_px=0.0, gain=0.0)


@dataclass(frozen=True)
class SigmaFit:
    """`scale` of sigma; the share of errors `within` it before that; stacks that it was found on."""

    scale: float
    within: float
    stacks: int


def calibration_stacks(rgbd: str | Path | None, count: int, cache: str | Path | None = None) -> StackSet:
    """Random stacks of scenes kept for this: photos with depth where there are any, and random scenes."""
    sources = Sources.find(rgbd, "calibration")
    return StackSet(sources, count, _SEED) if cache is None else StackSet(sources, count, _SEED, folder=Path(cache))


def fit_sigma_scale(network: LightNetwork, stacks: Sequence[TrainingStack], device: str = "cpu") -> SigmaFit:
    """The factor on sigma. `network` gets its weights in float32 and is used as it is.

    Raises ValueError for no stacks, or where none of them has known depth.
    """
    spreads, errors = [], []
    network = network.to(device).eval()
    for index, rendered in enumerate(stacks):
        spread, error = _spread_and_error(network, rendered, np.random.default_rng((_SEED, index)), device)
        spreads.append(spread)
        errors.append(error)
    if not errors or not sum(error.size for error in errors):
        raise ValueError("sigma calibration: expected 1 stack or more with known depth, received none")
    spread, error = np.concatenate(spreads), np.concatenate(errors)
    # The factor at which a pixel's error is just within its sigma; what is not above the floor always is.
    needed = np.maximum(error - SIGMA_FLOOR, 0.0) / np.maximum(spread - SIGMA_FLOOR, 1e-6)
    scale = float(np.clip(np.quantile(needed, SHARE_WITHIN_SIGMA), 0.1, 10.0))
    return SigmaFit(scale, float(np.mean(error <= spread)), len(stacks))


def _spread_and_error(
    network: LightNetwork, rendered: TrainingStack, rng: np.random.Generator, device: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Uncalibrated sigma and error, in hypotheses, of the pixels of one stack whose depth is known."""
    known = rendered.depth_m[np.isfinite(rendered.depth_m)]
    if known.size == 0:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    stack = disturbed(rng, rendered.stack, _AS_DESCRIBED)
    depths_m = random_hypotheses(rng, 1.0 / known, _HYPOTHESES)
    size_px = min(rendered.depth_m.shape) // DOWNSAMPLING * DOWNSAMPLING
    sample = cropped(sample_of(rng, stack, rendered.depth_m, depths_m, CostConfig()), rng, size_px)
    with torch.inference_mode():
        inputs = (torch.from_numpy(x)[None].to(device) for x in (sample.energy, sample.smoothed, sample.image))
        probability = network(*inputs)[0].float().cpu().numpy()
    index, spread = median_and_spread(probability)
    counted = np.isfinite(sample.truth)
    return spread[counted], np.abs(index - sample.truth)[counted]

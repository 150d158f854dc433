"""Calibration of a network's sigma on scenes outside its training.

The network's spread grows with the error, but is of the wrong scale, as its training weighs other terms more. One
factor on the spread corrects this: the factor with 72 % of errors within sigma, as
:func:`dfs_ros.depth.readout.sigma_in_use` makes it of the spread; under conditions of use 68 % are then.

The cameras have no errors but a little noise: a wrong lens moves all depths together, which no pixel's probability can
show. The hypotheses are the default ones. The factor ships with the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dfs_research.evaluation.protocol import FARTHEST_M, HYPOTHESES, NEAREST_M
from dfs_research.evaluation.rendered import EVALUATION_CAMERAS, load_rgbd
from dfs_research.training.samples import Perturbation, disturbed, sample_of
from dfs_research.training.stacks import Sources, TrainingStack, random_lens, random_pupil
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.depth.readout import SIGMA_FLOOR, at_index, median_and_spread, spread_in_use, step_at
from dfs_ros.depth.scene_range import rms_px_per_diopter
from dfs_ros.network.light import DOWNSAMPLING, LightNetwork
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import random_scene
from dfs_ros.types import FocalStack

SHARE_WITHIN_SIGMA = 0.72
WIDTH_PX = 320
_SEED = 20_000_001  # far from the seeds of trainings, so that random scenes differ, too
_OVERSAMPLING = 2
_AS_DESCRIBED = Perturbation(noise=0.01, f_number=0.0, focus=0.0, shift_px=0.0, gain=0.0)


@dataclass(frozen=True)
class SigmaFit:
    """Fit of sigma: `scale`, share of errors `within` sigma before it, number of `stacks`."""

    scale: float
    within: float
    stacks: int


def calibration_stacks(rgbd: str | Path | None, count: int) -> Iterator[TrainingStack]:
    """Stacks of scenes outside training, at the size of a camera's images.

    Photos with depth of both other parts take turns, as few scenes would leave the result to chance; without photos,
    random scenes. Every other stack is taken by a random lens, which may suit the scene badly, the rest by cameras of
    the evaluation.
    """
    photos = [*Sources.find(rgbd, "calibration").rgbd, *Sources.find(rgbd, "validation").rgbd]
    for index in range(count):
        rng = np.random.default_rng((_SEED, index))
        if photos:
            # Each photo twice: once by a random lens, once by a camera of the evaluation.
            scene = load_rgbd(photos[index // 2 % len(photos)], _OVERSAMPLING * WIDTH_PX, _OVERSAMPLING)
            rgb, depth_m = scene.rgb, scene.depth_m
        else:
            width, height = _OVERSAMPLING * WIDTH_PX, _OVERSAMPLING * WIDTH_PX * 3 // 4
            near_m = math.exp(rng.uniform(-1.0, 0.5))
            made = random_scene(rng, width, height, near_m=near_m, far_m=near_m * rng.uniform(1.5, 8.0))
            rgb, depth_m = made.rgb, made.depth_m
        if index % 2 == 0:
            camera, focus = random_lens(rng, 1.0 / depth_m[np.isfinite(depth_m)], rgb.shape[0] // _OVERSAMPLING)
            pupil = random_pupil(rng)
        else:
            median_m = float(np.nanmedian(depth_m))
            suitable = [c for c in EVALUATION_CAMERAS.values() if c.min_median_depth_m <= median_m]
            setup = suitable[int(rng.integers(len(suitable)))]
            camera, focus, pupil = setup.camera, np.array(setup.focus_diopters), None
        stack = render_stack(rgb, depth_m, camera, focus, oversampling=_OVERSAMPLING, rng=rng, noise=0.0, pupil=pupil)
        middle = slice(_OVERSAMPLING // 2, None, _OVERSAMPLING)
        yield TrainingStack(stack, np.ascontiguousarray(depth_m[middle, middle], dtype=np.float32))


def fit_sigma_scale(network: LightNetwork, stacks: Iterable[TrainingStack], device: str = "cpu") -> SigmaFit:
    """Fit the factor on sigma. `network` must have its weights in float32.

    Raises ValueError without a stack of known depth.
    """
    needed = []
    network = network.to(device).eval()
    for index, rendered in enumerate(stacks):
        needed.append(_scales_needed(network, rendered, np.random.default_rng((_SEED, index)), device))
    if not needed or not sum(scales.size for scales in needed):
        raise ValueError("sigma calibration: expected 1 stack or more with known depth, received none")
    scales = np.concatenate(needed)
    scale = float(np.clip(np.quantile(scales, SHARE_WITHIN_SIGMA), 0.1, 10.0))
    return SigmaFit(scale, float(np.mean(scales <= 1.0)), len(needed))


def nearest_of(stack: FocalStack) -> float:
    """Nearest hypothesis in metres: that of the evaluation, or nearer than the nearest focus."""
    return min(NEAREST_M, 1.0 / (1.2 * float(stack.focus_diopters.max())))


def _scales_needed(
    network: LightNetwork, rendered: TrainingStack, rng: np.random.Generator, device: str
) -> NDArray[np.float32]:
    """Factor that puts the error just within sigma, of each pixel of a stack whose depth is known.

    0 for errors under the floor of sigma, which always are.
    """
    known = rendered.depth_m[np.isfinite(rendered.depth_m)]
    if known.size == 0:
        return np.empty(0, np.float32)
    stack = disturbed(rng, rendered.stack, _AS_DESCRIBED)
    depths_m = depth_hypotheses(nearest_of(stack), FARTHEST_M, HYPOTHESES)
    sample = sample_of(rng, stack, rendered.depth_m, depths_m, CostConfig())
    height, width = (n // DOWNSAMPLING * DOWNSAMPLING for n in sample.truth.shape)
    arrays = (np.ascontiguousarray(x[:, :height, :width]) for x in (sample.energy, sample.smoothed, sample.image))
    with torch.inference_mode():
        inputs = (torch.from_numpy(array)[None].to(device) for array in arrays)
        probability = network(*inputs)[0].float().cpu().numpy()
    index, spread = median_and_spread(probability)
    truth = sample.truth[:height, :width]
    levels = 1.0 / depths_m
    diopters, step = at_index(levels, index), step_at(levels, index)
    error = np.abs(diopters - at_index(levels, truth))
    counted = np.isfinite(truth)
    most = spread_in_use(error[counted], rms_px_per_diopter(stack)) / step[counted]
    deviation = np.maximum(spread[counted] - SIGMA_FLOOR, 1e-6)
    return np.asarray(np.maximum(most - SIGMA_FLOOR, 0.0) / deviation, np.float32)

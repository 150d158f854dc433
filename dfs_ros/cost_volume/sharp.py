"""All-in-focus image, from the joint sharp image of the residual cost volume."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume.cpu import joint_sharp_spectrum, to_pixels
from dfs_ros.cost_volume.problem import make_problem
from dfs_ros.cost_volume.spectra import stack_spectra
from dfs_ros.cost_volume.transfer import TransferFunctions
from dfs_ros.optics.srgb import encode_linear
from dfs_ros.system.cores import for_each, threads_for
from dfs_ros.types import FocalStack

LEVELS = 12
_SAME_DIOPTERS = 1e-6
_FARTHEST_DIOPTERS = 1e-6  # keeps the depth of a level at infinity finite
_STEPS_PER_OCTAVE = 4


def all_in_focus(
    stack: FocalStack,
    depth_m: ArrayLike,
    cost: CostConfig | None = None,
    *,
    count: int = LEVELS,
    threads: int = 0,
) -> NDArray[np.uint8]:
    """All-in-focus image, uint8 (H, W, 3) RGB (grey stacks: three equal channels).

    The joint sharp image is computed for at most `count` depths, uniform in inverse depth over the range of `depth_m`,
    and interpolated between the two nearest at each pixel. It depends on depth only where there is texture, so pixels
    without depth take that of the nearest pixel with depth.

    Parameters
    ----------
    stack
        Aligned images.
    depth_m
        (H, W) metres, NaN = unknown; all unknown = the middle focus of the stack everywhere.
    cost
        Its psf, max_coc_px, eps, padding_px and transfer_curve count, as for `residual`; None = the defaults.
    count
        Largest number of computed depths, 1 or more; time and accuracy grow with it. Three or fewer: the mean depth
        alone.
    """
    if count < 1:
        raise ValueError(f"count: expected 1 depth or more, received {count}")
    diopters = diopters_everywhere(depth_m, stack)
    low, high = float(diopters.min()), float(diopters.max())
    levels, step = levels_around(low, high, count)
    problem = make_problem(stack, 1.0 / levels, replace(cost or CostConfig(), method="residual", channels="rgb"))
    transfer = TransferFunctions(problem, keep=True)
    spectra = stack_spectra(problem)
    linear = np.zeros((problem.channel_count, *stack.size), np.float32)
    adding = threading.Lock()

    def add_level(level: int) -> None:
        weight = np.maximum(0.0, 1.0 - np.abs(diopters - levels[level]) / step).astype(np.float32)
        if not weight.any():
            return
        spectrum, _ = joint_sharp_spectrum(problem, spectra, transfer, level)
        sharp = to_pixels(spectrum, problem)
        sharp *= weight
        with adding:
            np.add(linear, sharp, out=linear)

    for_each(add_level, len(levels), threads_for(diopters.size, threads))
    image = encode_linear(np.moveaxis(linear, 0, -1), problem.cost.transfer_curve)
    return np.ascontiguousarray(np.broadcast_to(image, (*stack.size, 3)))


def levels_around(low: float, high: float, count: int) -> tuple[NDArray[np.float64], float]:
    """Inverse depths (at most `count`) around a range, and their step.

    Multiples of a step from a geometric series: the stacks of a still camera, whose ranges differ a little, have the
    same levels, and so use cached transfer functions.
    """
    if count < 4 or high - low <= _SAME_DIOPTERS:
        return np.array([(low + high) / 2]), np.inf
    least = (high - low) / (count - 2)  # the range may begin and end within a step
    step = 2.0 ** (np.ceil(_STEPS_PER_OCTAVE * np.log2(least)) / _STEPS_PER_OCTAVE)
    multiples = np.arange(np.floor(low / step), np.ceil(high / step) + 1)
    return np.maximum(multiples * step, _FARTHEST_DIOPTERS), step


def diopters_everywhere(depth_m: ArrayLike, stack: FocalStack) -> NDArray[np.float64]:
    """Inverse depth (H, W) with the gaps filled from the nearest pixel that has depth."""
    depth = np.asarray(depth_m, np.float64)
    if depth.shape != stack.size:
        raise ValueError(f"depth_m: expected shape {stack.size} to go with the images, received {depth.shape}")
    known = np.isfinite(depth)
    if (depth[known] <= 0).any():
        raise ValueError(f"depth_m: expected metres over 0 or NaN, received {depth[known].min()}")
    if not known.any():
        # Not the mean of the dioptres at infinity: the depth must be finite.
        return np.full(stack.size, max(float(np.median(stack.focus_diopters)), 1e-3))
    if not known.all():
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        depth = depth[tuple(nearest)]
    return np.asarray(1.0 / depth)

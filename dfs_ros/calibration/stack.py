"""Calibration of a lens's aperture from one stack, for `dfs calibrate`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dfs_ros.alignment.align import align
from dfs_ros.calibration.aperture import LEAST_FOCUSES, MEGAPIXELS, ApertureFit, fit_aperture, nearest_searched
from dfs_ros.config import Config
from dfs_ros.depth.scene_range import find_range, hypotheses_in, search_range
from dfs_ros.types import FocalStack, reduced


def calibrate_aperture(
    stack: FocalStack, config: Config | None = None, tried: Callable[[int], None] | None = None
) -> ApertureFit:
    """Fit the factor from described to observed blur of a stack.

    `lens.aperture_scale` of the configuration is ignored. Raises ValueError if the stack has too little texture, fewer
    than three images differ in focus, or the best factor is an end of the range 0.3 to 3.3.
    """
    config = config or Config()
    count = len(np.unique(stack.focus_diopters))
    if count < LEAST_FOCUSES:
        raise ValueError(f"calibration: expected images at {LEAST_FOCUSES} or more focus positions, received {count}")
    aligned = align(reduced(stack, MEGAPIXELS), config.alignment)
    threads = config.processing.threads
    found = find_range(aligned.stack, search_range(aligned.stack, config), config, threads)
    nearest_m = nearest_searched(stack, hypotheses_in(found, aligned.stack, config))
    fit = fit_aperture(aligned.stack, nearest_m, config.cost, threads=threads, tried=tried)
    if fit is None:
        raise ValueError(
            "calibration: hardly a pixel has texture; take a stack of a scene with detail everywhere and depth that "
            "varies"
        )
    if fit.at_limit:
        raise ValueError(
            f"calibration: the misfit still falls at an aperture scale of {fit.measured:.2f}, the "
            "last one tried; check focal length, pixel size and the unit of the focus"
        )
    return fit

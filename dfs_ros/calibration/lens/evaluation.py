"""Misfit of windows around corners as a function of lens and poses, with what one window is worth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.lens.adjust import Misfit
from dfs_ros.calibration.lens.model import Array, predict
from dfs_ros.calibration.lens.patches import Local, Patches, own_step

_OUTLIER = 9.0  # misfit of a window over the median, from which it counts less
_MEDIAN_OF_SQUARE = 0.4549  # of a normal number of variance 1
_MOST_STEP = 4.0  # medians, of the place of a window
_QUIET = 0.7  # least noise of a window, over the median of all


def evaluation(
    patches: Patches, lens: Array, poses: Array, place_temper: float, temper: float
) -> Callable[[Array, Array], Misfit]:
    """Misfit of the windows over `temper`, with the noise, the errors of place and the outliers of a first lens.

    Noise of the pixels would place a window to hundredths of a pixel, but real lenses wobble as they move. Places have
    the variance that they show, whatever `place_temper`, by which the misfit will be divided; inf = they say nothing.
    """
    size = patches.size
    first = patches.local(predict(lens, poses, patches.seen, size))
    place_px2 = _place_variance(first, patches.seen.image) / place_temper if place_temper < math.inf else math.inf
    information, score, _ = _displaced(first.information, first.score, first.cost, place_px2)
    misfit = np.einsum("ni,ni->n", score[:, :4], own_step(information, score))
    typical = float(np.median(misfit[first.valid])) if first.valid.any() else 1.0
    weights = np.minimum(1.0, np.sqrt(_OUTLIER * typical / np.maximum(misfit, 1e-9))) * first.valid / temper
    noise = np.maximum(first.noise, _QUIET * float(np.median(first.noise)))

    def evaluate(lens: Array, poses: Array) -> Misfit:
        local = patches.local(predict(lens, poses, patches.seen, size))
        ratio = (local.noise / noise) ** 2
        parts = ratio[:, None, None] * local.information, ratio[:, None] * local.score, ratio * local.cost
        information, score, cost = _displaced(*parts, place_px2)
        return Misfit(float((weights * cost).sum()), weights[:, None, None] * information, weights[:, None] * score)

    return evaluate


def _place_variance(local: Local, image: NDArray[np.intp]) -> float:
    """Variance [px^2] of the places of windows beside that by the noise of their pixels.

    Windows of an image that err together count as the fewer that would err as much: the variance is that of one, times
    the squared sum of an image's errors over the sum of their squares.
    """
    if not local.valid.any():
        return 0.0
    information = local.information[local.valid][:, :2, :2] + 1e-9 * np.eye(2)
    steps = np.linalg.solve(information, local.score[local.valid][:, :2, None])[..., 0]
    noise = np.trace(np.linalg.inv(information), axis1=1, axis2=2) / 2
    own = max(float(np.median(steps**2)) / _MEDIAN_OF_SQUARE - float(np.median(noise)), 0.0)
    most = _MOST_STEP * math.sqrt(float(np.median(steps**2)))
    steps = np.clip(steps, -most, most)
    sums = [np.bincount(image[local.valid], step) for step in steps.T]
    return own * max(float(np.square(sums).sum() / max(np.square(steps).sum(), 1e-12)), 1.0)


def _displaced(information: Array, score: Array, cost: Array, variance_px2: float) -> tuple[Array, Array, Array]:
    """Information, score and cost (N, ...) of windows whose places have a variance of their own."""
    if variance_px2 == 0.0:
        return information, score, cost
    place = information[:, :2]
    inverse = np.linalg.inv(information[:, :2, :2] + (1.0 / variance_px2 + 1e-9) * np.eye(2))
    moved = np.einsum("nij,nj->ni", inverse, score[:, :2])
    return (
        information - place.transpose(0, 2, 1) @ inverse @ place,
        score - np.einsum("nji,nj->ni", place, moved),
        cost - np.einsum("ni,ni->n", score[:, :2], moved),
    )

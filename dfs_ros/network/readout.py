"""From a probability over depth hypotheses to inverse depth and its standard deviation: the same for every method.

In units of hypotheses, with p the probability, m its peak (of p smoothed by 1/4 1/2 1/4) and w the window:

    i     = sum over |d - m| <= w of p_d d / sum of p_d           soft-argmin around the peak: a second peak cannot pull
    f     = i - floor(i)
    sigma = sqrt(pi / 2) max(sum over all d of p_d |d - i| - 2 f (1 - f), 0) + 0.02

Sigma is the mean absolute deviation, as of a Gaussian, less the least that any probability on a grid has whose mean
falls between two hypotheses; a second peak counts in it. Both become dioptres along the list of hypotheses.
:func:`peak_and_spread` here is for numpy; :func:`dfs_ros.training.loss.peak_and_spread` the same to differentiate.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_ros.regularization import first_argmax

Array = NDArray[np.float32]

WINDOW = 3
"""Hypotheses on each side of the peak that count towards the depth."""

SIGMA_PER_DEVIATION = math.sqrt(math.pi / 2.0)
SIGMA_FLOOR = 0.02


def read_out(probability: Array, depths_m: ArrayLike) -> tuple[Array, Array]:
    """Inverse depth and its standard deviation, both float32 (H, W) in dioptres.

    Parameters
    ----------
    probability
        float32 (D, H, W), adding up to 1 over D.
    depths_m
        (D,) the hypotheses in metres, strictly ascending or descending.

    Raises ValueError where the two do not belong together.
    """
    inverse = 1.0 / np.asarray(depths_m, np.float64)
    if not isinstance(probability, np.ndarray) or probability.ndim != 3 or inverse.shape != probability.shape[:1]:
        raise ValueError(
            "probability and depths_m: expected (D, H, W) and (D,), received "
            f"{getattr(probability, 'shape', type(probability).__name__)} and {inverse.shape}"
        )
    index, spread = peak_and_spread(probability)
    return at_index(inverse, index), spread * step_at(inverse, index)


def peak_and_spread(probability: Array) -> tuple[Array, Array]:
    """i and sigma of the module's text, float32 (H, W), in hypotheses."""
    depths, size = len(probability), probability.shape[1:]
    three = np.multiply(probability, np.float32(2.0))
    three[1:] += probability[:-1]
    three[:-1] += probability[1:]
    mode = first_argmax(three).ravel()
    flat, pixel = probability.reshape(depths, -1), np.arange(mode.size)  # much faster than take_along_axis
    weight = np.zeros(mode.size, np.float32)
    moment = np.zeros_like(weight)
    for offset in range(-WINDOW, WINDOW + 1):
        at = mode + offset
        p = flat[np.clip(at, 0, depths - 1), pixel] * ((at >= 0) & (at < depths))
        weight += p
        moment += p * np.float32(offset)
    index = (mode + moment / np.maximum(weight, np.float32(1e-12))).astype(np.float32).reshape(size)
    return index, spread_about(probability, index)


def spread_about(probability: Array, index: Array) -> Array:
    """sigma of the module's text about any i, float32 (H, W), in hypotheses."""
    deviation = np.zeros_like(index)
    term = np.empty_like(index)
    for d, p in enumerate(probability):
        np.subtract(index, np.float32(d), out=term)
        np.abs(term, out=term)
        term *= p
        deviation += term
    fraction = index - np.floor(index)
    excess = np.maximum(deviation - 2.0 * fraction * (1.0 - fraction), 0.0)
    return (SIGMA_PER_DEVIATION * excess + SIGMA_FLOOR).astype(np.float32)


def at_index(values: ArrayLike, index: Array) -> Array:
    """`values` (D,) at fractional indices, linear in between."""
    values = np.asarray(values)
    return np.asarray(np.interp(index, np.arange(len(values)), values), np.float32)


def step_at(values: ArrayLike, index: Array) -> Array:
    """How far apart the `values` (D,) are around fractional indices, positive."""
    steps = np.abs(np.gradient(np.asarray(values, np.float64)))
    return np.asarray(np.interp(index, np.arange(len(steps)), steps), np.float32)

"""Readout: probability over hypotheses -> inverse depth and its standard deviation.

In units of hypotheses, with p the probability, spread evenly over a cell from d - 1/2 to d + 1/2:

    i     = median: half of the probability lies on each side
    sigma = s sqrt(pi / 2) sum over d of p_d |d - i|  +  0.02

The median has the least expected absolute error of all estimates; a second, smaller peak does not pull it. Sigma is the
standard deviation of a Gaussian with this mean absolute deviation; s calibrates it on scenes outside the training. Both
are converted to dioptres along the list of hypotheses. Two neighbouring hypotheses that share all probability keep a
sigma of 0.63 s + 0.02, though the surface between them is certain: with this subtracted, the pixels of least sigma are
less accurate.

:func:`median_and_spread` here is for numpy; :mod:`dfs_ros.depth.readout_torch` has the differentiable form.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]

SIGMA_PER_DEVIATION = math.sqrt(math.pi / 2.0)
SIGMA_FLOOR = 0.02
# Chosen by likelihood (of Student's t, 4 degrees of freedom) on 22 stacks of training photos and random scenes through
# random lenses of 3 to 19 px a dioptre with 3 to 8 images and the evaluation's cameras, under ideal, lens and drive,
# rounded. Relative to the inverse depth, the superlinear term was too wide where blur is weak and too narrow where it
# is strong. Of less use: a floor in pixels of blur for all or for registered images, a common error of a moving
# camera's places.
AS_TAKEN, REGISTERED, FOLLOWED = 0.8, 1.35, 2.1
"""Error of a pixel by its spread: images used as taken, or with a scale that is told and found again, images that
registration moved, a camera that moves.

Errors of a frame's place act as noise of the image does, which the spread does not know of. For five images, see
:func:`noise_of`.
"""
_MOST_IMAGES = 9  # that reduce noise: up to 8 were tried
_SUPERLINEAR_PER_PX = 10.0
_SUPERLINEAR_MOST = 1.25  # 1 to 2 are as likely on the same stacks, all more than no limit
_DISAGREEMENT = 0.8


def read_out(probability: Array, depths_m: ArrayLike, sigma_scale: float = 1.0) -> tuple[Array, Array]:
    """Inverse depth and its standard deviation, both float32 (H, W) in dioptres.

    Parameters
    ----------
    probability
        float32 (D, H, W), adding up to 1 over D.
    depths_m
        (D,) the hypotheses in metres, strictly ascending or descending.
    sigma_scale
        s of the module's text.

    Raises ValueError for shapes that do not match.
    """
    inverse = 1.0 / np.asarray(depths_m, np.float64)
    if not isinstance(probability, np.ndarray) or probability.ndim != 3 or inverse.shape != probability.shape[:1]:
        raise ValueError(
            "probability and depths_m: expected (D, H, W) and (D,), received "
            f"{getattr(probability, 'shape', type(probability).__name__)} and {inverse.shape}"
        )
    index, spread = median_and_spread(probability, sigma_scale)
    return at_index(inverse, index), spread * step_at(inverse, index)


def sigma_in_use(
    spread: Array, px_per_diopter: float, disagreement: Array | float = 0.0, linear: float = AS_TAKEN
) -> Array:
    """Standard deviation of inverse depth (H, W) under conditions of use, without what is common to all pixels.

        sigma^2 = (linear^2 + g^2) spread^2 + (0.8 disagreement)^2
        g^-2    = (10 spread px_per_diopter)^-2 + 1.25^-2

    `px_per_diopter`: blur diameter of the stack by a dioptre; `disagreement` (H, W) in dioptres: distance of the
    inverse depth, by the network, from the minimum of the optimised energy. Where these differ one is wrong, however
    narrow the probability. The more pixels of blur a pixel leaves open, the more an unknown point spread function,
    motion and the neighbours decide it: the error grows faster than the spread, up to a tenth of a pixel. Beyond, where
    blur leaves nearly everything open, and beside jumps, the spread is wide enough.
    """
    factor = np.float32(_SUPERLINEAR_PER_PX * px_per_diopter) * spread
    factor /= np.sqrt(1.0 + np.square(factor / np.float32(_SUPERLINEAR_MOST)))
    own = spread * np.hypot(np.float32(linear), factor)
    return np.asarray(np.hypot(own, np.float32(_DISAGREEMENT) * disagreement), np.float32)


def noise_of(images: int) -> float:
    """Noise of a cost by its number of images, two or more, with that of five as unit: ``sqrt(4 / (images - 1))``.

    Nine images at most count. The network knows no number of images.
    """
    return math.sqrt(4.0 / (min(images, _MOST_IMAGES) - 1))


def spread_in_use(sigma: Array, px_per_diopter: float) -> Array:
    """Spread whose :func:`sigma_in_use` of images as taken, without disagreement, is `sigma`, for calibration."""
    # With u = spread^2, v = sigma^2, l = linear^2, a = (10 px_per_diopter)^2, k = a / 1.25^2:
    # u (l + a u / (1 + k u)) = v, a quadratic in u.
    variance = np.square(np.asarray(sigma, np.float64))
    steep = (_SUPERLINEAR_PER_PX * px_per_diopter) ** 2
    bend = steep / _SUPERLINEAR_MOST**2
    square, half = AS_TAKEN**2 * bend + steep, 0.5 * (AS_TAKEN**2 - variance * bend)
    root = np.sqrt(half * half + square * variance)
    return np.asarray(np.sqrt(np.where(half > 0, variance / (half + root), (root - half) / square)), np.float32)


def median_and_spread(probability: Array, sigma_scale: float = 1.0) -> tuple[Array, Array]:
    """i and sigma of the module's text, float32 (H, W), in hypotheses."""
    last = len(probability) - 1
    cell = np.zeros(probability.shape[1:], np.int16)  # hypothesis of the median
    total = np.zeros(probability.shape[1:], np.float32)
    for p in probability[:-1]:
        total += p
        cell += total < 0.5
    total += probability[-1]
    before = np.zeros_like(total)  # probability of the hypotheses before it, and its first moment
    before_moment = np.zeros_like(total)
    for d in range(last):
        p = probability[d] * (cell > d)
        before += p
        p *= np.float32(d)
        before_moment += p
    moment = np.tensordot(np.arange(last + 1, dtype=np.float32), probability, axes=1)

    inside = np.take_along_axis(probability, cell[None].astype(np.intp), axis=0)[0]
    position = cell.astype(np.float32)
    half = np.clip((0.5 - before) / np.maximum(inside, np.float32(1e-12)), 0.0, 1.0)
    index = np.clip(position + half - 0.5, 0.0, last).astype(np.float32)
    after = total - before - inside
    after_moment = moment - before_moment - position * inside
    deviation = index * before - before_moment + inside * np.abs(position - index) + after_moment - index * after
    return index, (sigma_scale * SIGMA_PER_DEVIATION * deviation + SIGMA_FLOOR).astype(np.float32)


def at_index(values: ArrayLike, index: Array) -> Array:
    """`values` (D,) at fractional indices, linear in between."""
    values = np.asarray(values)
    return np.asarray(np.interp(index, np.arange(len(values)), values), np.float32)


def step_at(values: ArrayLike, index: Array) -> Array:
    """Local step of `values` (D,) at fractional indices, positive."""
    steps = np.abs(np.gradient(np.asarray(values, np.float64)))
    return np.asarray(np.interp(index, np.arange(len(steps)), steps), np.float32)

"""Depth hypotheses, and interpolation of the costs between them.

Near the true depth the `residual` cost is about a parabola of inverse depth: blur differs in proportion, misfit in
proportion to that, and the cost is its square. So a cubic spline through the costs of a few hypotheses gives the costs
in between: with half as many computed hypotheses, depth is nearly as accurate. The logarithm of the cost, which later
steps use, has a sharp dip there instead, which a spline cannot follow.

    fine(x) = max(spline through (1 / depth, cost) at x, a quarter of the lesser of the two costs beside x)

The bound prevents false minima of the spline, which may swing below 0 at sharp bends of the costs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import Config

if TYPE_CHECKING:
    from torch import Tensor


Volume = NDArray[np.float32]

_LEAST_SHARE = 0.25


def depth_hypotheses(
    min_depth_m: float, max_depth_m: float, count: int, spacing: str = "inverse"
) -> NDArray[np.float64]:
    """Depth hypotheses (count,) in metres, near to far, uniform in inverse depth or depth."""
    if not (0 < min_depth_m < max_depth_m) or count < 2:
        raise ValueError(
            f"hypotheses: expected 0 < min < max and 2 or more, received {min_depth_m} to {max_depth_m} m, {count}"
        )
    if spacing == "linear":
        return np.linspace(min_depth_m, max_depth_m, count)
    return 1.0 / np.linspace(1.0 / min_depth_m, 1.0 / max_depth_m, count)


@dataclass(frozen=True, eq=False)
class Subdivision:
    """Finer hypotheses: `parts` for every step of the computed ones.

    `depths_m` (N,) in metres, float64; `weights` float32 (N, D): costs there = weights times the computed costs.
    """

    parts: int
    depths_m: NDArray[np.float64]
    weights: Volume


def fine_count(count: int, least: int) -> int:
    """Number of hypotheses after subdivision to at least `least`."""
    return (count - 1) * _parts(count, least) + 1


def subdivision(depths_m: NDArray[np.float64], least: int) -> Subdivision | None:
    """Subdivision of every step into the fewest parts that make `least` hypotheses.

    None if no subdivision is needed.

    `depths_m`: (D,) two or more, strictly ascending or descending.
    """
    parts = _parts(len(depths_m), least)
    if parts == 1:
        return None
    inverse = 1.0 / np.asarray(depths_m, np.float64)
    steps = np.arange((len(inverse) - 1) * parts + 1) / parts
    fine = np.interp(steps, np.arange(len(inverse)), inverse)
    rising = np.sign(inverse[1] - inverse[0])
    weights = _spline_weights(rising * inverse, rising * fine)
    weights[::parts] = np.eye(len(inverse))  # exactly
    return Subdivision(parts, 1.0 / fine, np.asarray(weights, np.float32))


def _spline_weights(knots: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (len(at), len(knots)) of the cubic spline through values at ascending knots, not-a-knot at its ends.

    As scipy.interpolate.CubicSpline, whose import takes a third of the start of a node. Of three knots a parabola, of
    two a line. The unknowns are the second derivatives at the knots (de Boor, A Practical Guide to Splines, IV).
    """
    count, width = len(knots), np.diff(knots)
    values, curved, rows = np.eye(count), np.eye(count), np.zeros((count, count))
    for i in range(1, count - 1):
        before, after = width[i - 1], width[i]
        curved[i, i - 1 : i + 2] = before / 6, (before + after) / 3, after / 6
        rows[i] = (values[i + 1] - values[i]) / after - (values[i] - values[i - 1]) / before
    if count == 3:
        curved[0, 1] = curved[2, 1] = -1.0
    elif count > 3:
        curved[0, :3] = -1 / width[0], 1 / width[0] + 1 / width[1], -1 / width[1]
        curved[-1, -3:] = -1 / width[-2], 1 / width[-2] + 1 / width[-1], -1 / width[-1]
    second = np.linalg.solve(curved, rows)
    left = np.clip(np.searchsorted(knots, at, "right") - 1, 0, count - 2)
    right = left + 1
    upper = ((at - knots[left]) / width[left])[:, None]
    lower, square = 1.0 - upper, (width[left] ** 2)[:, None] / 6
    straight = lower * values[left] + upper * values[right]
    return np.asarray(straight + square * ((lower**3 - lower) * second[left] + (upper**3 - upper) * second[right]))


def subdivision_for(config: Config, depths_m: NDArray[np.float64]) -> Subdivision | None:
    """Subdivision for an estimator with this configuration."""
    return subdivision(depths_m, config.hypotheses.interpolate_to if config.cost.method == "residual" else 0)


def subdivided(cost: Volume, into: Subdivision) -> Volume:
    """Interpolate a cost volume, float32 (D, H, W), to (N, H, W). Formula in the module's text."""
    fine = (into.weights @ cost.reshape(len(cost), -1)).reshape(-1, *cost.shape[1:])
    for step, (before, after) in enumerate(itertools.pairwise(cost)):
        bound = np.minimum(before, after)
        bound *= np.float32(_LEAST_SHARE)
        part = fine[step * into.parts : (step + 1) * into.parts]
        np.maximum(part, bound, out=part)
    return fine


def subdivided_tensor(cost: Tensor, weights: Tensor, parts: int) -> Tensor:
    """:func:`subdivided` of tensors on any device; `weights` and `parts` as in :class:`Subdivision`."""
    fine = (weights @ cost.flatten(1)).view(-1, *cost.shape[1:])
    bound = cost[:-1].minimum(cost[1:]).mul_(_LEAST_SHARE).repeat_interleave(parts, dim=0)
    fine[:-1] = fine[:-1].maximum(bound)
    return fine


def _parts(count: int, least: int) -> int:
    return max(1, -(-(least - 1) // (count - 1)))

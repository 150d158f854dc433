"""Least squares over lens and poses: priors, normal equations, Levenberg-Marquardt, covariance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.lens.model import INDEX, NAMES, Observations, jacobian

Array = NDArray[np.float64]

_MOST_DAMPING = 1e8
_SAME = 1e-5  # relative decrease of the misfit that ends an adjustment
_LENS = len(NAMES)


@dataclass(frozen=True, eq=False)
class Prior:
    """Mean and standard deviation of each parameter of the lens, (22,) each; poses have none."""

    mean: Array
    sigma: Array

    def cost(self, lens: Array) -> float:
        """Squared deviation in standard deviations."""
        return float((((lens - self.mean) / self.sigma) ** 2).sum())


def stated_prior(size: tuple[int, int]) -> Prior:
    """What cameras are like, for all that images do not determine; over the field, half a diagonal off the axis."""
    height, width = size
    known = {
        "log_fx": (math.log(0.9 * max(size)), 0.35),
        "cx_px": ((width - 1) / 2, 0.04 * max(size)),
        "cy_px": ((height - 1) / 2, 0.04 * max(size)),
        "k1": (0.0, 0.2),
        "k2": (0.0, 0.2),
        "breathing1": (0.0, 0.04),
        "breathing2": (0.0, 0.01),
        "focus0": (3.0, 10.0),
        "focus1": (0.0, 10.0),
        "focus2": (0.0, 0.5),
        "hysteresis": (0.0, 0.05),
        "curvature": (0.0, 0.5),
        "tilt_x": (0.0, 0.3),
        "tilt_y": (0.0, 0.3),
        "log_aperture": (math.log(0.0025), 0.6),
        "vignetting": (0.15, 0.2),
        "softness_px2": (0.3, 0.5),
        "softness_edge_px2": (0.1, 0.5),
        "aberration": (0.0, 0.25),
        "sharpening": (0.0, 0.5),
        "tone": (0.0, 0.3),
        "ink_mm": (0.0, 0.15),
    }
    values = np.array([known[name] for name in NAMES])
    return Prior(values[:, 0], values[:, 1])


@dataclass(frozen=True, eq=False)
class Misfit:
    """Misfit of all observations at some lens: `cost` is its sum; per row, information (N, 8, 8) and score (N, 8)."""

    cost: float
    information: Array
    score: Array


@dataclass(frozen=True, eq=False)
class Normal:
    """Normal equations of lens and poses, (22 + 6 P): of the data alone, and the rows' scores (N, 28)."""

    hessian: Array
    gradient: Array
    rows: Array


def normal(lens: Array, poses: Array, seen: Observations, size: tuple[int, int], misfit: Misfit) -> Normal:
    """Sum the rows' information and scores over lens and poses."""
    by_lens, by_pose = jacobian(lens, poses, seen, size)
    rows = np.concatenate([by_lens, by_pose], 2)
    weighted = misfit.information @ rows
    squares = rows.transpose(0, 2, 1) @ weighted
    scores = np.einsum("nij,ni->nj", rows, misfit.score)
    count = _LENS + 6 * len(poses)
    hessian, gradient = np.zeros((count, count)), np.zeros(count)
    hessian[:_LENS, :_LENS] = squares[:, :_LENS, :_LENS].sum(0)
    gradient[:_LENS] = scores[:, :_LENS].sum(0)
    for pose in range(len(poses)):
        own, place = seen.pose == pose, slice(_LENS + 6 * pose, _LENS + 6 * pose + 6)
        total = squares[own].sum(0)
        hessian[place, place] = total[_LENS:, _LENS:]
        hessian[:_LENS, place], hessian[place, :_LENS] = total[:_LENS, _LENS:], total[_LENS:, :_LENS]
        gradient[place] = scores[own, _LENS:].sum(0)
    return Normal(hessian, gradient, scores)


def adjust(
    lens: Array,
    poses: Array,
    seen: Observations,
    size: tuple[int, int],
    prior: Prior,
    evaluate: Callable[[Array, Array], Misfit],
    iterations: int,
    fixed: tuple[str, ...] = (),
    advanced: Callable[[], None] | None = None,
) -> tuple[Array, Array]:
    """Lens and poses of least misfit and prior, from a start near enough. `fixed`: parameters that stay."""
    free = np.ones(_LENS + 6 * len(poses), bool)
    free[[INDEX[name] for name in fixed]] = False
    misfit = evaluate(lens, poses)
    cost = misfit.cost + prior.cost(lens)
    damping = 1e-4
    for _ in range(iterations):
        equations = normal(lens, poses, seen, size, misfit)
        hessian, gradient = equations.hessian.copy(), equations.gradient.copy()
        own = np.arange(_LENS)
        hessian[own, own] += 1.0 / prior.sigma**2
        gradient[:_LENS] += (prior.mean - lens) / prior.sigma**2
        before = cost
        while damping < _MOST_DAMPING:
            damped = hessian + np.diag(damping * np.maximum(np.diag(hessian), 1e-12))
            step = np.zeros(len(free))
            step[free] = np.linalg.solve(damped[np.ix_(free, free)], gradient[free])
            new_lens, new_poses = lens + step[:_LENS], poses + step[_LENS:].reshape(-1, 6)
            new = evaluate(new_lens, new_poses)
            new_cost = new.cost + prior.cost(new_lens)
            if new_cost <= cost:
                lens, poses, misfit, cost = new_lens, new_poses, new, new_cost
                damping = max(damping / 10.0, 1e-9)
                break
            damping *= 10.0
        if advanced is not None:
            advanced()
        if before - cost <= _SAME * abs(before):
            break
    return lens, poses


def temper_of(equations: Normal, seen: Observations, prior: Prior) -> float:
    """Factor t by which the misfit of the blur overstates what it knows, at least 1.

    With the hessian A of the data, P of the prior and B the spread of the scores, all of focus and blur alone,
    ``t = tr((A + P)^-1 B) / tr((A + P)^-1 A)``.
    """
    own = slice(INDEX["focus0"], _LENS)
    hessian = equations.hessian[own, own]
    inverse = np.linalg.inv(hessian + np.diag(1.0 / prior.sigma[own] ** 2))
    used = float(np.trace(inverse @ hessian))
    spread = _spread(equations, seen, used)[own, own]
    return max(1.0, float(np.trace(inverse @ spread)) / max(used, 1e-12))


def tempered_covariance(equations: Normal, seen: Observations, prior: Prior, temper: float) -> Array:
    """Covariance of lens and poses.

    With the hessian A of the data, P of the prior, B the spread of the scores and the factor t of :func:`temper_of`, it
    is the sandwich

        (A / t + P)^-1 (B / t^2 + P) (A / t + P)^-1
    """
    count = len(equations.gradient)
    precision = np.zeros(count)
    precision[:_LENS] = 1.0 / prior.sigma**2
    inverse = np.linalg.inv(equations.hessian + np.diag(precision))
    spread = _spread(equations, seen, float(np.trace(inverse @ equations.hessian)))
    inverse = np.linalg.inv(equations.hessian / temper + np.diag(precision))
    covariance = inverse @ (spread / temper**2 + np.diag(precision)) @ inverse
    return np.asarray((covariance + covariance.T) / 2)


def _spread(equations: Normal, seen: Observations, used: float) -> Array:
    """Sum over clusters of their scores' products, for `used` parameters.

    Clusters are images, and corners of a pose, whose errors are alike in all images (two-way clustering, Cameron,
    Gelbach and Miller 2011), of which no direction counts less than by images alone. Of m images, the sum counts
    m / (m - parameters) times.
    """
    corner = np.unique(np.c_[seen.pose, seen.board_m], axis=0, return_inverse=True)[1].ravel()
    spread = _clustered(equations, seen, seen.image)
    spread += _positive(_clustered(equations, seen, corner) - _clustered(equations, seen, np.arange(len(seen))))
    images = len(np.unique(seen.image))
    return spread * images / max(images - used, 0.25 * images)


def _positive(matrix: Array) -> Array:
    """Nearest positive semidefinite matrix, in units of the roots of its diagonal."""
    unit = np.sqrt(np.maximum(np.abs(np.diag(matrix)), 1e-300))
    values, vectors = np.linalg.eigh(matrix / np.outer(unit, unit))
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T * np.outer(unit, unit))


def _clustered(equations: Normal, seen: Observations, cluster: NDArray[np.intp]) -> Array:
    """Sum over clusters of the products of their scores."""
    count = len(equations.gradient)
    scores = np.zeros((int(cluster.max()) + 1, count))
    np.add.at(scores[:, :_LENS], cluster, equations.rows[:, :_LENS])
    for k in range(6):
        np.add.at(scores, (cluster, _LENS + 6 * seen.pose + k), equations.rows[:, _LENS + k])
    return np.asarray(scores.T @ scores)

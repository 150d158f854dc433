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
    """Mean and standard deviation of each parameter of the lens, (18,) each; poses have none."""

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
    }
    values = np.array([known[name] for name in NAMES])
    return Prior(values[:, 0], values[:, 1])


@dataclass(frozen=True, eq=False)
class Misfit:
    """Misfit of all observations at some lens: `cost` is its sum; per row, information (N, 4, 4) and score (N, 4)."""

    cost: float
    information: Array
    score: Array


@dataclass(frozen=True, eq=False)
class Normal:
    """Normal equations of lens and poses, (18 + 6 P): of the data alone, and the rows' derivatives (N, 4, 24)."""

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


def tempered_covariance(equations: Normal, seen: Observations, prior: Prior) -> tuple[Array, float]:
    """Covariance of lens and poses, and the factor by which the misfit overstates what it knows.

    With the hessian A of the data, P of the prior and B the sum over clusters of their scores' products, the factor is
    t = tr((A + P)^-1 B) / tr((A + P)^-1 A), at least 1, and the covariance is the sandwich

        (A / t + P)^-1 (k B / t^2 + P) (A / t + P)^-1

    Clusters are images, and corners of a pose, whose errors are alike in all images (two-way clustering, Cameron,
    Gelbach and Miller 2011), of which no direction counts less than by images alone; k = m / (m - parameters) for m
    images.
    """
    count = len(equations.gradient)
    precision = np.zeros(count)
    precision[:_LENS] = 1.0 / prior.sigma**2
    corner = np.unique(np.c_[seen.pose, seen.board_m], axis=0, return_inverse=True)[1].ravel()
    spread = _clustered(equations, seen, seen.image)
    spread += _positive(_clustered(equations, seen, corner) - _clustered(equations, seen, np.arange(len(seen))))
    inverse = np.linalg.inv(equations.hessian + np.diag(precision))
    used = float(np.trace(inverse @ equations.hessian))
    images = len(np.unique(seen.image))
    few = images / max(images - used, 0.25 * images)
    temper = max(1.0, few * float(np.trace(inverse @ spread)) / used)
    inverse = np.linalg.inv(equations.hessian / temper + np.diag(precision))
    covariance = inverse @ (few * spread / temper**2 + np.diag(precision)) @ inverse
    return (covariance + covariance.T) / 2, temper


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

"""Scores of the default estimator in use: dense, with confidence, sure and wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dfs_research.evaluation.in_use import UsedStack
from dfs_research.evaluation.uncertainty import within_sigma
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.scoring import metrics
from dfs_ros.types import DepthResult

Values = dict[str, float | str | list[str]]
WRONG_RELATIVE, WRONG_SIGMAS = 0.1, 3.0
"""Depth is sure and wrong if its error is over this share of the truth and over this many sigma."""

Depth = NDArray[np.float32]
Velocity = NDArray[np.float64]
"""(3,) in m/s: right, down, forward."""
WAYS = {"sideways": 0, "forward": 2}
"""Axes of a velocity that are scored: `sideways_error`, `sideways_pull`, ..."""


def scored(estimator: DepthEstimator, used: UsedStack) -> Values:
    """All measures of the estimator's result on a stack.

    A refused stack counts as one without depth: coverage 0, the reason under `refused`.
    """
    try:
        result = estimator.estimate(used.stack, reference=used.reference, sharpen=False)
    except ValueError as error:
        return {**_nothing(), "refused": str(error)}
    measured = _measured(result, used.depth_m) | _ego_motion(result, used.velocity_m_s)
    return {**measured, "refused": "", "warnings": list(result.report["warnings"])}


def _measured(result: DepthResult, truth_m: Depth) -> dict[str, float]:
    dense_m, dense_sigma_m = result.dense_depth_m, result.dense_sigma_m
    if dense_m is None or dense_sigma_m is None:
        raise ValueError("result: expected dense depth beside the depth, received none")
    known = np.isfinite(truth_m) & (truth_m > 0)
    values = {f"dense_{name}": value for name, value in _accuracy(dense_m, dense_sigma_m, truth_m).items()}
    values |= _accuracy(result.depth_m, result.sigma_m, truth_m)
    return values | {
        "sure_and_wrong": sure_and_wrong(result.depth_m, result.sigma_m, truth_m),
        "pixels": float(known.sum()),
    }


def _ego_motion(result: DepthResult, true_m_s: Velocity) -> dict[str, float]:
    """Error of the velocity over the true one, and over its standard deviation, sideways and forward.

    NaN where none is told, or the camera does not move that way.
    """
    motion = result.report["motion"]
    told = motion["velocity_m_s"] or [math.nan] * 3
    variance = np.diag(np.reshape(motion["covariance_m2_s2"] or [math.nan] * 9, (3, 3)))
    values = {}
    for way, axis in WAYS.items():
        true = float(true_m_s[axis]) or math.nan
        values[f"{way}_error"] = abs(told[axis] / true - 1.0)
        values[f"{way}_pull"] = (told[axis] - true) / math.sqrt(variance[axis])
    return values


def sure_and_wrong(depth_m: Depth, sigma_m: Depth, truth_m: Depth) -> float:
    """Share of known pixels with an error over 10 % and over 3 sigma."""
    known = np.isfinite(truth_m) & (truth_m > 0)
    error = np.abs(depth_m - truth_m)
    wrong = known & (error > WRONG_RELATIVE * truth_m) & (error > WRONG_SIGMAS * sigma_m)  # NaN is neither
    return float(wrong.sum() / known.sum()) if known.any() else math.nan


def _accuracy(depth_m: Depth, sigma_m: Depth, truth_m: Depth) -> dict[str, float]:
    found = np.isfinite(depth_m) & np.isfinite(truth_m) & (truth_m > 0)
    share: Callable[[NDArray[np.floating]], float] = lambda x: float(np.median(x)) if x.size else math.nan  # noqa: E731
    return {
        "abs_rel": metrics.abs_rel(depth_m, truth_m),
        "rmse": metrics.rmse(depth_m, truth_m),
        "delta_1.25": metrics.delta(depth_m, truth_m),
        "coverage": metrics.coverage(depth_m, truth_m),
        "median": share(np.abs(depth_m - truth_m)[found] / truth_m[found]),
        "bias": share((depth_m - truth_m)[found] / truth_m[found]),
        "within_1": within_sigma(depth_m, truth_m, sigma_m, 1.0),
        "within_2": within_sigma(depth_m, truth_m, sigma_m, 2.0),
        "relative_sigma": share(sigma_m[found] / depth_m[found]),
    }


def _nothing() -> Values:
    nan = np.full((1, 1), np.nan, np.float32)
    none = {**_accuracy(nan, nan, np.ones((1, 1), np.float32)), "coverage": 0.0}
    dense: Values = {f"dense_{name}": value for name, value in none.items()}
    ego = {f"{way}_{what}": math.nan for way in WAYS for what in ("error", "pull")}
    return {**dense, **none, **ego, "sure_and_wrong": 0.0, "pixels": 0.0, "warnings": []}

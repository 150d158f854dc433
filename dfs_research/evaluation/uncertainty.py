"""Quality of sigma: sparsification and calibration.

All functions take predicted depth, true depth and the prediction's standard deviation in metres, arrays of one shape.
A pixel counts if all three are finite and depth is over 0; without such pixels the result is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Depth = NDArray[np.floating]
Curve = NDArray[np.float64]

REMOVED = np.linspace(0.0, 0.95, 20)
"""Shares of pixels removed along a sparsification curve."""
CALIBRATION_LEVELS = np.linspace(0.05, 0.95, 19)
"""Nominal shares of errors within an interval, for the calibration curve."""


@dataclass(frozen=True, eq=False)
class Sparsification:
    """Sparsification curves: error of the remaining pixels, least certain removed first.

    `oracle` removes the largest errors first. Float64, one value for each of REMOVED, relative to the error of all
    pixels, so both start at 1. `area` is the area between them (AUSE).
    """

    by_sigma: Curve
    oracle: Curve

    @property
    def area(self) -> float:
        """Mean over REMOVED of by_sigma - oracle; 0 if sigma sorts pixels as their errors do."""
        return float(np.mean(self.by_sigma - self.oracle))


def sparsification(predicted_m: Depth, true_m: Depth, sigma_m: Depth) -> Sparsification:
    """Sparsification curves of the relative error.

    Error ``|p - t| / t``; pixels sorted by relative sigma, ``sigma / p``. Ilg et al., "Uncertainty Estimates and
    Multi-Hypotheses Networks for Optical Flow", ECCV 2018, section 5. NaN without counted pixels or without any error.
    """
    predicted, true, sigma = _counted(predicted_m, true_m, sigma_m)
    error = np.abs(predicted - true) / true
    if not error.size or not error.any():
        nothing = np.full(len(REMOVED), np.nan)
        return Sparsification(nothing, nothing)
    return Sparsification(_curve(error, sigma / predicted), _curve(error, error))


def ause(predicted_m: Depth, true_m: Depth, sigma_m: Depth) -> float:
    """Area between the sparsification curves, see :func:`sparsification`."""
    return sparsification(predicted_m, true_m, sigma_m).area


def within_sigma(predicted_m: Depth, true_m: Depth, sigma_m: Depth, sigmas: float = 1.0) -> float:
    """Share of errors ``|p - t| <= sigmas sigma``; 0.683 for one sigma of a Gaussian."""
    predicted, true, sigma = _counted(predicted_m, true_m, sigma_m)
    return float(np.mean(np.abs(predicted - true) <= sigmas * sigma)) if true.size else float("nan")


def calibration_curve(predicted_m: Depth, true_m: Depth, sigma_m: Depth) -> Curve:
    """Share of errors within the Gaussian interval of each of CALIBRATION_LEVELS.

    Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", ICML 2018. The diagonal is
    ideal; above it sigma is too large, below it too small.
    """
    from scipy.special import erfinv

    predicted, true, sigma = _counted(predicted_m, true_m, sigma_m)
    if not true.size:
        return np.full(len(CALIBRATION_LEVELS), np.nan)
    deviations = np.sort(np.abs(predicted - true) / np.maximum(sigma, 1e-12))
    promised = np.sqrt(2.0) * erfinv(CALIBRATION_LEVELS)
    return np.asarray(np.searchsorted(deviations, promised, side="right") / deviations.size, np.float64)


def rmse_surest(
    predicted_m: Depth, true_m: Depth, sigma_m: Depth, share: float = 0.8, *, relative: bool = True
) -> float:
    """RMSE in metres of the `share` of pixels with the least sigma.

    `relative` sorts by sigma / depth, the certainty at a pixel's distance; otherwise by sigma in metres, the unit of
    RMSE.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: expected over 0, at most 1, received {share}")
    predicted, true, sigma = _counted(predicted_m, true_m, sigma_m)
    if not true.size:
        return float("nan")
    doubt = sigma / predicted if relative else sigma
    kept = doubt <= np.quantile(doubt, share)
    return float(np.sqrt(np.mean((predicted - true)[kept] ** 2)))


def all_uncertainty_metrics(predicted_m: Depth, true_m: Depth, sigma_m: Depth | None) -> dict[str, float]:
    """Scalar measures of this module by name; NaN without sigma."""
    if sigma_m is None:
        sigma_m = np.full(np.shape(predicted_m), np.nan)
    return {
        "within_sigma": within_sigma(predicted_m, true_m, sigma_m),
        "rmse_surest": rmse_surest(predicted_m, true_m, sigma_m),
        "rmse_surest_metres": rmse_surest(predicted_m, true_m, sigma_m, relative=False),
        "ause": ause(predicted_m, true_m, sigma_m),
    }


def _curve(error: Curve, doubt: Curve) -> Curve:
    """Mean error after removing the share REMOVED with most `doubt`, over that of all."""
    sums = np.cumsum(error[np.argsort(doubt, kind="stable")])
    left = np.maximum(1, np.round((1.0 - REMOVED) * error.size).astype(np.intp))
    return np.asarray(sums[left - 1] / left / (sums[-1] / error.size), np.float64)


def _counted(predicted_m: Depth, true_m: Depth, sigma_m: Depth) -> tuple[Curve, Curve, Curve]:
    predicted, true, sigma = (np.asarray(x, np.float64) for x in (predicted_m, true_m, sigma_m))
    if not predicted.shape == true.shape == sigma.shape:
        raise ValueError(
            f"depth maps: expected one shape, received predicted {predicted.shape}, true {true.shape}, "
            f"sigma {sigma.shape}"
        )
    counted = np.isfinite(predicted) & (predicted > 0) & np.isfinite(true) & (true > 0) & np.isfinite(sigma)
    return predicted[counted], true[counted], sigma[counted]

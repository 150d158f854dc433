"""Error measures of depth maps, as in the literature on focus and monocular depth.

All take predicted and true depth in metres, arrays of one shape, and an optional mask. A pixel counts if it is in the
mask and both depths are finite and over 0. Without counted pixels the result is NaN. `coverage` is the share of counted
pixels, which belongs beside every other number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Depth = NDArray[np.floating]
Mask = NDArray[np.bool_]


def mae(predicted_m: Depth, true_m: Depth, mask: Mask | None = None) -> float:
    """Mean absolute error in metres, ``mean |p - t|``."""
    predicted, true = _counted(predicted_m, true_m, mask)
    return _mean(np.abs(predicted - true))


def rmse(predicted_m: Depth, true_m: Depth, mask: Mask | None = None) -> float:
    """Root mean square error in metres, ``sqrt(mean (p - t)^2)``."""
    predicted, true = _counted(predicted_m, true_m, mask)
    return float(np.sqrt(_mean((predicted - true) ** 2)))


def abs_rel(predicted_m: Depth, true_m: Depth, mask: Mask | None = None) -> float:
    """Mean absolute relative error, ``mean |p - t| / t``."""
    predicted, true = _counted(predicted_m, true_m, mask)
    return _mean(np.abs(predicted - true) / true)


def median_abs_rel(predicted_m: Depth, true_m: Depth, mask: Mask | None = None) -> float:
    """Median absolute relative error, ``median |p - t| / t``."""
    predicted, true = _counted(predicted_m, true_m, mask)
    return float(np.median(np.abs(predicted - true) / true)) if true.size else float("nan")


def delta(predicted_m: Depth, true_m: Depth, threshold: float = 1.25, mask: Mask | None = None) -> float:
    """Share of counted pixels within a factor, ``mean [max(p / t, t / p) < threshold]``."""
    if not threshold > 1:
        raise ValueError(f"threshold: expected a factor over 1, received {threshold}")
    predicted, true = _counted(predicted_m, true_m, mask)
    return _mean(np.maximum(predicted / true, true / predicted) < threshold)


def sc_inv(predicted_m: Depth, true_m: Depth, mask: Mask | None = None) -> float:
    """Scale-invariant error (Eigen et al. 2014).

    ``sqrt(mean z^2 - (mean z)^2)`` with ``z = log p - log t``; 0 for a prediction right up to one factor.
    """
    predicted, true = _counted(predicted_m, true_m, mask)
    return float(np.std(np.log(predicted) - np.log(true))) if true.size else float("nan")


def ssitrim(predicted_m: Depth, true_m: Depth, mask: Mask | None = None, trim: float = 0.2) -> float:
    """Scale- and shift-invariant error in inverse depth, trimmed (Ranftl et al. 2020, eq. 5 to 7).

    Inverse depths x of prediction and truth are each normalised to ``(x - median x) / mean |x - median x|``; the
    result is ``sum of the smallest (1 - trim) share of |p - t| / (2 M)``, M the number of pixels. NaN where either is
    constant.
    """
    if not 0 <= trim < 1:
        raise ValueError(f"trim: expected a share of 0 or more, under 1, received {trim}")
    predicted, true = _counted(predicted_m, true_m, mask)
    if not true.size:
        return float("nan")
    residual = np.sort(np.abs(_normalised(1.0 / predicted) - _normalised(1.0 / true)))
    kept = residual[: max(1, round((1.0 - trim) * residual.size))]
    return float(kept.sum() / (2.0 * residual.size))


def blur_error_px(predicted_m: Depth, true_m: Depth, px_per_diopter: float, mask: Mask | None = None) -> float:
    """Mean error in pixels of blur diameter between true and predicted depth.

    ``px_per_diopter mean |1 / p - 1 / t|``: blur is linear in inverse depth, so this is the error in the quantity that
    the lens shows, comparable between cameras. `px_per_diopter` is the mean of
    :func:`dfs_ros.optics.thin_lens.coc_px_per_diopter` over the frames.
    """
    if not px_per_diopter > 0:
        raise ValueError(f"px_per_diopter: expected pixels over 0, received {px_per_diopter}")
    predicted, true = _counted(predicted_m, true_m, mask)
    return px_per_diopter * _mean(np.abs(1.0 / predicted - 1.0 / true))


def coverage(predicted_m: Depth, true_m: Depth, mask: Mask | None = None) -> float:
    """Share of the masked pixels with known truth that have a prediction."""
    predicted, true, wanted = _checked(predicted_m, true_m, mask)
    wanted = wanted & _known(true)
    return _mean(_known(predicted)[wanted])


def all_metrics(predicted_m: Depth, true_m: Depth, mask: Mask | None = None) -> dict[str, float]:
    """Every measure of this module by name."""
    return {
        "mae": mae(predicted_m, true_m, mask),
        "rmse": rmse(predicted_m, true_m, mask),
        "abs_rel": abs_rel(predicted_m, true_m, mask),
        "median_abs_rel": median_abs_rel(predicted_m, true_m, mask),
        "delta_1.05": delta(predicted_m, true_m, 1.05, mask),
        "delta_1.25": delta(predicted_m, true_m, 1.25, mask),
        "sc_inv": sc_inv(predicted_m, true_m, mask),
        "ssitrim": ssitrim(predicted_m, true_m, mask),
        "coverage": coverage(predicted_m, true_m, mask),
    }


def _known(depth_m: Depth) -> Mask:
    return np.isfinite(depth_m) & (depth_m > 0)


def _checked(predicted_m: Depth, true_m: Depth, mask: Mask | None) -> tuple[Depth, Depth, Mask]:
    predicted, true = np.asarray(predicted_m, np.float64), np.asarray(true_m, np.float64)
    counted = np.ones(true.shape, bool) if mask is None else np.asarray(mask)
    if counted.dtype != bool:
        raise TypeError(f"mask: expected bool, received {counted.dtype}")
    if not predicted.shape == true.shape == counted.shape:
        raise ValueError(
            f"depth maps: expected one shape, received predicted {predicted.shape}, true {true.shape}, "
            f"mask {counted.shape}"
        )
    return predicted, true, counted


def _counted(predicted_m: Depth, true_m: Depth, mask: Mask | None) -> tuple[Depth, Depth]:
    predicted, true, counted = _checked(predicted_m, true_m, mask)
    counted = counted & _known(predicted) & _known(true)
    return predicted[counted], true[counted]


def _mean(values: NDArray[np.floating] | Mask) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _normalised(values: Depth) -> Depth:
    centred = values - np.median(values)
    spread = float(np.mean(np.abs(centred)))
    return centred / spread if spread > 0 else np.full_like(centred, np.nan)

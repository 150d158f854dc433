"""From a cost volume to a probability over depth hypotheses, without a network.

A pixel's own costs are noisy and flat where there is no texture. Two steps bring in the neighbourhood, and both respect
the edges of the guide image, where depth may jump:

1. aggregation: a guided filter (He et al., TPAMI 2013) on each slice of the logarithm of the cost;
2. optimisation: semi-global matching (Hirschmueller, TPAMI 2008) along the four axis directions, which prefers surfaces.

The result is a probability over the hypotheses (softmax of the negative energy), in the form that a network gives.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]

# Squared residuals under this carry nothing but 8-bit rounding.
COST_FLOOR = 1e-7


def log_energy(cost: Volume, method: str) -> Volume:
    """Logarithm of the mean squared misfit, float32 (D, H, W): minus the log-likelihood of a misfit of unknown variance.

    So bright and dark, strong and faint texture weigh alike. `residual` volumes are squared already; `paper` and
    `released` are sums of standard deviations.
    """
    energy: Volume = np.add(cost if method == "residual" else cost * cost, np.float32(COST_FLOOR), dtype=np.float32)
    return np.log(energy, out=energy)


def confidence_of(smoothed: Volume) -> NDArray[np.float32]:
    """How much better the best depth explains the stack than a typical one, float32 (H, W) in [0, 1].

    ``1 - exp(min E - mean E)`` over the hypotheses of the aggregated energy: the share of the typical (geometric mean)
    misfit that the best one removes. Noise alone, which every hypothesis explains equally badly, gives 0.
    """
    return np.asarray(1.0 - np.exp(smoothed.min(axis=0) - smoothed.mean(axis=0)))


def guided_filter(
    volume: Volume, guide: NDArray[np.float32], radius_px: int, eps: float, *, threads: int = 1
) -> Volume:
    """Edge-preserving mean of every slice: locally linear in the guide, ``q = mean(a) I + mean(b)``; same shape.

    He, Sun, Tang, "Guided Image Filtering", TPAMI 2013, equations 5, 6 and 8.
    """
    window = (2 * radius_px + 1, 2 * radius_px + 1)

    def mean(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return cv2.boxFilter(image, cv2.CV_32F, window, borderType=cv2.BORDER_REFLECT)  # type: ignore[return-value]

    guide_mean = mean(guide)
    scale = 1.0 / (np.maximum(mean(guide * guide) - guide_mean * guide_mean, 0.0) + np.float32(eps))
    result = np.empty_like(volume)

    def filter_slice(i: int) -> None:
        cost_mean = mean(volume[i])
        a = (mean(guide * volume[i]) - guide_mean * cost_mean) * scale
        b = cost_mean - a * guide_mean
        np.multiply(mean(a), guide, out=result[i])
        result[i] += mean(b)

    _each(filter_slice, len(volume), threads)
    return result


def semi_global(
    volume: Volume, guide: NDArray[np.float32], smoothness: float, edge_contrast: float, *, threads: int = 1
) -> Volume:
    """Mean over four path directions of ``L(p, d) = C(p, d) + min(L(q, d), L(q, d +- 1) + P1, min L(q) + P2) - min L(q)``.

    q is the pixel before p on the path, P1 = `smoothness`, P2 = 10 P1, both reduced by ``exp(-|grad guide| /
    edge_contrast)``: depth may jump where the image does. Volume (D, H, W) in, the same out.
    """
    step_x = np.exp(-np.abs(np.diff(guide, axis=1)) / np.float32(edge_contrast)).astype(np.float32)
    step_y = np.exp(-np.abs(np.diff(guide, axis=0)) / np.float32(edge_contrast)).astype(np.float32)
    columns = np.ascontiguousarray(volume.transpose(2, 0, 1))  # path index first: W, D, H
    rows = np.ascontiguousarray(volume.transpose(1, 0, 2))  # H, D, W
    weights_x, weights_y = np.ascontiguousarray(step_x.T), step_y
    paths = [
        (columns, weights_x, (1, 2, 0)),
        (columns[::-1], weights_x[::-1], (1, 2, 0)),
        (rows, weights_y, (1, 0, 2)),
        (rows[::-1], weights_y[::-1], (1, 0, 2)),
    ]
    results: list[Volume] = [np.empty(0, np.float32)] * len(paths)

    def run_path(i: int) -> None:
        costs, weights, _ = paths[i]
        results[i] = _path_cost(costs, weights, smoothness)

    _each(run_path, len(paths), threads)
    total = np.zeros_like(volume)
    for i, (_, _, order) in enumerate(paths):
        path = results[i][::-1] if i % 2 else results[i]
        total += path.transpose(order)
    total *= np.float32(0.25)
    return total


def _path_cost(costs: Volume, weights: NDArray[np.float32], smoothness: float) -> Volume:
    """Accumulated cost along the first axis; costs (n, D, M), weights (n - 1, M) of the steps between."""
    result = np.empty(costs.shape, np.float32)
    result[0] = costs[0]
    best = np.empty(costs.shape[1:], np.float32)
    stepped = np.empty_like(best)
    for i in range(1, len(costs)):
        before = result[i - 1]
        lowest = before.min(axis=0)
        small = np.float32(smoothness) * weights[i - 1]
        np.minimum(before, lowest + np.float32(10.0) * small, out=best)
        np.add(before, small, out=stepped)
        np.minimum(best[1:], stepped[:-1], out=best[1:])
        np.minimum(best[:-1], stepped[1:], out=best[:-1])
        best -= lowest
        np.add(best, costs[i], out=result[i])
    return result


def _each(work: Callable[[int], None], count: int, threads: int) -> None:
    if threads <= 1:
        for i in range(count):
            work(i)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(count)))


def minimum_with_offset(energy: Volume) -> NDArray[np.float32]:
    """Index of the least energy along the first axis, refined by a parabola through its neighbours; float32 (H, W)."""
    count = len(energy)
    best = energy.argmin(axis=0)
    middle = np.clip(best, 1, count - 2)
    low, mid, high = (np.take_along_axis(energy, (middle + k)[None], axis=0)[0] for k in (-1, 0, 1))
    curvature = low - 2.0 * mid + high
    offset = np.where(curvature > 1e-9, 0.5 * (low - high) / np.where(curvature > 1e-9, curvature, 1.0), 0.0)
    refined = np.where(best == middle, middle + np.clip(offset, -0.5, 0.5), best)
    return refined.astype(np.float32)


def probability_of(energy: Volume, sharpness: float) -> Volume:
    """``softmax(-sharpness * energy)`` over the first axis; float32 (D, H, W)."""
    probability: Volume = np.subtract(energy.min(axis=0), energy, dtype=np.float32)
    probability *= np.float32(sharpness)
    np.exp(probability, out=probability)
    probability /= probability.sum(axis=0)
    return probability

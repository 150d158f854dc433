"""Regularization: energy -> probability over hypotheses, without a network.

The costs of a single pixel are noisy, and flat without texture. Two steps use the neighbourhood, and both respect the
edges of the guide image, where depth may jump:

1. aggregation: a guided filter (He et al., TPAMI 2013) on each slice of the logarithm of the cost;
2. optimisation: semi-global matching (Hirschmueller, TPAMI 2008) along the four axis directions, which favours smooth
   surfaces.

The result is a probability over the hypotheses (softmax of the negative energy), as from a network.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import RegularizationConfig
from dfs_ros.depth.parabola import vertex
from dfs_ros.system.cores import for_each, threads_for

Volume = NDArray[np.float32]

SIGMA_SCALE = 0.4
"""Calibration of this probability's sigma, for :func:`dfs_ros.depth.readout.read_out`: 68 % of errors on scenes kept
for calibration and validation are within it.
"""


def aggregated(energy: Volume, guide: NDArray[np.float32], config: RegularizationConfig, *, threads: int = 1) -> Volume:
    """Guided filter, first step of the module's text, (D, H, W); input of the confidence."""
    return guided_filter(energy, guide, config.guided_radius_px, config.guided_eps, threads=threads)


def optimized(
    aggregated: Volume, guide: NDArray[np.float32], config: RegularizationConfig, *, threads: int = 1
) -> Volume:
    """Semi-global matching, second step, (D, H, W); input of network or readout."""
    if config.smoothness == 0:
        return aggregated
    return semi_global(aggregated, guide, config.smoothness, config.edge_contrast, threads=threads)


def smoothed_energy(energy: Volume, guide: NDArray[np.float32], config: RegularizationConfig) -> Volume:
    """Both steps for costs at full size, as in training, (D, H, W)."""
    smooth = aggregated(energy, guide, config)
    return semi_global_at_half(smooth, guide, config.smoothness, config.edge_contrast)


def guided_filter(
    volume: Volume, guide: NDArray[np.float32], radius_px: int, eps: float, *, threads: int = 1
) -> Volume:
    """Edge-preserving mean of every slice, ``q = mean(a) I + mean(b)``; same shape.

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

    for_each(filter_slice, len(volume), threads_for(guide.size, threads))
    return result


def semi_global_at_half(volume: Volume, guide: NDArray[np.float32], smoothness: float, edge_contrast: float) -> Volume:
    """Semi-global matching at half size; its change is enlarged and added to `volume`.

    As accurate as at full size for an aggregated volume, whose pixel-scale detail is along edges, which stay.
    """
    height, width = guide.shape
    half = ((width + 1) // 2, (height + 1) // 2)
    reduced = np.stack([cv2.resize(plane, half, interpolation=cv2.INTER_AREA) for plane in volume])
    guide = np.asarray(cv2.resize(guide, half, interpolation=cv2.INTER_AREA), np.float32)
    change = semi_global(reduced, guide, smoothness, edge_contrast)
    change -= reduced
    result = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in change])
    result += volume
    return np.asarray(result, np.float32)


def semi_global(
    volume: Volume, guide: NDArray[np.float32], smoothness: float, edge_contrast: float, *, threads: int = 1
) -> Volume:
    """Semi-global matching: mean path cost over four directions.

    ``L(p, d) = C(p, d) + min(L(q, d), L(q, d +- 1) + P1, min L(q) + P2) - min L(q)``.

    q is the pixel before p on the path, P1 = `smoothness`, P2 = 10 P1, both reduced by ``exp(-|grad guide| /
    edge_contrast)``: depth may jump where the image does. Volume (D, H, W) in, the same out.
    """
    fade = np.float32(-1.0 / edge_contrast)
    weights_y = np.exp(np.abs(np.diff(guide, axis=0)) * fade).astype(np.float32)  # (H - 1, W)
    weights_x = np.exp(np.abs(np.diff(guide, axis=1)) * fade).astype(np.float32).T.copy()  # (W - 1, H)
    # Both ways of an axis run on one layout, the path first: rows as a view, columns as one copy.
    layouts, weights = ((1, 0, 2), (2, 0, 1)), (weights_y, weights_x)
    sums = [np.empty([volume.shape[axis] for axis in layout], np.float32) for layout in layouts]

    def add(axis: int) -> None:
        costs = volume.transpose(layouts[axis])
        _add_path_costs(costs if axis == 0 else np.ascontiguousarray(costs), weights[axis], smoothness, sums[axis])

    for_each(add, len(sums), threads_for(guide.size, threads))
    total = np.ascontiguousarray(sums[0].transpose(1, 0, 2))
    total += sums[1].transpose(1, 2, 0)
    total *= np.float32(0.25)
    return total


def _add_path_costs(costs: Volume, weights: NDArray[np.float32], smoothness: float, total: Volume) -> None:
    """Add path costs along the first axis, both ways, into `total`.

    Costs (n, D, M), weights (n - 1, M).
    """
    n = len(costs)
    # Both ways at once, (2, D, M): for arrays of one row numpy's call overhead would equal the arithmetic.
    path, best, stepped = (np.empty((2, *costs.shape[1:]), np.float32) for _ in range(3))
    small_steps = np.float32(smoothness) * np.stack([weights, weights[::-1]], axis=1)[:, :, None]
    for i in range(n):
        there, back = i, n - 1 - i
        if i == 0:
            path[0], path[1] = costs[there], costs[back]
        else:
            lowest = path.min(axis=1, keepdims=True)
            small = small_steps[i - 1]
            np.minimum(path, lowest + np.float32(10.0) * small, out=best)
            np.add(path, small, out=stepped)
            np.minimum(best[:, 1:], stepped[:, :-1], out=best[:, 1:])
            np.minimum(best[:, :-1], stepped[:, 1:], out=best[:, :-1])
            best -= lowest
            np.add(best[0], costs[there], out=path[0])
            np.add(best[1], costs[back], out=path[1])
        if there < back:  # neither row was reached from the other side yet
            total[there], total[back] = path
        elif there == back:
            np.add(path[0], path[1], out=total[there])
        else:
            total[there] += path[0]
            total[back] += path[1]


def minimum_with_offset(energy: Volume) -> NDArray[np.float32]:
    """Index of the least energy, refined by a parabola; float32 (H, W)."""
    count = len(energy)
    best = first_argmin(energy)
    if count < 3:
        return best.astype(np.float32)
    middle = np.clip(best, 1, count - 2)
    flat, pixel = energy.reshape(count, -1), np.arange(best.size)  # much faster than take_along_axis
    low, mid, high = (flat[middle.ravel() + k, pixel].reshape(best.shape) for k in (-1, 0, 1))
    offset, _ = vertex(low, mid, high)
    refined = np.where(best == middle, middle + np.clip(offset, -0.5, 0.5), best)
    return refined.astype(np.float32)


def least_energy(energy: NDArray[Any]) -> NDArray[Any]:
    """Least energy over the first axis, of three or more, by a parabola through the lowest and its neighbours."""
    flat = energy.reshape(len(energy), -1)
    middle, column = np.clip(first_argmin(flat), 1, len(flat) - 2), np.arange(flat.shape[1])
    low, mid, high = (flat[middle + k, column] for k in (-1, 0, 1))
    offset, _ = vertex(low, mid, high)
    inside = (mid <= low) & (mid <= high)
    least = np.where(inside, mid - 0.25 * (low - high) * offset, np.minimum(np.minimum(low, mid), high))
    return np.asarray(least, energy.dtype).reshape(energy.shape[1:])


def probability_of(energy: Volume, sharpness: float) -> Volume:
    """``softmax(-sharpness * energy)`` over the first axis; float32 (D, H, W)."""
    probability: Volume = np.subtract(energy.min(axis=0), energy, dtype=np.float32)
    probability *= np.float32(sharpness)
    np.exp(probability, out=probability)
    probability /= probability.sum(axis=0)
    return probability


def first_argmin(volume: NDArray[Any]) -> NDArray[np.intp]:
    """``volume.argmin(axis=0)``, several times faster for the few planes and many pixels of a volume."""
    best, lowest = np.zeros(volume.shape[1:], np.intp), volume[0].copy()
    for d in range(1, len(volume)):
        np.copyto(best, d, where=volume[d] < lowest)
        np.minimum(lowest, volume[d], out=lowest)
    return best

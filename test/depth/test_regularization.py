"""Regularisation against plain implementations of the published formulas, and what it must do at edges and in noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from dfs_ros.cost_volume.energy import COST_FLOOR, log_energy
from dfs_ros.depth.confidence import confidence_of
from dfs_ros.depth.regularization import (
    guided_filter,
    minimum_with_offset,
    probability_of,
    semi_global,
    semi_global_at_half,
)

Volume = NDArray[np.float32]
Plane = NDArray[np.float32]


def random_volume(depths: int, height: int, width: int, seed: int = 0) -> Volume:
    return np.random.default_rng(seed).normal(-5, 1.5, (depths, height, width)).astype(np.float32)


def random_guide(height: int, width: int, seed: int = 1) -> Plane:
    """Smooth shading with one sharp edge across it, and a little texture."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:height, :width]
    guide = 0.3 + 0.2 * np.sin(row / 3) * np.cos(column / 5) + 0.3 * (column > row + width // 4)
    return np.clip(guide + rng.normal(0, 0.02, guide.shape), 0, 1).astype(np.float32)


def naive_guided_filter(volume: Volume, guide: Plane, radius: int, eps: float) -> NDArray[np.float64]:
    """He et al., equations 5, 6 and 8, window by window in float64; the image mirrored at its border."""

    def windows(image: NDArray[np.float64]) -> NDArray[np.float64]:
        padded = np.pad(image, radius, mode="symmetric")
        return np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1))

    guide64 = guide.astype(np.float64)
    result = np.empty(volume.shape)
    for d, cost in enumerate(volume.astype(np.float64)):
        i, p = windows(guide64), windows(cost)
        a, b = np.empty(cost.shape), np.empty(cost.shape)
        for y, x in np.ndindex(cost.shape):
            covariance = (i[y, x] * p[y, x]).mean() - i[y, x].mean() * p[y, x].mean()
            a[y, x] = covariance / (i[y, x].var() + eps)
            b[y, x] = p[y, x].mean() - a[y, x] * i[y, x].mean()
        result[d] = windows(a).mean(axis=(2, 3)) * guide64 + windows(b).mean(axis=(2, 3))
    return result


@pytest.mark.parametrize(("radius", "eps", "size"), [(1, 1e-3, (9, 13)), (2, 1e-4, (17, 12)), (4, 1e-2, (20, 23))])
def test_guided_filter_is_the_published_one(radius: int, eps: float, size: tuple[int, int]) -> None:
    volume, guide = random_volume(3, *size), random_guide(*size)
    # float32 sums of values of about 5, divided by a variance of at least eps
    np.testing.assert_allclose(
        guided_filter(volume, guide, radius, eps), naive_guided_filter(volume, guide, radius, eps), atol=2e-5 / eps**0.5
    )


def test_a_wrong_guided_filter_is_told_apart() -> None:
    volume, guide = random_volume(3, 17, 12), random_guide(17, 12)
    right = naive_guided_filter(volume, guide, 2, 1e-4)
    for wrong in (guided_filter(volume, guide, 3, 1e-4), guided_filter(volume, guide[::-1].copy(), 2, 1e-4)):
        assert np.abs(wrong - right).max() > 100 * 2e-5 / 1e-2


def test_guided_filter_of_radius_zero_changes_nothing() -> None:
    volume = random_volume(4, 9, 11)
    np.testing.assert_allclose(guided_filter(volume, random_guide(9, 11), 0, 1e-3), volume, atol=1e-5)


def two_sides(height: int = 24, width: int = 32) -> tuple[Volume, Plane, NDArray[np.intp]]:
    """Cost of a step in depth, an image with its edge there, and the truth: hypothesis 2, then 13 of 16.

    Within 3 px of the step the cost is noise: there only the image tells where the step is.
    """
    rng = np.random.default_rng(3)
    true_index = np.full((height, width), 13)
    true_index[:, : width // 2] = 2
    away = np.minimum(np.abs(np.arange(16)[:, None, None] - true_index), 2.0)
    away[:, :, width // 2 - 3 : width // 2 + 3] = 0
    cost = away + rng.normal(0, 0.3, away.shape)
    guide = np.where(true_index == 2, 0.3, 0.7) + rng.normal(0, 0.005, (height, width))
    return cost.astype(np.float32), guide.astype(np.float32), true_index


def test_guided_filter_keeps_a_step_where_the_image_has_it() -> None:
    rng = np.random.default_rng(3)
    cost = np.where(np.arange(32) < 16, -6.0, -2.0) * np.ones((1, 24, 1))
    noisy = (cost + rng.normal(0, 0.5, cost.shape)).astype(np.float32)
    guide = (np.where(np.arange(32) < 16, 0.3, 0.7) + rng.normal(0, 0.005, (24, 32))).astype(np.float32)
    beside = np.abs(guided_filter(noisy, guide, 4, 1e-3) - cost)[0, :, 15:17]
    assert beside.max() < 0.5 < 1.2 < np.abs(noisy - cost).max()
    blind = np.abs(guided_filter(noisy, np.full_like(guide, 0.5), 4, 1e-3) - cost)[0, :, 15:17]
    assert blind.min() > 1.0  # a plain mean makes a slope of it


def plain_semi_global(volume: Volume, guide: Plane, smoothness: float, edge_contrast: float) -> NDArray[np.float64]:
    """Hirschmueller's recursion pixel by pixel in float64, over the four directions along the axes."""
    cost = volume.astype(np.float64)
    depths, height, width = cost.shape
    total = np.zeros_like(cost)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        path = np.zeros_like(cost)
        rows = range(height) if dy >= 0 else range(height - 1, -1, -1)
        columns = range(width) if dx >= 0 else range(width - 1, -1, -1)
        for y in rows:
            for x in columns:
                before_y, before_x = y - dy, x - dx
                if not (0 <= before_y < height and 0 <= before_x < width):
                    path[:, y, x] = cost[:, y, x]
                    continue
                before = path[:, before_y, before_x]
                contrast = abs(float(guide[y, x]) - float(guide[before_y, before_x]))
                step = smoothness * math.exp(-contrast / edge_contrast)
                for d in range(depths):
                    ways = [before[d], before.min() + 10 * step]
                    ways += [before[k] + step for k in (d - 1, d + 1) if 0 <= k < depths]
                    path[d, y, x] = cost[d, y, x] + min(ways) - before.min()
        total += path
    return total / 4


@hypothesis_settings(max_examples=40)
@given(
    st.tuples(st.integers(2, 6), st.integers(1, 9), st.integers(1, 9)),
    st.floats(0, 3),
    st.floats(0.01, 1),
    st.integers(0, 99),
)
def test_semi_global_is_the_published_recursion(
    shape: tuple[int, int, int], smoothness: float, edge_contrast: float, seed: int
) -> None:
    volume, guide = random_volume(*shape, seed), random_guide(*shape[1:], seed)
    np.testing.assert_allclose(
        semi_global(volume, guide, smoothness, edge_contrast),
        plain_semi_global(volume, guide, smoothness, edge_contrast),
        rtol=1e-5,
        atol=1e-4,
    )


def test_a_wrong_recursion_is_told_apart() -> None:
    volume, guide = random_volume(5, 8, 9), random_guide(8, 9)
    right = plain_semi_global(volume, guide, 0.5, 0.1)
    for wrong in (
        semi_global(volume, guide, 0.51, 0.1),
        semi_global(volume, guide, 0.5, 0.11),
        semi_global(volume[:, ::-1].copy(), guide, 0.5, 0.1)[:, ::-1],
    ):
        assert np.abs(wrong - right).max() > 1e-3


def test_semi_global_puts_the_step_where_the_image_has_it() -> None:
    volume, guide, truth = two_sides()

    def share_wrong(seen: Plane) -> float:
        index = semi_global(volume, seen, 2.0, 0.05).argmin(axis=0)
        return float((np.abs(index - truth) > 1)[:, 13:19].mean())

    assert share_wrong(guide) < 0.03
    assert share_wrong(np.full_like(guide, 0.5)) > 0.4


def test_smoothness_of_zero_leaves_the_minimum() -> None:
    volume = random_volume(6, 10, 12)
    smoothed = semi_global(volume, random_guide(10, 12), 0.0, 0.05)
    np.testing.assert_array_equal(smoothed.argmin(axis=0), volume.argmin(axis=0))


def test_flat_cost_stays_flat() -> None:
    guide = random_guide(18, 21)
    flat = np.full((6, 18, 21), -3.0, np.float32)
    np.testing.assert_allclose(guided_filter(flat, guide, 3, 1e-3), -3, atol=1e-4)
    smoothed = semi_global(flat, guide, 0.2, 0.05)
    np.testing.assert_allclose(smoothed, -3, atol=1e-5)
    np.testing.assert_allclose(confidence_of(smoothed), 0, atol=1e-5)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_of_the_guided_filter_do_not_matter(threads: int) -> None:
    volume, guide = random_volume(6, 200, 210), random_guide(200, 210)
    found = guided_filter(volume, guide, 3, 1e-3, threads=threads)
    np.testing.assert_array_equal(found, guided_filter(volume, guide, 3, 1e-3))


@pytest.mark.parametrize("layout", ["F", "strided"])
def test_any_memory_layout_gives_the_same(layout: str) -> None:
    volume, guide = random_volume(5, 12, 14), random_guide(12, 14)
    if layout == "F":
        other, other_guide = np.asfortranarray(volume), np.asfortranarray(guide)
    else:
        other, other_guide = np.repeat(volume, 2, axis=2)[..., ::2], np.repeat(guide, 2, axis=0)[::2]
    before = volume.copy()
    np.testing.assert_allclose(
        guided_filter(other, other_guide, 2, 1e-3), guided_filter(volume, guide, 2, 1e-3), atol=1e-5
    )
    np.testing.assert_array_equal(semi_global(other, other_guide, 0.3, 0.05), semi_global(volume, guide, 0.3, 0.05))
    np.testing.assert_array_equal(volume, before)  # nothing is changed in place


def test_log_energy_weighs_misfits_by_their_ratio() -> None:
    cost = np.array([0.0, 1e-4, 1e-2, 1.0], np.float32)[:, None, None]
    squared = log_energy(cost, "residual")[:, 0, 0]
    np.testing.assert_allclose(squared, np.log(np.array([0, 1e-4, 1e-2, 1]) + COST_FLOOR), rtol=1e-5, atol=1e-6)
    for method in ("paper", "released"):
        np.testing.assert_allclose(
            log_energy(cost, method)[:, 0, 0], np.log(np.array([0, 1e-8, 1e-4, 1]) + COST_FLOOR), rtol=1e-5, atol=1e-6
        )
    assert squared.dtype == np.float32 and cost[3, 0, 0] == 1.0


def test_confidence_is_the_share_of_misfit_that_the_best_depth_removes() -> None:
    volume = np.log(np.array([1.0, 1.0, 0.1, 1.0], np.float32))[:, None, None]
    typical = 0.1**0.25
    assert float(confidence_of(volume)[0, 0]) == pytest.approx(1 - 0.1 / typical, rel=1e-5)


@given(st.integers(2, 64), st.floats(-16, 3, width=32))
def test_confidence_stays_within_its_range(depths: int, value: float) -> None:
    volume = np.full((depths, 3, 3), value, np.float32)
    volume[0, 1, 1] -= 30
    confidence = confidence_of(volume)
    assert confidence.min() >= 0 and confidence.max() <= 1
    assert confidence.dtype == np.float32 and confidence[0, 0] == pytest.approx(0, abs=1e-4)


def test_confidence_of_pure_noise_is_near_zero() -> None:
    """Squared residuals of white noise over five images, as uneven as the window of the cost leaves them."""
    rng = np.random.default_rng(5)
    # 40 degrees of freedom: four images' worth of noise in a window of about ten pixels.
    cost = (rng.chisquare(40, (64, 48, 64)) / 40 * 1e-4).astype(np.float32)
    smoothed = guided_filter(log_energy(cost, "residual"), np.full((48, 64), 0.5, np.float32), 4, 1e-3)
    confidence = confidence_of(smoothed)
    assert np.percentile(confidence, 99) < 0.15
    cost[20] *= 0.2  # one hypothesis that explains the images
    smoothed = guided_filter(log_energy(cost, "residual"), np.full((48, 64), 0.5, np.float32), 4, 1e-3)
    assert np.percentile(confidence_of(smoothed), 1) > 0.7


@given(st.floats(0.51, 6.49), st.floats(0.01, 5), st.integers(4, 8))
def test_parabolas_have_their_minimum_found(minimum: float, curvature: float, depths: int) -> None:
    minimum = min(minimum, depths - 1.51)
    energy = (curvature * (np.arange(depths) - minimum) ** 2)[:, None, None].astype(np.float32)
    index = minimum_with_offset(energy)
    assert index.shape == (1, 1) and index.dtype == np.float32
    assert float(index[0, 0]) == pytest.approx(minimum, abs=2e-3)


def test_minima_at_the_ends_and_ties() -> None:
    columns = np.array(
        [
            [0, 1, 2, 3],  # at the near end
            [3, 2, 1, 0],  # at the far end
            [1, 1, 1, 1],  # nowhere: the first
            [2, 0, 0, 2],  # between two
            [5, 1, 5, 1],  # twice: the first
        ],
        np.float32,
    ).T
    index = minimum_with_offset(columns[:, None, :])[0]
    assert index.tolist() == [0.0, 3.0, 0.0, 1.5, 1.0]
    assert minimum_with_offset(np.array([2.0, 1.0], np.float32)[:, None, None])[0, 0] == 1.0


@given(st.floats(0.01, 1000), st.integers(0, 50))
def test_probability_is_a_softmax(sharpness: float, seed: int) -> None:
    energy = random_volume(7, 3, 4, seed) * 10
    probability = probability_of(energy, sharpness)
    expected = softmax(-sharpness * energy.astype(np.float64), axis=0)
    np.testing.assert_allclose(probability, expected, atol=1e-4)
    np.testing.assert_allclose(probability.sum(axis=0), 1, rtol=1e-5)


def test_semi_global_at_half_keeps_detail_and_smooths_noise() -> None:
    # Two planes of hypotheses that meet where the guide has its edge, with noise, of odd size.
    rng = np.random.default_rng(4)
    guide = np.zeros((41, 63), np.float32)
    guide[:, 30:] = 1.0
    true = np.where(guide > 0.5, 9, 3)
    energy = 0.1 * np.abs(np.arange(14)[:, None, None] - true).astype(np.float32)
    noisy = energy + rng.normal(0.0, 0.6, energy.shape).astype(np.float32)
    aggregated = guided_filter(noisy, guide, 2, 1e-3)
    smooth = semi_global_at_half(aggregated, guide, 0.1, 0.05)
    assert smooth.shape == noisy.shape and smooth.dtype == np.float32

    def within_one(volume: Volume) -> float:
        return float((np.abs(volume.argmin(axis=0) - true) <= 1).mean())

    assert within_one(aggregated) < 0.95 and within_one(smooth) > 0.98
    flat = np.full((5, 41, 63), 2.0, np.float32)
    np.testing.assert_allclose(semi_global_at_half(flat, guide, 0.1, 0.05), flat, atol=1e-6)

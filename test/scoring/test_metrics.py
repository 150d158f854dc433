"""Every measure against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dfs_ros.optics.thin_lens import coc_px, coc_px_per_diopter
from dfs_ros.scoring import metrics
from dfs_ros.types import Camera

TRUE = np.array([[1.0, 2.0, 4.0, 5.0]])
PREDICTED = np.array([[1.1, 2.0, 3.0, 5.5]])


def test_absolute_errors() -> None:
    assert metrics.mae(PREDICTED, TRUE) == pytest.approx((0.1 + 0.0 + 1.0 + 0.5) / 4)
    assert metrics.rmse(PREDICTED, TRUE) == pytest.approx(math.sqrt((0.01 + 0.0 + 1.0 + 0.25) / 4))


def test_relative_errors() -> None:
    assert metrics.abs_rel(PREDICTED, TRUE) == pytest.approx((0.1 + 0.0 + 0.25 + 0.1) / 4)
    assert metrics.median_abs_rel(PREDICTED, TRUE) == pytest.approx(0.1)


def test_delta_counts_factors_both_ways() -> None:
    assert metrics.delta(PREDICTED, TRUE, 1.05) == 0.25
    assert metrics.delta(PREDICTED, TRUE, 1.25) == 0.75  # 4 / 3 is over 1.25 though |3 - 4| / 4 is not
    assert metrics.delta(PREDICTED, TRUE, 1.4) == 1.0
    with pytest.raises(ValueError, match="over 1"):
        metrics.delta(PREDICTED, TRUE, 0.95)


def test_sc_inv_is_the_spread_of_log_ratios() -> None:
    predicted = TRUE * np.array([[math.e, 1.0, math.e, 1.0]])  # z = 1 0 1 0
    assert metrics.sc_inv(predicted, TRUE) == pytest.approx(0.5)
    assert metrics.sc_inv(3.7 * TRUE, TRUE) == pytest.approx(0.0, abs=1e-12)


def test_ssitrim_by_hand() -> None:
    # inverse depths: true 0 1 2 3 4 (+1): median 2, mean deviation 6/5; predicted the same but for the last, 14:
    # deviations -2 -1 0 1 12, mean 16/5
    true = 1.0 / np.array([1.0, 2, 3, 4, 5])
    predicted = 1.0 / np.array([1.0, 2, 3, 4, 15])
    residual = sorted(abs(p / 3.2 - t / 1.2) for p, t in zip([-2, -1, 0, 1, 12], [-2, -1, 0, 1, 2], strict=True))
    assert metrics.ssitrim(predicted, true) == pytest.approx(sum(residual[:4]) / 10)
    assert metrics.ssitrim(predicted, true, trim=0.0) == pytest.approx(sum(residual) / 10)
    assert metrics.ssitrim(predicted, true) < metrics.ssitrim(predicted, true, trim=0.0)


def test_ssitrim_ignores_scale_and_shift_of_inverse_depth() -> None:
    true = np.random.default_rng(0).uniform(0.5, 4.0, (12, 15))
    predicted = 1.0 / (2.5 / true + 0.4)
    assert metrics.ssitrim(predicted, true) == pytest.approx(0.0, abs=1e-12)
    assert metrics.ssitrim(true[::-1], true) > 0.1
    assert math.isnan(metrics.ssitrim(np.ones(4), np.arange(1.0, 5.0)))


def test_unknown_depth_does_not_count_but_lowers_coverage() -> None:
    true = np.array([1.0, 2.0, np.nan, 4.0, 0.0, 8.0])
    predicted = np.array([1.5, np.nan, 3.0, 4.0, 1.0, np.inf])
    assert metrics.mae(predicted, true) == pytest.approx(0.25)  # of the first and the fourth
    assert metrics.coverage(predicted, true) == 0.5  # two of four
    mask = np.array([True, True, True, False, True, False])
    assert metrics.mae(predicted, true, mask) == pytest.approx(0.5)
    assert metrics.coverage(predicted, true, mask) == 0.5


def test_perfect_prediction() -> None:
    scores = metrics.all_metrics(TRUE, TRUE)
    assert {name: round(value, 12) for name, value in scores.items()} == {
        "mae": 0.0,
        "rmse": 0.0,
        "abs_rel": 0.0,
        "median_abs_rel": 0.0,
        "delta_1.05": 1.0,
        "delta_1.25": 1.0,
        "sc_inv": 0.0,
        "ssitrim": 0.0,
        "coverage": 1.0,
    }


def test_nothing_to_count_is_nan() -> None:
    scores = metrics.all_metrics(np.full(3, np.nan), np.ones(3))
    assert scores.pop("coverage") == 0.0
    assert all(math.isnan(value) for value in scores.values())


def test_depth_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        metrics.mae(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="one shape"):
        metrics.mae(np.ones((2, 3)), np.ones((2, 3)), np.ones(3, bool))
    with pytest.raises(TypeError, match="bool"):
        metrics.mae(np.ones(3), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="trim"):
        metrics.ssitrim(TRUE, TRUE, trim=1.0)


def test_blur_error_is_the_change_of_the_blur_diameter() -> None:
    camera = Camera(8e-3, 1.4, 6e-6)
    predicted, true = np.array([1.0, 4.0]), np.array([2.0, 4.0])
    # 8 mm^2 / 1.4 / 6 um = 7.619 px a dioptre at infinity; half a dioptre off in one of two pixels.
    per_diopter = float(coc_px_per_diopter(0.0, camera))
    assert per_diopter == pytest.approx(7.619, abs=1e-3)
    assert metrics.blur_error_px(predicted, true, per_diopter) == pytest.approx(7.619 * 0.5 / 2, abs=1e-3)
    change = np.abs(coc_px(1 / predicted, 0.0, camera) - coc_px(1 / true, 0.0, camera))
    assert metrics.blur_error_px(predicted, true, per_diopter) == pytest.approx(float(change.mean()))
    with pytest.raises(ValueError, match="over 0"):
        metrics.blur_error_px(predicted, true, 0.0)


DEPTHS = st.lists(st.floats(0.2, 20.0), min_size=4, max_size=40, unique=True)


@given(DEPTHS, st.floats(0.05, 20.0))
@settings(max_examples=60, deadline=None)
def test_sc_inv_does_not_see_the_scale_of_either(depths: list[float], scale: float) -> None:
    true = np.array(depths)
    predicted = true[::-1].copy()
    expected = metrics.sc_inv(predicted, true)
    assert metrics.sc_inv(scale * predicted, true) == pytest.approx(expected, abs=1e-9)
    assert metrics.sc_inv(predicted, scale * true) == pytest.approx(expected, abs=1e-9)


@given(DEPTHS, st.floats(0.1, 10.0), st.floats(0.0, 2.0))
@settings(max_examples=60, deadline=None)
def test_ssitrim_does_not_see_affine_changes_of_inverse_depth(depths: list[float], scale: float, shift: float) -> None:
    true = np.array(depths)
    predicted = true[::-1].copy()
    assume(np.ptp(1.0 / true) > 1e-2)
    expected = metrics.ssitrim(predicted, true)
    assert metrics.ssitrim(1.0 / (scale / predicted + shift), true) == pytest.approx(expected, abs=1e-6)
    assert metrics.ssitrim(predicted, 1.0 / (scale / true + shift)) == pytest.approx(expected, abs=1e-6)

"""Sparsification and calibration of sigma against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_research.evaluation import uncertainty
from dfs_research.evaluation.uncertainty import CALIBRATION_LEVELS, REMOVED
from dfs_ros.scoring import metrics

TRUE = np.ones(20)
ERROR = np.linspace(0.01, 0.2, 20)
PREDICTED = TRUE + ERROR


def test_within_sigma_counts_errors_up_to_it():
    sigma = np.full(20, 0.105)
    assert uncertainty.within_sigma(PREDICTED, TRUE, sigma) == 0.5  # 0.01 ... 0.10 of 0.01 ... 0.20
    assert uncertainty.within_sigma(PREDICTED, TRUE, sigma, sigmas=1.5) == 0.75
    sigma[:10] = np.nan
    assert uncertainty.within_sigma(PREDICTED, TRUE, sigma) == 0.0, "pixels without sigma do not count"
    assert math.isnan(uncertainty.within_sigma(PREDICTED, TRUE, np.full(20, np.nan)))


def test_rmse_of_the_surest():
    true = np.array([1.0, 1.0, 10.0, 10.0, 10.0])
    predicted = true + np.array([0.1, 0.3, 0.5, 2.0, 1.0])
    sigma = np.array([0.1, 0.9, 0.3, 3.0, 1.0])
    # relative: .09 .69 .03 .25 .09: the second goes; in metres: the fourth.
    relative = uncertainty.rmse_surest(predicted, true, sigma, 0.8)
    assert relative == pytest.approx(math.sqrt((0.01 + 0.25 + 4.0 + 1.0) / 4))
    metres = uncertainty.rmse_surest(predicted, true, sigma, 0.8, relative=False)
    assert metres == pytest.approx(math.sqrt((0.01 + 0.09 + 0.25 + 1.0) / 4))
    assert uncertainty.rmse_surest(predicted, true, sigma, 1.0) == pytest.approx(metrics.rmse(predicted, true))
    with pytest.raises(ValueError, match="share"):
        uncertainty.rmse_surest(predicted, true, sigma, 0.0)


def test_sparsification_by_hand():
    oracle = np.array([ERROR[: 20 - k].mean() / ERROR.mean() for k in range(20)])
    perfect = uncertainty.sparsification(PREDICTED, TRUE, ERROR * PREDICTED)
    np.testing.assert_allclose(perfect.oracle, oracle)
    np.testing.assert_allclose(perfect.by_sigma, oracle)
    assert perfect.area == pytest.approx(0.0, abs=1e-12)
    # The other way round: the best go first, so that the mean of the rest rises.
    worst = uncertainty.sparsification(PREDICTED, TRUE, (1.0 - ERROR) * PREDICTED)
    rising = np.array([ERROR[k:].mean() / ERROR.mean() for k in range(20)])
    np.testing.assert_allclose(worst.by_sigma, rising)
    assert worst.area == pytest.approx(float(np.mean(rising - oracle)))
    assert REMOVED[1] == pytest.approx(0.05) and len(REMOVED) == 20


def test_no_error_has_no_sparsification():
    assert math.isnan(uncertainty.ause(TRUE, TRUE, ERROR))
    assert math.isnan(uncertainty.ause(PREDICTED, np.full(20, np.nan), ERROR))


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100.0))
@settings(max_examples=30, deadline=None)
def test_ause_does_not_depend_on_the_scale_of_sigma_nor_of_the_scene(seed, factor):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.5, 5.0, 200)
    predicted, sigma = true * rng.uniform(0.8, 1.25, 200), rng.uniform(0.01, 1.0, 200)
    area = uncertainty.ause(predicted, true, sigma)
    assert uncertainty.ause(predicted, true, factor * sigma) == pytest.approx(area, rel=1e-6, abs=1e-9)
    assert uncertainty.ause(factor * predicted, factor * true, sigma) == pytest.approx(area, rel=1e-6, abs=1e-9)
    assert area >= -1e-9, "nothing sorts better than the errors themselves"


def test_calibration_of_a_true_gaussian_is_the_diagonal_and_of_half_its_sigma_is_not():
    rng = np.random.default_rng(0)
    true = np.full(200_000, 3.0)
    sigma = rng.uniform(0.01, 0.1, true.size)
    predicted = true + sigma * rng.standard_normal(true.size)
    np.testing.assert_allclose(uncertainty.calibration_curve(predicted, true, sigma), CALIBRATION_LEVELS, atol=0.005)
    assert uncertainty.within_sigma(predicted, true, sigma) == pytest.approx(0.6827, abs=0.005)
    held = uncertainty.calibration_curve(predicted, true, 0.5 * sigma)
    assert (held < CALIBRATION_LEVELS - 0.02).all()
    assert held[CALIBRATION_LEVELS.searchsorted(0.9)] == pytest.approx(0.589, abs=0.005)  # 1.645 / 2 sigma


def test_all_of_them_without_sigma_are_nan():
    values = uncertainty.all_uncertainty_metrics(PREDICTED, TRUE, None)
    assert set(values) == {"within_sigma", "rmse_surest", "rmse_surest_metres", "ause"}
    assert all(math.isnan(value) for value in values.values())


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="expected one shape"):
        uncertainty.within_sigma(PREDICTED, TRUE, ERROR[:5])

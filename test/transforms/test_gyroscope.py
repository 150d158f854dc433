"""Gyroscope: integration against true rotations, bias, gaps and clock."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.transforms.buffer import NoTransform
from dfs_ros.transforms.gyroscope import Gyroscope
from dfs_ros.transforms.rigid import rotation_of, vector_of

START_NS = 10**18
BIAS = 0.02


def ns(seconds: float) -> int:
    return START_NS + round(seconds * 1e9)


def of_rates(rate, rate_hz: float = 200.0, seconds: float = 1.0) -> Gyroscope:
    """Samples of `rate(seconds)`."""
    gyroscope = Gyroscope()
    for i in range(round(seconds * rate_hz) + 1):
        gyroscope.add(ns(i / rate_hz), np.asarray(rate(i / rate_hz), np.float64), BIAS)
    return gyroscope


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.tuples(*[st.floats(-2, 2)] * 3))
def test_a_steady_turn_is_exact_between_any_times(first, last, rate):
    turn = of_rates(lambda s: rate).rotation(ns(first), ns(last), 0.1)
    seconds = (ns(last) - ns(first)) * 1e-9
    np.testing.assert_allclose(turn, rotation_of(np.array(rate) * seconds), atol=1e-9)


def test_a_turn_about_a_moving_axis():
    """Coning, whose rotation is known: R(t) = exp(b ez t) exp(a ex) exp(-b ez t), up to the start."""
    a, b = 0.2, 6.0

    def attitude(s: float) -> np.ndarray:
        spun = rotation_of(np.array([0.0, 0.0, b * s]))
        return spun @ rotation_of(np.array([a, 0.0, 0.0])) @ spun.T

    def rate(s: float) -> np.ndarray:
        step = 1e-5
        return vector_of(attitude(s - step).T @ attitude(s + step)) / (2 * step)

    gyroscope = of_rates(rate, rate_hz=400.0)
    for first, last in ((0.0, 0.17), (0.113, 0.871), (0.9, 0.2)):
        truth = attitude(first).T @ attitude(last)
        found = gyroscope.rotation(ns(first), ns(last), 0.1)
        assert np.linalg.norm(vector_of(truth.T @ found)) < 2e-4


def test_a_bias_is_found_while_still_and_taken_off():
    rng = np.random.default_rng(1)
    bias = np.array([0.012, -0.007, 0.003])
    gyroscope = Gyroscope()
    assert gyroscope.bias_sigma_rad_s(BIAS) == BIAS
    for i in range(600):
        turning = np.array([0.0, 0.5 * (i >= 400), 0.0])
        gyroscope.add(ns(i / 200), bias + turning + rng.normal(0, 0.003, 3), BIAS)
    assert gyroscope.bias_rad_s is not None
    np.testing.assert_allclose(gyroscope.bias_rad_s, bias, atol=1e-3)
    assert gyroscope.bias_sigma_rad_s(BIAS) == 0.002 and gyroscope.bias_sigma_rad_s(0.001) == 0.001
    turned = vector_of(gyroscope.rotation(ns(2.5), ns(2.7), 0.1))
    np.testing.assert_allclose(turned, [0.0, 0.1, 0.0], atol=1e-3)


@pytest.mark.parametrize(
    "rate", [lambda s: (0, 0.03, 0), lambda s: (0.05 * math.sin(3 * s), 0, 0)], ids=["over the limit", "swaying"]
)
def test_what_turns_gives_no_bias(rate):
    assert of_rates(rate, seconds=3.0).bias_rad_s is None


def test_nothing_is_guessed_outside_the_samples_or_across_a_gap():
    gyroscope = of_rates(lambda s: (0.1, 0, 0))
    for first, last, cause in ((0.5, 1.001, "late"), (-0.001, 0.5, "early")):
        with pytest.raises(NoTransform) as caught:
            gyroscope.rotation(ns(first), ns(last), 0.1)
        assert caught.value.cause == cause
    gyroscope.add(ns(1.3), np.zeros(3), BIAS)
    with pytest.raises(NoTransform, match=r"no sample for 0\.300 s") as caught:
        gyroscope.rotation(ns(0.9), ns(1.2), 0.1)
    assert caught.value.cause == "gap"
    with pytest.raises(NoTransform, match="end inf s"):
        Gyroscope().rotation(ns(0), ns(1), 0.1)


def test_a_clock_set_back_forgets_the_samples_and_keeps_the_bias():
    gyroscope = of_rates(lambda s: (0.01, 0, 0), seconds=2.0)
    gyroscope.add(ns(0.5), np.zeros(3), BIAS)
    assert gyroscope.resets == 1 and len(gyroscope) == 1
    assert gyroscope.bias_rad_s is not None and gyroscope.bias_rad_s[0] == pytest.approx(0.01)

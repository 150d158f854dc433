"""Doubt about a lens: its formula against errors drawn at random, and what stacks state."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.depth.doubt import LensDoubt, gain_and_offset, nominal_sigma
from dfs_ros.types import Camera, FocalStack

FOCUS = np.array([2.2, 1.7, 1.3, 0.9, 0.5])


def stack(sigma: object = ()) -> FocalStack:
    images = np.zeros((5, 16, 16), np.uint8)
    return FocalStack(images, FOCUS, Camera(0.008, 1.4, 6e-6), focus_sigma_diopters=np.array(sigma, np.float64))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    aperture=st.floats(0.0, 0.08),
    gain=st.floats(0.0, 0.05),
    offset=st.floats(0.0, 0.1),
    diopters=st.floats(0.1, 4.0),
    focus=st.floats(0.2, 3.0),
)
def test_the_formula_is_the_spread_of_depths_by_random_lenses(
    aperture: float, gain: float, offset: float, diopters: float, focus: float
) -> None:
    """Closed form: for D by the lens as described, D_f + (D - D_f) / a, on a scale off by gain and offset."""
    draws = np.random.default_rng(5).standard_normal((3, 100_000))
    factor = np.exp(aperture * draws[0])
    by_aperture = focus + (diopters - focus) / factor
    true = by_aperture * (1.0 + gain * draws[1]) + offset * draws[2]
    doubt = LensDoubt(aperture, gain, offset, focus)
    local = np.full((2, 2), 0.01, np.float32)
    widened = doubt.widened(local, np.full((2, 2), diopters, np.float32))
    np.testing.assert_allclose(widened, math.hypot(0.01, float(true.std())), rtol=0.03)
    terms = doubt.terms(np.full((2, 2), diopters, np.float32))
    assert list(terms) == ["aperture", "gain", "offset", "calibration"]
    assert not terms["calibration"].any()
    np.testing.assert_allclose(
        np.hypot(0.01, np.linalg.norm([t[0, 0] for t in terms.values()])), widened[0, 0], rtol=1e-5
    )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(gain=st.floats(0.0, 0.2), offset=st.floats(0.0, 0.5))
def test_gain_and_offset_are_found_again(gain: float, offset: float) -> None:
    found = gain_and_offset(FOCUS, np.hypot(gain * FOCUS, offset))
    np.testing.assert_allclose(found, (gain, offset), atol=1e-5)


def test_gain_and_offset_are_never_negative() -> None:
    rising_to_infinity = np.array([0.1, 0.1, 0.1, 0.1, 0.3])
    assert gain_and_offset(FOCUS, rising_to_infinity) == (0.0, pytest.approx(np.sqrt(np.mean(rising_to_infinity**2))))
    gain, offset = gain_and_offset(FOCUS, 0.05 * FOCUS**2)
    assert offset == 0.0 and 0.05 < gain < 0.05 * 2.2


def test_a_stack_that_states_nothing_is_nominal() -> None:
    doubt = LensDoubt.of(stack(), 0.03)
    assert (doubt.aperture, doubt.gain, doubt.offset_diopters) == pytest.approx((0.03, 0.05, 0.1))
    assert doubt.focus_diopters == pytest.approx(1.32)
    np.testing.assert_allclose(nominal_sigma(np.array([0.0, 2.0])), [0.1, math.hypot(0.1, 0.1)])


def test_what_is_stated_counts_and_the_setting_is_for_the_rest() -> None:
    assert LensDoubt.of(stack(np.zeros(5)), 0.0, 0.3) == LensDoubt(0.0, 0.0, 0.0, 1.32)
    assert LensDoubt.of(stack(np.full(5, 0.04)), 0.0).offset_diopters == pytest.approx(0.04)
    assert LensDoubt.of(stack(), 0.0, 0.02).offset_diopters == pytest.approx(0.02)
    half = LensDoubt.of(stack([0.0, 0.0, 0.0, math.nan, math.nan]), 0.0, 0.1)
    assert (half.gain, half.offset_diopters) == (0.0, pytest.approx(0.1 * math.sqrt(0.4)))


def test_an_exact_lens_adds_nothing() -> None:
    local = np.array([[0.02, 0.5]], np.float32)
    np.testing.assert_array_equal(LensDoubt(0.0, 0.0, 0.0, 1.0).widened(local, np.ones((1, 2), np.float32)), local)


def test_an_aperture_that_contradicts_its_description_doubts_the_gain_too() -> None:
    assert LensDoubt.of(stack(), 0.03, contradiction=1.8).gain == pytest.approx(1.8 * 0.05)
    assert LensDoubt.of(stack(), 0.03, contradiction=0.7) == LensDoubt.of(stack(), 0.03)
    assert LensDoubt.of(stack(np.zeros(5)), 0.03, contradiction=1.8).gain == 0.0

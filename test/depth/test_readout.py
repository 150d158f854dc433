"""Sigma in use: its formula in numbers, and back."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.depth.readout import AS_TAKEN, FOLLOWED, REGISTERED, noise_of, sigma_in_use, spread_in_use


def image(value: float) -> np.ndarray:
    return np.full((2, 3), value, np.float32)


def test_sigma_is_linear_in_small_and_in_large_spreads_and_superlinear_up_to_a_tenth_of_a_pixel() -> None:
    for linear in (AS_TAKEN, REGISTERED, FOLLOWED):
        small = sigma_in_use(image(1e-5), 10.0, linear=linear)  # 10 * 10 * 1e-5 is nothing beside it
        np.testing.assert_allclose(small, linear * 1e-5, rtol=1e-4)
    large = sigma_in_use(image(0.1), 100.0)  # ten pixels of blur: 100 beside a limit of 1.25
    np.testing.assert_allclose(large, 0.1 * np.hypot(AS_TAKEN, 1.25), rtol=1e-3)
    between = sigma_in_use(image(0.1), 1.25)  # an eighth of a pixel: both terms of the superlinear part are 1.25
    np.testing.assert_allclose(between, 0.1 * np.hypot(AS_TAKEN, 1.25 / math.sqrt(2)), rtol=1e-5)
    weak = sigma_in_use(image(0.1), 0.125)  # an eightieth: a hundredth of the limit's square is missing
    np.testing.assert_allclose(weak, 0.1 * np.hypot(AS_TAKEN, 0.125 / math.sqrt(1.01)), rtol=1e-5)
    assert large.shape == (2, 3) and large.dtype == np.float32
    assert AS_TAKEN < REGISTERED < FOLLOWED


def test_few_images_are_noisier_and_many_count_as_nine() -> None:
    assert [noise_of(images) for images in (2, 5, 9, 40)] == [2.0, 1.0, math.sqrt(0.5), math.sqrt(0.5)]


def test_an_energy_that_disagrees_widens_sigma() -> None:
    own = sigma_in_use(image(0.01), 10.0)
    wide = sigma_in_use(image(0.01), 10.0, image(0.05))
    np.testing.assert_allclose(wide, np.sqrt(np.square(own) + (0.8 * 0.05) ** 2), rtol=1e-5)
    assert wide.dtype == np.float32


@settings(max_examples=50, deadline=None, derandomize=True)
@given(spread=st.floats(1e-5, 1.0), px_per_diopter=st.floats(0.1, 100.0))
def test_the_spread_for_a_sigma_is_found_again(spread: float, px_per_diopter: float) -> None:
    sigma = sigma_in_use(image(spread), px_per_diopter)
    np.testing.assert_allclose(spread_in_use(sigma, px_per_diopter), spread, rtol=1e-4)

"""Sigma in use: its formula in numbers, and back."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.depth.readout import sigma_in_use, spread_in_use


def image(value: float) -> np.ndarray:
    return np.full((2, 3), value, np.float32)


def test_sigma_is_linear_in_small_spreads_and_superlinear_in_large_ones() -> None:
    small = sigma_in_use(image(1e-4), image(0.9), 0.5)  # 45 * 1e-4 / (0.9 + 0.1) is nothing beside 1.2
    np.testing.assert_allclose(small, 1.2e-4, rtol=1e-4)
    large = sigma_in_use(image(0.1), image(0.9), 0.5)
    np.testing.assert_allclose(large, 0.1 * np.hypot(1.2, 4.5), rtol=1e-5)
    assert large.shape == (2, 3) and large.dtype == np.float32


def test_an_energy_that_disagrees_widens_sigma() -> None:
    own = sigma_in_use(image(0.01), image(1.0), 0.0)
    wide = sigma_in_use(image(0.01), image(1.0), 0.0, image(0.05))
    np.testing.assert_allclose(wide, np.sqrt(np.square(own) + (1.3 * 0.05) ** 2), rtol=1e-5)
    assert wide.dtype == np.float32


def test_far_away_sigma_stays_finite() -> None:
    """At infinity the mean focus takes the place of the inverse depth."""
    np.testing.assert_allclose(sigma_in_use(image(0.01), image(0.0), 2.0), 0.01 * np.hypot(1.2, 45 * 0.01 / 0.4))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(spread=st.floats(1e-5, 1.0), diopters=st.floats(0.0, 10.0), focus=st.floats(0.1, 10.0))
def test_the_spread_for_a_sigma_is_found_again(spread: float, diopters: float, focus: float) -> None:
    sigma = sigma_in_use(image(spread), image(diopters), focus)
    np.testing.assert_allclose(spread_in_use(sigma, image(diopters), focus), spread, rtol=1e-4)

"""The depths at which the all-in-focus image is worked out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dfs_ros.cost_volume.sharp import levels_around

diopters = st.floats(0.0, 20.0)


@given(first=diopters, second=diopters, count=st.integers(1, 40))
def test_the_levels_cover_the_range_and_are_no_more_than_asked_for(first: float, second: float, count: int) -> None:
    low, high = sorted((first, second))
    levels, step = levels_around(low, high, count)
    assert 1 <= len(levels) <= count
    assert (levels > 0).all() or low == high == 0.0
    if len(levels) > 1:
        assert levels[0] <= low + 1e-6 and levels[-1] >= high - 1e-9
        np.testing.assert_allclose(np.diff(levels), step, rtol=1e-5, atol=2e-6)
        assert step <= 2**0.25 * (high - low) / (count - 2) * 1.000001


def test_ranges_that_differ_a_little_have_the_samelevels_around() -> None:
    first, _ = levels_around(0.3321, 2.3134, 12)
    second, _ = levels_around(0.3370, 2.3201, 12)
    np.testing.assert_array_equal(first, second)

"""A result beside the reference depth of its stack: which part of the image a reference shows, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from dfs_ros.scoring.difference import against_reference, centred_part

NAN = np.nan


def test_a_wider_reference_shows_the_middle_rows() -> None:
    image = np.arange(12 * 16, dtype=np.float64).reshape(12, 16)
    np.testing.assert_array_equal(centred_part(image, 16 / 9), image[1:10])
    np.testing.assert_array_equal(centred_part(image, 16 / 12), image)


def test_a_narrower_reference_shows_the_middle_columns() -> None:
    image = np.arange(8 * 16, dtype=np.float64).reshape(8, 16)
    np.testing.assert_array_equal(centred_part(image, 1.0), image[:, 4:12])


def test_the_difference_is_counted_where_both_have_depth() -> None:
    depth = np.full((12, 16), 9.0)  # rows outside the reference's view would count as 350 % wrong
    depth[1:10] = 2.0
    depth[1:10, :4] = NAN
    reference = np.full((9, 16), 2.5, np.float32)
    reference[:, 12:] = 4.0
    reference[:, 8:12] = NAN
    found = against_reference(depth, reference)
    # Left to right, four columns each: no depth; 2 instead of 2.5; no reference; 2 instead of 4.
    assert found["abs_rel"] == pytest.approx((0.2 + 0.5) / 2)
    assert found["median_abs_rel"] == pytest.approx((0.2 + 0.5) / 2)
    assert found["coverage"] == pytest.approx(2 / 3)


def test_a_coarse_reference_is_enlarged_without_mixing_depths() -> None:
    depth = np.repeat(np.array([[1.0, 3.0]]), 50, axis=1).repeat(50, axis=0)
    assert against_reference(depth, np.array([[1.0, 3.0]]).repeat(1, axis=0))["abs_rel"] == 0.0


def test_nothing_in_common_is_nan_and_no_depth_map_is_refused() -> None:
    found = against_reference(np.full((4, 4), NAN), np.ones((2, 2)))
    assert np.isnan(found["median_abs_rel"]) and found["coverage"] == 0.0
    with pytest.raises(ValueError, match=r"reference_m: expected depth of shape \(height, width\), received \(3,\)"):
        against_reference(np.ones((4, 4)), np.ones(3))

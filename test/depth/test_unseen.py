"""Pixels that too few frames see take the depth of the nearest that they see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from dfs_ros.depth.unseen import as_nearest_seen


def planes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(0.2, 2, (24, 31)).astype(np.float32), rng.uniform(0.01, 0.1, (24, 31)).astype(np.float32)


def test_a_strip_takes_the_depth_beside_it() -> None:
    diopters, sigma = planes()
    seen = np.ones(diopters.shape, bool)
    seen[:, :5] = seen[-3:] = False
    found, doubt = as_nearest_seen(diopters, sigma, seen)
    rows, columns = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
    np.testing.assert_array_equal(found, diopters[rows, columns])
    np.testing.assert_array_equal(found[:21, :5], np.repeat(diopters[:21, 5:6], 5, axis=1))
    np.testing.assert_array_equal(doubt[seen], sigma[seen])
    np.testing.assert_allclose(doubt, np.hypot(sigma[rows, columns], diopters[rows, columns] - diopters), rtol=1e-5)


@pytest.mark.parametrize("value", [True, False], ids=["all seen", "none seen"])
def test_all_or_none_seen_changes_nothing(value: bool) -> None:
    diopters, sigma = planes()
    found, doubt = as_nearest_seen(diopters, sigma, np.full(diopters.shape, value))
    np.testing.assert_array_equal(found, diopters)
    np.testing.assert_array_equal(doubt, sigma)

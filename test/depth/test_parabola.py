"""The vertex of parabolas through three points, of any spacing."""

from __future__ import annotations

import numpy as np

from dfs_ros.depth.parabola import vertex


def test_parabolas_are_found_exactly() -> None:
    rng = np.random.default_rng(0)
    at, bend = rng.uniform(-2.0, 2.0, 50), rng.uniform(0.1, 3.0, 50)
    before, after = rng.uniform(0.2, 4.0, (2, 50))
    low, mid, high = (bend * (x - at) ** 2 + 0.7 for x in (-before, np.zeros(50), after))
    offset, curvature = vertex(low, mid, high, before, after)
    np.testing.assert_allclose(offset, at, atol=1e-12)
    np.testing.assert_allclose(curvature, 2.0 * bend)


def test_without_a_minimum_the_middle_stands() -> None:
    low, mid, high = np.array([[0.0, 1.0, 3.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]], np.float32).T
    offset, curvature = vertex(low, mid, high)
    np.testing.assert_array_equal(offset, [-1.5, 0.0, 0.0])
    np.testing.assert_array_equal(curvature, [1.0, 0.0, 0.0])
    assert offset.dtype == curvature.dtype == np.float32
    assert float(vertex(-4.0, -1.0, 0.0)[0]) == 0.0

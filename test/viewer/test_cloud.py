"""Point cloud of a depth image: its points, their colours, and the extent that places a view."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from viewer_browser import INTRINSICS, RNG

from dfs_ros.viewer.cloud import grid_stride, hide_uncertain, make_cloud
from dfs_ros.viewer.scene import Extent


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 200_000))
@settings(max_examples=200, deadline=None)
def test_stride_is_the_smallest_that_fits(height: int, width: int, max_points: int) -> None:
    def count(stride: int) -> int:
        return len(range(0, height, stride)) * len(range(0, width, stride))

    stride = grid_stride(height, width, max_points)
    assert count(stride) <= max_points
    assert stride == 1 or count(stride - 1) > max_points


def test_cloud_has_the_coordinates_and_colors_of_its_pixels() -> None:
    depth = np.full((5, 7), 2.0, np.float32)
    depth[0, 2], depth[2, 0], depth[4, 4], depth[4, 6] = np.nan, 0.0, np.inf, 4.0
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    cloud = make_cloud(depth, image, (10.0, 20.0, 3.0, 2.0), max_points=12)
    assert cloud.stride == 2  # 3 x 4 of the 5 x 7 pixels
    assert len(cloud.points_m) == 12 - 3
    # The last is pixel u = 6, v = 4: x = (6 - 3) / 10 * 4, y = (4 - 2) / 20 * 4.
    np.testing.assert_allclose(cloud.points_m[-1], (1.2, 0.4, 4.0), rtol=1e-6)
    np.testing.assert_array_equal(cloud.colors[-1], image[4, 6])
    np.testing.assert_allclose(cloud.points_m[0], (-0.6, -0.2, 2.0), rtol=1e-6)
    assert cloud.spacing_m == pytest.approx(2.0 * 2 / 10)


def test_cloud_of_no_depth_is_empty() -> None:
    cloud = make_cloud(np.full((4, 4), np.nan, np.float32), np.zeros((4, 4, 3), np.uint8), INTRINSICS, 100)
    assert cloud.points_m.shape == (0, 3) and cloud.colors.shape == (0, 3) and cloud.spacing_m == 0.0


def test_uncertain_depth_is_hidden() -> None:
    depth = np.array([[1.0, 2.0, np.nan, 4.0]], np.float32)
    sigma = np.array([[0.05, 0.3, 0.1, np.nan]], np.float32)
    np.testing.assert_array_equal(hide_uncertain(depth, sigma, 0.1), [[1.0, np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(hide_uncertain(depth, sigma, 0.15), [[1.0, 2.0, np.nan, np.nan]])
    np.testing.assert_array_equal(hide_uncertain(depth, sigma, math.inf), depth)
    np.testing.assert_array_equal(hide_uncertain(depth, None, 0.1), depth)


def test_view_ignores_a_far_background() -> None:
    near = RNG.normal((0, 0, 1), 0.1, (1000, 3)).astype(np.float32)
    far = near[:50] + np.float32([0, 0, 30])
    center, radius = Extent.of(np.concatenate((near, far))).ball()
    assert center[2] < 1 and radius < 1
    assert not Extent.of(near).outgrows(Extent.of(near + np.float32(0.1)))
    assert Extent.of(near * 2).outgrows(Extent.of(near))

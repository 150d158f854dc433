"""Focus measures and where they peak, against values worked out by hand and rendered planes."""

import dataclasses

import numpy as np
import pytest

from dfs_research.evaluation import classical
from dfs_research.evaluation.rendered import EVALUATION_CAMERAS
from dfs_ros.simulation.render import render_stack
from dfs_ros.types import FocalStack

FOCUS = np.array([2.2, 0.5, 1.7, 0.9, 1.3])


def test_peak_of_a_parabola_is_found_between_uneven_focus():
    focus = np.array([0.2, 2.0, 0.5, 1.4])
    peak = np.array([[0.8, 1.3], [0.62, 1.05]])
    measure = 5.0 - (focus[:, None, None] - peak) ** 2
    np.testing.assert_allclose(classical.peak_diopters(measure, focus), peak, atol=1e-5)


def test_peak_at_an_end_is_that_focus_and_never_beyond():
    measure = np.stack([np.full((2, 3), value) for value in (1.0, 5.0, 4.0, 2.0, 3.0)])  # highest at 0.5 dioptres
    np.testing.assert_allclose(classical.peak_diopters(measure, FOCUS), 0.5)
    np.testing.assert_allclose(classical.peak_diopters(measure[:2], FOCUS[:2]), 0.5)
    flat = np.ones((5, 2, 3))
    found = classical.peak_diopters(flat, FOCUS)
    assert np.isfinite(found).all() and found.min() >= 0.5 and found.max() <= 2.2


def test_sum_modified_laplacian_by_hand():
    image = np.zeros((21, 21), np.float32)
    image[10, 10] = 1.0
    measure = classical.sum_modified_laplacian(image)
    # 4 at the dot, 1 at each of its four neighbours: 8 in all, averaged over 81 pixels.
    assert measure[10, 10] == pytest.approx(8.0 / 81.0)
    assert measure[10, 16] == 0.0
    ramp = np.tile(np.arange(21, dtype=np.float32), (21, 1))
    np.testing.assert_allclose(classical.sum_modified_laplacian(ramp)[7:-7, 7:-7], 0.0)


def test_ring_difference_sees_dots_and_neither_brightness_nor_slopes():
    image = np.zeros((31, 31), np.float32)
    image[15, 15] = 1.0
    # The disk of radius 1.5 has nine pixels.
    assert classical.ring_difference(image)[15, 15] == pytest.approx(1.0 / 9.0)
    assert classical.ring_difference(np.full((31, 31), 0.7, np.float32)).max() < 1e-6
    slope = np.add.outer(np.arange(31), 2.0 * np.arange(31)).astype(np.float32) / 100
    assert classical.ring_difference(slope)[6:-6, 6:-6].max() < 1e-5
    assert classical.ring_difference(image)[15, 13] == 0.0, "between disk and ring nothing counts"


@pytest.fixture(scope="module")
def plane():
    """Noise texture at 1.3 dioptres."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (40, 50, 3)), np.ones((2, 2, 1))).astype(np.uint8)
    camera = EVALUATION_CAMERAS["B"].camera
    return render_stack(texture, np.full(texture.shape[:2], 1 / 1.3, np.float32), camera, FOCUS, rng=0)


@pytest.mark.parametrize("method", [classical.laplacian_depth, classical.ring_depth])
def test_a_plane_in_focus_is_found(method, plane):
    depth_m = method(plane, 0.31, 10.0)
    assert depth_m.dtype == np.float32 and depth_m.shape == plane.size
    assert np.median(np.abs(depth_m - 1 / 1.3)) < 0.05
    order = np.array([3, 1, 0, 4, 2])
    shuffled = FocalStack(plane.images[order], plane.focus_diopters[order], plane.camera)
    np.testing.assert_allclose(method(shuffled, 0.31, 10.0), depth_m, rtol=1e-5)


def test_depth_keeps_to_the_range_and_grey_will_do(plane):
    depth_m = classical.laplacian_depth(plane, 0.31, 0.7)
    assert depth_m.max() == pytest.approx(0.7)
    grey = dataclasses.replace(plane, images=np.ascontiguousarray(plane.images[..., 1]))
    assert np.median(np.abs(classical.laplacian_depth(grey, 0.31, 10.0) - 1 / 1.3)) < 0.05

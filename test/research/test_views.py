"""What a moving camera sees: where surfaces appear, how wide they blur, what they hide."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from dfs_research.evaluation.lens_blur import LensBlur
from dfs_research.evaluation.views import View, render_views
from dfs_ros.optics import thin_lens
from dfs_ros.simulation.pupil import Pupil
from dfs_ros.simulation.render import render_images
from dfs_ros.types import Camera

CAMERA = Camera(8e-3, 1.4, 6e-6)
FOCAL_PX = 8e-3 / 6e-6
SOFT = LensBlur(Pupil(), 1.0)


def dots(height: int, width: int, *positions: tuple[float, float]) -> NDArray[np.float32]:
    """Grey light with bright Gaussian dots at (x, y)."""
    y, x = np.mgrid[:height, :width]
    light = np.full((height, width), 0.1, np.float64)
    for at_x, at_y in positions:
        light += 0.5 * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * 2.0**2))
    return np.repeat(light[..., None], 3, axis=2).astype(np.float32)


def centre(image: NDArray[np.floating], column: int, row: int, reach: int = 12) -> NDArray[np.float64]:
    """(x, y, variance along x) of the light over 0.1 around a pixel."""
    part = image[row - reach : row + reach + 1, column - reach : column + reach + 1, 1].astype(np.float64) - 0.1
    y, x = np.mgrid[row - reach : row + reach + 1, column - reach : column + reach + 1]
    x_mean, y_mean = (float((part * c).sum() / part.sum()) for c in (x, y))
    return np.array([x_mean, y_mean, float((part * (x - x_mean) ** 2).sum() / part.sum())])


def test_a_plane_shifts_by_parallax_and_grows_as_the_camera_comes_nearer() -> None:
    depth_m, (x, y) = 0.8, (90.0, 70.0)
    views = (View(1.25), View(1.25, (0.004, -0.002, 0.0)), View(1.25, (0.004, 0.0, 0.05)))
    still, moved, nearer = render_views(dots(128, 192, (x, y)), np.full((128, 192), depth_m), CAMERA, views, SOFT, 1)
    expected = np.array([x - FOCAL_PX * 0.004 / depth_m, y + FOCAL_PX * 0.002 / depth_m])
    np.testing.assert_allclose(centre(still, 90, 70)[:2], [x, y], atol=0.01)
    np.testing.assert_allclose(centre(moved, 83, 73)[:2], expected, atol=0.02)
    middle, growth = np.array([95.5, 63.5]), depth_m / (depth_m - 0.05)
    expected = middle + growth * (np.array([x, y]) - [FOCAL_PX * 0.004 / depth_m, 0.0] - middle)
    np.testing.assert_allclose(centre(nearer, round(expected[0]), round(expected[1]))[:2], expected, atol=0.03)


def test_surfaces_shift_by_their_own_depth() -> None:
    depth = np.full((96, 240), 2.0)
    depth[:, :120] = 0.5
    view = (View(1.0, (0.003, 0.0, 0.0)),)
    light = dots(96, 240, (60.0, 48.0), (180.0, 48.0))
    (image,) = render_views(light, depth, CAMERA, view, LensBlur(Pupil(), 0.5), 1)
    near, far = centre(image, 52, 48), centre(image, 178, 48)
    assert near[0] == pytest.approx(60 - FOCAL_PX * 0.003 / 0.5, abs=0.03)
    assert far[0] == pytest.approx(180 - FOCAL_PX * 0.003 / 2.0, abs=0.03)


def test_background_behind_an_object_comes_into_sight_without_the_colour_of_the_object() -> None:
    light = np.full((96, 160, 3), 0.6, np.float32)
    depth = np.full((96, 160), 4.0)
    light[:, 60:100], depth[:, 60:100] = 0.05, 0.5
    (image,) = render_views(light, depth, CAMERA, (View(2.0, (0.004, 0.0, 0.0)),), LensBlur(Pupil(), 0.7), 1)
    # The object, in focus, has moved left by 10.7 px and the wall by 1.3.
    row = image[48, :, 1]
    np.testing.assert_allclose(row[53:86], 0.05, atol=0.003)
    np.testing.assert_allclose(row[93:140], 0.6, atol=0.003)
    edge = float(np.interp(60 - 10.67 - 0.5, np.arange(160), row))
    assert edge == pytest.approx(0.5 * (0.05 + 0.6), abs=0.05)


@pytest.mark.parametrize("blades", [0, 6])
def test_blur_has_the_thin_lens_diameter_and_the_softness(blades: int) -> None:
    focus, depth_m = 2.2, 1.0
    (image,) = render_views(
        dots(96, 96, (48.0, 48.0)), np.full((96, 96), depth_m), CAMERA, (View(focus),), LensBlur(Pupil(blades), 0.7), 1
    )
    diameter = float(thin_lens.coc_px(1 / depth_m, focus, CAMERA))
    # Variance along an axis: of a disk d^2 / 16; a regular polygon of the same area is little wider.
    wider = {0: 1.0, 6: 1.0026}[blades]
    expected = 2.0**2 + 0.7**2 + wider * diameter**2 / 16
    assert diameter > 9
    assert centre(image, 48, 48, 24)[2] == pytest.approx(expected, rel=0.01)


def test_aberration_turns_round_between_near_and_far() -> None:
    blur = LensBlur(Pupil(aberration=0.4), 0.7)
    shape = (64, 64)
    near, far = (np.fft.irfft2(blur.transfer(d, shape), shape) for d in (-16.0, 16.0))
    disk = np.fft.irfft2(LensBlur(Pupil(), 0.7).transfer(16.0, shape), shape)
    assert near[0, 0] == pytest.approx(0.6 * disk[0, 0], rel=0.05)
    assert far[0, 0] == pytest.approx(1.4 * disk[0, 0], rel=0.05)
    assert near.sum() == pytest.approx(1.0, abs=1e-5) and far.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_shift_is_a_shift() -> None:
    blur, shape = LensBlur(Pupil(5, 0.3), 0.8), (48, 64)
    still, moved = (np.fft.irfft2(blur.transfer(6.0, shape, shift), shape) for shift in ((0.0, 0.0), (3.0, -2.0)))
    np.testing.assert_allclose(moved, np.roll(still, (-2, 3), axis=(0, 1)), atol=1e-6)


def test_breathing_roll_and_hand_move_the_whole_image() -> None:
    x, y = 130.0, 40.0
    view = View(1.25, scale=1.02, roll_rad=0.01, shift_px=(1.5, -0.7))
    light, depth = dots(160, 200, (x, y)), np.full((160, 200), 0.8)
    _, image = render_views(light, depth, CAMERA, (View(1.25), view), SOFT, 1)
    expected = (view.image_motion((160, 200)) @ [x, y, 1.0])[:2]
    middle = np.array([99.5, 79.5])
    by_hand = middle + 1.02 * np.array([x - middle[0] - 0.01 * (y - middle[1]), y - middle[1] + 0.01 * (x - middle[0])])
    np.testing.assert_allclose(expected, by_hand + np.array([1.5, -0.7]), atol=0.01)
    np.testing.assert_allclose(centre(image, round(expected[0]), round(expected[1]))[:2], expected, atol=0.02)


def test_a_still_ideal_lens_gives_the_images_of_the_other_renderer() -> None:
    rng = np.random.default_rng(5)
    texture = np.clip(np.kron(rng.uniform(0.05, 0.8, (24, 32, 3)), np.ones((4, 4, 1))), 0, 1).astype(np.float32)
    depth = np.full((96, 128), 2.5)
    depth[30:70, 40:90] = 0.6
    focus = (2.2, 1.0)
    both = render_views(texture, depth, CAMERA, tuple(View(f) for f in focus), LensBlur(Pupil(), 0.35), 2)
    camera = dataclasses.replace(CAMERA)
    other = render_images(texture, depth, camera, focus, oversampling=2, noise=0.0, transfer_curve="linear")
    difference = both - other / 255.0
    assert both.shape == other.shape == (2, 48, 64, 3)
    assert np.sqrt(np.mean(difference**2)) < 0.008
    assert abs(difference.mean()) < 0.001


def test_negative_softness_is_refused() -> None:
    with pytest.raises(ValueError, match="softness_px: expected 0 or more"):
        LensBlur(Pupil(), -0.1)

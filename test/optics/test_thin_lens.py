"""Thin-lens optics against known numbers, closed forms, brute force and the ambiguities that any lens has."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import j0

from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.optics import thin_lens
from dfs_ros.types import Camera

DEFOCUSNET = Camera(2.9e-3, 1.0, 3.1e-3 / 256)
NYU = Camera(15e-3, 2.8, 5.6e-6)

cameras = st.builds(
    Camera, focal_length_m=st.floats(1e-3, 0.06), f_number=st.floats(0.9, 16), pixel_pitch_m=st.floats(8e-7, 3e-5)
)
focuses = st.lists(st.floats(0, 12), min_size=1, max_size=5).map(np.array)
depths = st.lists(st.floats(0, 15), min_size=1, max_size=5).map(np.array)


@pytest.mark.parametrize(
    ("camera", "focus_m", "depth_m", "diameter_px"),
    [
        (DEFOCUSNET, 0.1, 0.15, 2.38),
        (DEFOCUSNET, 0.1, 0.3, 4.77),
        (DEFOCUSNET, 0.1, 1.0, 6.44),
        (DEFOCUSNET, 0.1, 3.0, 6.91),
        (DEFOCUSNET, 1.5, 0.1, 6.49),
        (DEFOCUSNET, 1.5, 0.3, 1.86),
        (DEFOCUSNET, 1.5, 0.5, 0.93),
        (DEFOCUSNET, 1.5, 3.0, 0.23),
        (NYU, 2, 1, 7.23),
        (NYU, 4, 1, 10.80),
        (NYU, 8, 1, 12.58),
        (NYU, 2, 2, 0.0),
        (NYU, 4, 2, 3.60),
        (NYU, 8, 2, 5.39),
        (NYU, 2, 10, 5.78),
        (NYU, 4, 10, 2.16),
        (NYU, 8, 10, 0.36),
    ],
)
def test_blur_of_the_published_cameras(camera: Camera, focus_m: float, depth_m: float, diameter_px: float) -> None:
    assert float(thin_lens.coc_px(1 / depth_m, 1 / focus_m, camera)) == pytest.approx(diameter_px, abs=0.0051)


@given(cameras, st.floats(0.1, 50), st.floats(0.1, 50))
def test_blur_is_that_of_the_formula_in_metres(camera: Camera, depth_m: float, focus_m: float) -> None:
    f, n, p = camera.focal_length_m, camera.f_number, camera.pixel_pitch_m
    expected = f**2 * abs(depth_m - focus_m) / (depth_m * n * (focus_m - f)) / p
    assert float(thin_lens.coc_px(1 / depth_m, 1 / focus_m, camera)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_infinity_is_a_number() -> None:
    f, n, p = NYU.focal_length_m, NYU.f_number, NYU.pixel_pitch_m
    assert float(thin_lens.coc_px(0, 0, NYU)) == 0
    assert float(thin_lens.coc_px(0.5, 0, NYU)) == pytest.approx(f**2 * 0.5 / (n * p), rel=1e-12)
    assert float(thin_lens.coc_px(0, 0.5, NYU)) == pytest.approx(f**2 * 0.5 / (n * (1 - 0.5 * f) * p), rel=1e-12)
    assert float(thin_lens.magnification(0, NYU)) == 1


def test_shapes_broadcast() -> None:
    blur = thin_lens.coc_px(np.array([0.2, 0.5, 1.0])[:, None], np.array([0.1, 0.4]), NYU)
    assert blur.shape == (3, 2)
    assert blur[2, 1] == float(thin_lens.coc_px(1.0, 0.4, NYU))


@given(cameras, depths, focuses, st.floats(0.2, 9))
def test_scale_ambiguity(camera: Camera, depth: NDArray, focus: NDArray, scale: float) -> None:
    """A scene, its focus distances, the focal length and the pixels, all larger by one factor, look the same."""
    larger = replace(camera, focal_length_m=camera.focal_length_m * scale, pixel_pitch_m=camera.pixel_pitch_m * scale)
    before = thin_lens.coc_px(depth[:, None], focus, camera)
    after = thin_lens.coc_px(depth[:, None] / scale, focus / scale, larger)
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-9)


@given(cameras, depths, focuses, st.floats(0.2, 5), st.floats(0, 3))
def test_affine_ambiguity(camera: Camera, depth: NDArray, focus: NDArray, gain: float, offset: float) -> None:
    """Another lens sees all inverse depths as ``gain D + offset`` with the same blur, over the whole sweep."""
    f = camera.focal_length_m
    ratio = 1 / (gain + offset * f)
    other = replace(camera, focal_length_m=f * ratio, pixel_pitch_m=camera.pixel_pitch_m * ratio)
    before = thin_lens.coc_px(depth[:, None], focus, camera)
    after = thin_lens.coc_px(gain * depth[:, None] + offset, gain * focus + offset, other)
    np.testing.assert_allclose(after, before, rtol=1e-8, atol=1e-8)


@given(cameras, depths, st.floats(0, 12))
def test_blur_is_affine_in_inverse_depth(camera: Camera, depth: NDArray, focus: float) -> None:
    slope = float(thin_lens.coc_px_per_diopter(focus, camera))
    np.testing.assert_allclose(
        thin_lens.coc_px(depth, focus, camera), np.abs(slope * depth - slope * focus), rtol=1e-9, atol=1e-9
    )


@given(cameras, st.floats(0, 12))
def test_magnification_is_the_image_distance(camera: Camera, focus: float) -> None:
    f = camera.focal_length_m
    assert float(thin_lens.magnification(focus, camera)) == pytest.approx(1 / (1 / f - focus) / f, rel=1e-9)


def supersampled_disk(diameter_px: float, size: int, factor: int = 101) -> NDArray[np.float64]:
    """Share of each pixel's `factor` x `factor` points that lie in the disk, sum 1."""
    at = (np.arange(size * factor) + 0.5) / factor - size / 2
    inside = np.hypot(at[:, None], at[None, :]) <= diameter_px / 2
    psf = inside.reshape(size, factor, size, factor).mean(axis=(1, 3))
    return psf / psf.sum()


@pytest.mark.parametrize("diameter_px", [0.3, 0.9, 1.0, 1.5, 2.0, 2.7, 4.2, 6.9, 9.0])
def test_disk_is_the_covered_area(diameter_px: float) -> None:
    psf = thin_lens.disk_psf(diameter_px, 9)
    # A pixel on the rim is sampled to about 1 % of itself; all of it is a share of the disk's area.
    tolerance = 0.01 / max(1.0, math.pi * diameter_px**2 / 4)
    np.testing.assert_allclose(psf, supersampled_disk(diameter_px, 9), atol=tolerance)
    assert psf.sum() == pytest.approx(1, abs=1e-12) and psf.min() >= 0


def test_a_disk_of_another_size_is_told_apart() -> None:
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(thin_lens.disk_psf(4.2, 9), supersampled_disk(4.3, 9), atol=0.01 / (math.pi * 4.2))


def test_disk_has_the_numbers_of_fspecial() -> None:
    radius_1 = [[0.0251, 0.1453, 0.0251], [0.1453, 0.3183, 0.1453], [0.0251, 0.1453, 0.0251]]
    np.testing.assert_allclose(thin_lens.disk_psf(2, 3), radius_1, atol=5.1e-5)
    outer, inner = [0.0170, 0.0784, 0.0796, 0.0784, 0.0170], [0.0381, 0.0796, 0.0796, 0.0796, 0.0381]
    radius_2 = [[0, 0.0170, 0.0381, 0.0170, 0], outer, inner, outer, [0, 0.0170, 0.0381, 0.0170, 0]]
    np.testing.assert_allclose(thin_lens.disk_psf(4, 5), radius_2, atol=5.1e-5)
    top_of_radius_5 = [0, 0, 0, 0.0012, 0.0050, 0.0063, 0.0050, 0.0012, 0, 0, 0]
    np.testing.assert_allclose(thin_lens.disk_psf(10, 11)[0], top_of_radius_5, atol=5.1e-5)


def test_disk_of_no_diameter_is_the_identity() -> None:
    expected = np.zeros((5, 5))
    expected[2, 2] = 1
    np.testing.assert_array_equal(thin_lens.disk_psf(0.0, 5), expected)
    np.testing.assert_allclose(thin_lens.disk_psf(0.8, 5), expected, atol=1e-12)  # within the middle pixel


@given(st.floats(0.01, 15))
def test_disk_looks_the_same_from_all_eight_sides(diameter_px: float) -> None:
    psf = thin_lens.disk_psf(diameter_px, 15)
    np.testing.assert_allclose(psf, psf.T, atol=1e-13)
    np.testing.assert_allclose(psf, psf[::-1], atol=1e-13)


def test_transfer_function_of_a_disk() -> None:
    zero = 1.2196698912665045  # first zero of J1, over pi
    assert float(thin_lens.disk_transfer(0.0, 0.3)) == 1 and float(thin_lens.disk_transfer(7.0, 0.0)) == 1
    assert float(thin_lens.disk_transfer(zero / 0.25, 0.25)) == pytest.approx(0, abs=1e-12)
    bent = thin_lens.disk_transfer(np.array([6.0, -6.0, 0.0]), 0.1, 0.4)
    radius = (np.arange(20000) + 0.5) / 20000
    light = 1 + 0.4 * np.array([1, -1])[:, None] * (2 * radius**2 - 1)
    hankel = (light * j0(math.pi * 6.0 * 0.1 * radius) * radius).sum(axis=1) / radius.sum()
    np.testing.assert_allclose(bent, [*hankel, 1.0], atol=1e-8)
    assert float(thin_lens.disk_transfer(2.0, 0.25)) == pytest.approx(2 * 0.5668240889058739 / (math.pi / 2), rel=1e-9)
    x = np.array([0.99e-4, 1.01e-4]) / math.pi  # where series and formula meet
    np.testing.assert_allclose(thin_lens.disk_transfer(1.0, x), 1 - (math.pi * x) ** 2 / 8, rtol=1e-15)


@pytest.mark.parametrize("diameter_px", [1.3, 3.0, 8.4])
def test_rasterised_disk_is_the_analytic_one_sampled(diameter_px: float) -> None:
    """Its transfer function is that of disk times pixel, with all its aliases (Poisson's sum)."""
    size, aliases = 31, np.arange(-12, 13)
    rasterised = np.fft.fft2(np.fft.ifftshift(thin_lens.disk_psf(diameter_px, size)))
    np.testing.assert_allclose(rasterised.imag, 0, atol=1e-12)
    u = np.fft.fftfreq(size)[:, None] + aliases  # (size, aliases)
    x, y = u[:, None, :, None], u[None, :, None, :]
    analytic = thin_lens.disk_transfer(diameter_px, np.hypot(x, y)) * np.sinc(x) * np.sinc(y)
    np.testing.assert_allclose(rasterised.real, analytic.sum(axis=(2, 3)), atol=1e-3)


def test_gaussian_has_the_second_moment_of_the_disk() -> None:
    psf = thin_lens.disk_psf(40.0, 41)
    at = np.arange(41) - 20
    variance = float((psf.sum(axis=0) * at**2).sum()) - 1 / 12  # less that of the pixel
    frequency = np.array([0.0, 0.01, 0.03])
    expected = np.exp(-2 * math.pi**2 * variance * frequency**2)
    np.testing.assert_allclose(thin_lens.gaussian_transfer(40.0, frequency), expected, rtol=1e-3)


def test_hypotheses() -> None:
    np.testing.assert_allclose(1 / depth_hypotheses(0.5, 2.0, 4), [2, 1.5, 1, 0.5])
    np.testing.assert_allclose(depth_hypotheses(0.5, 2.0, 4, "linear"), [0.5, 1.0, 1.5, 2.0])


@pytest.mark.parametrize(("near", "far", "count"), [(0, 1, 4), (2, 1, 4), (1, 1, 4), (1, 2, 1), (math.nan, 2, 4)])
def test_hypotheses_that_make_no_range_are_refused(near: float, far: float, count: int) -> None:
    with pytest.raises(ValueError, match="expected 0 < min < max"):
        depth_hypotheses(near, far, count)


@pytest.mark.parametrize(
    ("focus", "message"),
    [
        (-0.1, "nothing lies beyond infinity"),
        (math.nan, "expected finite dioptres"),
        (math.inf, "expected finite dioptres"),
        (1 / 15e-3, "inside the focal length"),
        (100.0, "is 0.01 m, inside the focal length 0.015 m"),
    ],
)
def test_focus_where_no_lens_can_focus_is_refused(focus: float, message: str) -> None:
    for call in (
        lambda: thin_lens.coc_px(1.0, focus, NYU),
        lambda: thin_lens.coc_px_per_diopter([1.0, focus], NYU),
        lambda: thin_lens.magnification(focus, NYU),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("depth", [-0.1, math.nan, math.inf])
def test_depth_that_is_none_is_refused(depth: float) -> None:
    with pytest.raises(ValueError, match="expected finite dioptres of 0"):
        thin_lens.coc_px([1.0, depth], 0.5, NYU)


@pytest.mark.parametrize(
    ("diameter_px", "size", "message"),
    [
        (2, 4, "expected an odd number"),
        (2, 0, "expected an odd number"),
        (5.1, 5, "expected 0 to 5"),
        (-1, 5, "0 to 5"),
        (math.nan, 5, "0 to 5"),
    ],
)
def test_disk_that_does_not_fit_is_refused(diameter_px: float, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        thin_lens.disk_psf(diameter_px, size)

"""Intrinsics of a breathing lens, back-projection, and PointCloud2 bytes to the last one."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfs_ros.messages.points import XYZ_FIELDS, XYZ_POINT_STEP, XYZRGB_FIELDS, XYZRGB_POINT_STEP, pack_xyz, pack_xyzrgb
from dfs_ros.optics.pinhole import intrinsics, pixel_pitch_from_intrinsics, points_from_depth
from dfs_ros.types import Camera

PHONE = Camera(0.004, 2.0, 4e-6)


def test_derived_intrinsics_focused_at_infinity() -> None:
    # f / p = 4 mm / 4 um = 1000 px; the centre of 640 x 480 pixels that are counted from 0.
    assert intrinsics(PHONE, (480, 640)) == pytest.approx((1000.0, 1000.0, 319.5, 239.5), rel=1e-12)


def test_the_lens_breathes() -> None:
    # At 5 dioptres the sensor is f / (1 - 0.004 * 5) = f / 0.98 behind the lens.
    assert intrinsics(PHONE, (480, 640), 5.0).fx == pytest.approx(1000 / 0.98, rel=1e-12)
    near = Camera(0.004, 2.0, 4e-6, reference_focus_diopters=5.0)
    assert intrinsics(near, (480, 640)).fx == pytest.approx(1000 / 0.98, rel=1e-12)
    assert intrinsics(near, (480, 640), 0.0) == pytest.approx((1000.0, 1000.0, 319.5, 239.5), rel=1e-12)


def test_calibrated_intrinsics_win_and_scale_about_the_principal_point() -> None:
    camera = Camera(0.004, 2.0, 4e-6, 1010.0, 1020.0, 300.0, 250.0, reference_focus_diopters=2.0)
    assert intrinsics(camera, (480, 640)) == (1010.0, 1020.0, 300.0, 250.0)
    scale = (1 - 0.004 * 2) / (1 - 0.004 * 10)
    assert intrinsics(camera, (480, 640), 10.0) == pytest.approx((1010 * scale, 1020 * scale, 300.0, 250.0), rel=1e-12)
    only_fy = Camera(0.004, 2.0, 4e-6, fy_px=900.0)
    assert intrinsics(only_fy, (480, 640))[:2] == (900.0, 900.0)


@given(
    focus=st.floats(0, 10),
    reference=st.floats(0, 10),
    depth_m=st.floats(0.2, 100),
    factor=st.sampled_from([0.25, 0.5, 2.0]),
)
def test_a_resized_camera_sees_the_same_rays(focus: float, reference: float, depth_m: float, factor: float) -> None:
    camera = Camera(0.006, 2.0, 4e-6, reference_focus_diopters=reference)
    fx, _, cx, _ = intrinsics(camera, (480, 640), focus)
    small = intrinsics(camera.scaled(factor), (int(480 * factor), int(640 * factor)), focus)
    u = 100.0
    assert ((u + 0.5) * factor - 0.5 - small.cx) / small.fx * depth_m == pytest.approx((u - cx) / fx * depth_m)
    pitch = pixel_pitch_from_intrinsics(intrinsics(camera, (480, 640)).fx, 0.006, reference)
    assert pitch == pytest.approx(4e-6, rel=1e-12)


@pytest.mark.parametrize("fx", [0.0, -1.0, math.nan, math.inf])
def test_pixel_pitch_needs_a_focal_length_in_pixels(fx: float) -> None:
    with pytest.raises(ValueError, match="fx_px: expected a finite number of pixels over 0"):
        pixel_pitch_from_intrinsics(fx, 0.004)


def test_points_of_a_known_depth() -> None:
    depth = np.array([[1.0, 2.0, np.nan], [4.0, np.inf, 0.5]], np.float32)
    points = points_from_depth(depth, (10.0, 20.0, 1.0, 0.5))
    assert points.dtype == np.float32 and points.shape == (2, 3, 3)
    # x grows to the right, y downwards, z is the depth.
    np.testing.assert_allclose(points[0, 0], [-0.1, -0.025, 1.0], rtol=1e-6)
    np.testing.assert_allclose(points[0, 1], [0.0, -0.05, 2.0], rtol=1e-6)
    np.testing.assert_allclose(points[1, 0], [-0.4, 0.1, 4.0], rtol=1e-6)
    np.testing.assert_allclose(points[1, 2], [0.05, 0.0125, 0.5], rtol=1e-6)
    assert np.isnan(points[0, 2]).all()
    assert not np.isfinite(points[1, 1]).any()


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    fx=st.floats(10, 2000),
    fy=st.floats(10, 2000),
    cx=st.floats(-5, 15),
    cy=st.floats(-5, 15),
)
def test_points_project_back_to_their_pixels(
    height: int, width: int, fx: float, fy: float, cx: float, cy: float
) -> None:
    depth = np.random.default_rng(0).uniform(0.2, 20, (height, width)).astype(np.float32)
    x, y, z = np.moveaxis(points_from_depth(depth, (fx, fy, cx, cy)).astype(np.float64), -1, 0)
    v, u = np.mgrid[:height, :width]
    np.testing.assert_allclose(x / z * fx + cx, u, atol=1e-4)
    np.testing.assert_allclose(y / z * fy + cy, v, atol=1e-4)


def test_points_refuse_what_is_no_depth_image_or_camera() -> None:
    with pytest.raises(ValueError, match=r"depth_m: expected shape \(H, W\), received \(2, 2, 1\)"):
        points_from_depth(np.ones((2, 2, 1), np.float32), (1, 1, 0, 0))
    for wrong in ((0, 1, 0, 0), (1, -1, 0, 0), (1, 1, math.nan, 0), (math.inf, 1, 0, 0)):
        with pytest.raises(ValueError, match="camera_intrinsics: expected finite"):
            points_from_depth(np.ones((2, 2), np.float32), wrong)
    with pytest.raises(ValueError, match="size: expected"):
        intrinsics(PHONE, (0, 640))


def test_xyz_bytes() -> None:
    points = np.array([[[1.0, -2.0, 3.5], [np.nan, np.nan, np.nan]]], np.float32)
    data = pack_xyz(points)
    assert data.dtype == np.uint8 and data.shape == (2 * XYZ_POINT_STEP,)
    assert data.tobytes()[:16] == bytes.fromhex("0000803f 000000c0 00006040 00000000")
    x, y, z, padding = struct.unpack("<fffI", data.tobytes()[16:])
    assert math.isnan(x) and math.isnan(y) and math.isnan(z) and padding == 0


def test_xyzrgb_bytes() -> None:
    points = np.array([[1.0, -2.0, 3.5], [0.0, 0.0, 1.0]], np.float32)
    rgb = np.array([[255, 128, 1], [0, 0, 7]], np.uint8)
    data = pack_xyzrgb(points, rgb).tobytes()
    assert len(data) == 2 * XYZRGB_POINT_STEP
    assert data[:32] == bytes.fromhex("0000803f 000000c0 00006040 00000000 0180ff00 00000000 00000000 00000000")
    assert data[48:52] == bytes([7, 0, 0, 0])  # blue first: 0x00RRGGBB, little endian


def test_fields_say_where_the_bytes_are() -> None:
    assert XYZ_FIELDS == (("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1))
    assert XYZRGB_FIELDS[:3] == XYZ_FIELDS
    assert XYZRGB_FIELDS[3:] == (("rgb", 16, 7, 1),)


@given(height=st.integers(1, 7), width=st.integers(1, 7), step=st.integers(1, 3), seed=st.integers(0, 5))
def test_packed_points_read_back_whatever_the_strides(height: int, width: int, step: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(height * step, width * step, 3)).astype(np.float32)[::step, ::step]
    rgb = rng.integers(0, 256, (height * step, width * step, 3), np.uint8)[::step, ::step]
    layout = np.dtype(
        {
            "names": ["x", "y", "z", "b", "g", "r"],
            "formats": ["<f4", "<f4", "<f4", "u1", "u1", "u1"],
            "offsets": [0, 4, 8, 16, 17, 18],
            "itemsize": 32,
        }
    )
    cloud = pack_xyzrgb(points, rgb).view(layout).reshape(height, width)
    for i, name in enumerate("xyz"):
        np.testing.assert_array_equal(cloud[name], points[..., i])
    for i, name in enumerate("rgb"):
        np.testing.assert_array_equal(cloud[name], rgb[..., i])
    np.testing.assert_array_equal(pack_xyz(points).view("<f4").reshape(height, width, 4)[..., :3], points)


def test_packing_refuses_other_shapes_and_types() -> None:
    points = np.ones((2, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"points_m: expected shape \(\.\.\., 3\), received \(2, 4\)"):
        pack_xyz(np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"rgb: expected the shape of the points, \(2, 3, 3\), received \(3, 2, 3\)"):
        pack_xyzrgb(points, np.ones((3, 2, 3), np.uint8))
    with pytest.raises(TypeError, match="rgb: expected a uint8 array, received float32"):
        pack_xyzrgb(points, points)  # type: ignore[arg-type]

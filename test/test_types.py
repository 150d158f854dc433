"""What flows through the package is checked when it is made."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dfs_ros.image_size import check_image
from dfs_ros.lens_field import LensField
from dfs_ros.optics import thin_lens
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.pose import Pose
from dfs_ros.types import (
    MAX_FRAMES,
    Camera,
    DepthResult,
    FocalStack,
    Frame,
    LensState,
    reduced,
    reduced_frame,
    working_size,
)

CAMERA = Camera(0.004, 2.0, 4e-6)


def images(count: int = 3, height: int = 20, width: int = 30, channels: int | None = 3) -> NDArray[np.uint8]:
    shape = (count, height, width) if channels is None else (count, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("name", ["focal_length_m", "f_number", "pixel_pitch_m"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_a_lens_has_positive_finite_numbers(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"camera\.{name}: expected a finite number over 0 .*received {float(value)}"):
        dataclasses.replace(CAMERA, **{name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"focal_length_m": 4.3}, "expected metres .* divide millimetres by 1000"),
        ({"pixel_pitch_m": 3.9}, "expected metres .* divide micrometres by 1e6"),
        ({"reference_focus_diopters": -1.0}, r"camera\.reference_focus_diopters: expected dioptres of 0"),
        ({"reference_focus_diopters": 250.0}, "inside the focal length 0.004 m"),
        ({"reference_focus_diopters": math.nan}, "expected finite dioptres"),
    ],
)
def test_wrong_units_are_told(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CAMERA, **change)


@given(st.floats(0.05, 4), st.floats(0, 5), st.floats(0, 5))
def test_a_resized_image_has_its_blur_and_rays_resized(factor: float, depth: float, focus: float) -> None:
    camera = Camera(0.004, 2.0, 4e-6, fx_px=1000.0, fy_px=1010.0, cx_px=159.5, cy_px=99.0)
    scaled = camera.scaled(factor)
    blur, blur_scaled = thin_lens.coc_px(depth, focus, camera), thin_lens.coc_px(depth, focus, scaled)
    assert float(blur_scaled) == pytest.approx(float(blur) * factor, rel=1e-9)
    # Edges of the image stay edges: pixel -0.5 is its left end at any size.
    assert (-0.5 - scaled.cx_px) / scaled.fx_px == pytest.approx((-0.5 - camera.cx_px) / camera.fx_px, rel=1e-9)
    assert (-0.5 - scaled.cy_px) / scaled.fy_px == pytest.approx((-0.5 - camera.cy_px) / camera.fy_px, rel=1e-9)


def test_intrinsics_that_are_derived_scale_too() -> None:
    fx = intrinsics(CAMERA, (200, 320)).fx
    assert intrinsics(CAMERA.scaled(0.5), (100, 160)).fx == pytest.approx(fx / 2)
    assert dataclasses.replace(CAMERA, softness_px2=0.4).scaled(0.5).softness_px2 == pytest.approx(0.1)


def test_a_camera_is_the_same_after_pickling() -> None:
    """With its unknown numbers, which are NaN: trackers would begin anew."""
    camera = Camera(0.05, 2.0, 4e-6, field=LensField(curvature=0.1))
    assert pickle.loads(pickle.dumps(camera)) == camera


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan])
def test_no_size_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="factor: expected a finite number over 0"):
        CAMERA.scaled(factor)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((20, 20), np.float32), TypeError, "expected a uint8 array, received float32"),
        ([[0]], TypeError, "expected a uint8 array, received list"),
        (np.zeros((20, 20, 4), np.uint8), ValueError, r"expected shape \(H, W\) or \(H, W, 3\) RGB, received"),
        (np.zeros((2, 20, 20, 3), np.uint8), ValueError, "expected shape"),
        (np.zeros((15, 40), np.uint8), ValueError, "expected at least 16 x 16 pixels, received 40 x 15"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_image(image, "image")
    with pytest.raises(error, match=rf"frame\.image: {message}"):
        Frame(image, 0.5)


def test_lens_states_of_the_future_are_unknown() -> None:
    assert LensState(0) is LensState.STATIONARY and LensState(1) is LensState.MOVING
    assert LensState(200) is LensState.UNKNOWN


def test_a_stack_fills_in_what_is_not_said() -> None:
    stack = FocalStack(images(), [0.2, 1, 2.5], CAMERA)  # type: ignore[arg-type]
    assert len(stack) == 3 and stack.size == (20, 30)
    assert stack.focus_diopters.dtype == np.float64
    assert stack.stamp_ns.dtype == np.int64 and stack.stamp_ns.tolist() == [0, 0, 0]
    assert stack.blur_scale.tolist() == [1, 1, 1] and np.isnan(stack.magnification).all()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stack.camera = CAMERA  # type: ignore[misc]


FOCUS = np.array([0.2, 1.0, 2.5])
POSE = Pose((0.01, 0.0, -0.02))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": images().astype(np.float32)}, TypeError, "images: expected a uint8 array, received float32"),
        ({"images": images(3, channels=4)}, ValueError, r"expected shape \(F, H, W, 3\) RGB or \(F, H, W\), received"),
        ({"images": images()[0, :, :, 0]}, ValueError, r"expected shape \(F, H, W, 3\)"),
        ({"images": images(1), "focus_diopters": FOCUS[:1]}, ValueError, "at least 2 images .* received 1"),
        ({"images": images(0), "focus_diopters": FOCUS[:0]}, ValueError, "at least 2 images .* received 0"),
        (
            {"images": images(MAX_FRAMES + 1, 16, 16), "focus_diopters": np.arange(MAX_FRAMES + 1.0)},
            ValueError,
            f"at most {MAX_FRAMES} images, received {MAX_FRAMES + 1}",
        ),
        ({"images": images(3, 15, 20)}, ValueError, "at least 16 x 16 pixels"),
        ({"focus_diopters": FOCUS[:2]}, ValueError, r"focus_diopters: expected shape \(3,\) .* received \(2,\)"),
        ({"focus_diopters": np.full(3, 0.7)}, ValueError, "all 3 images are at 0.7 dioptres; depth needs"),
        ({"focus_diopters": np.array([0.2, -0.1, 1])}, ValueError, r"focus_diopters\[1\]: expected dioptres of 0"),
        ({"focus_diopters": np.array([0.2, 1, np.nan])}, ValueError, r"focus_diopters\[2\]: expected finite"),
        ({"focus_diopters": np.array([0.2, 1, np.inf])}, ValueError, r"focus_diopters\[2\]: expected finite"),
        ({"focus_diopters": np.array([0.2, 1, 250])}, ValueError, "250.0 dioptres is 0.004 m, inside the focal length"),
        ({"stamp_ns": np.zeros(2, np.int64)}, ValueError, r"stamp_ns: expected shape \(3,\), received \(2,\)"),
        ({"blur_scale": np.array([1, 0, 1])}, ValueError, "blur_scale: expected finite numbers over 0"),
        ({"blur_scale": np.array([1, np.nan, 1])}, ValueError, "blur_scale: expected finite numbers over 0"),
        ({"focus_sigma_diopters": np.array([0, -1, 0])}, ValueError, r"focus_sigma_diopters: expected 0 \(exact\)"),
        ({"focus_sigma_diopters": np.array([0, np.inf, 0])}, ValueError, "focus_sigma_diopters: expected 0"),
        ({"poses": (None,)}, ValueError, "poses: expected none or 3, received 1"),
        ({"magnification": np.ones(4)}, ValueError, r"magnification: expected shape \(3,\)"),
    ],
)
def test_what_makes_no_stack_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"images": images(), "focus_diopters": FOCUS, "camera": CAMERA}
    assert len(FocalStack(**good)) == 3
    with pytest.raises(error, match=message):
        FocalStack(**{**good, **change})


def test_frames_become_a_stack() -> None:
    pixels = images(channels=None)
    frames = [
        Frame(image, focus, stamp_ns=10**18 + i, magnification=1 + 0.01 * i, focus_sigma_diopters=0.1 * i, pose=POSE)
        for i, (image, focus) in enumerate(zip(pixels, FOCUS, strict=True))
    ]
    stack = FocalStack.from_frames(frames, CAMERA)
    np.testing.assert_array_equal(stack.images, pixels)
    np.testing.assert_array_equal(stack.focus_diopters, FOCUS)
    assert stack.stamp_ns.tolist() == [10**18, 10**18 + 1, 10**18 + 2]  # int64, not a rounded float
    assert stack.magnification.tolist() == [1.0, 1.01, 1.02]
    assert stack.focus_sigma_diopters.tolist() == [0.0, 0.1, 0.2]
    assert reduced(stack, 400e-6).focus_sigma_diopters.tolist() == [0.0, 0.1, 0.2]
    assert reduced(stack, 400e-6).poses == stack.poses == (POSE,) * 3


def test_frames_of_two_sizes_or_none_at_all_are_refused() -> None:
    frames = [Frame(images()[0], 0.5), Frame(images(1, 22)[0], 1.0)]
    with pytest.raises(ValueError, match=r"one size, received \[\(20, 30, 3\), \(22, 30, 3\)\]"):
        FocalStack.from_frames(frames, CAMERA)
    frames = [Frame(images()[0], focus, original_size_px=(20 * n, 30 * n)) for n, focus in ((1, 0.5), (2, 1.0))]
    with pytest.raises(ValueError, match=r"one size, received \[\(20, 30\), \(40, 60\)\]"):
        FocalStack.from_frames(frames, CAMERA)
    with pytest.raises(ValueError, match="received 0"):
        FocalStack.from_frames([], CAMERA)


def test_coverage_is_the_share_of_pixels_with_depth() -> None:
    depth = np.ones((4, 5), np.float32)
    depth[0, :3] = np.nan
    result = DepthResult(depth, depth, depth, np.zeros((4, 5, 3), np.uint8), CAMERA)
    assert result.coverage == pytest.approx(1 - 3 / 20)


# -- reduction ---------------------------------------------------------------------------------------------------------

sides = st.integers(16, 5000)
limits = st.floats(0.01, 50.0)


@given(sides, sides, limits)
def test_a_working_size_is_its_own(height: int, width: int, max_megapixels: float) -> None:
    size = working_size((height, width), max_megapixels)
    assert working_size(size, max_megapixels) == size
    assert 16 <= size[0] <= height and 16 <= size[1] <= width
    assert min(size) == 16 or (size[0] - 0.5) * (size[1] - 0.5) <= max_megapixels * 1e6
    if size != (height, width):  # both sides by one factor, but for the rounding
        assert abs(size[0] / height - size[1] / width) <= 0.5 / height + 0.5 / width + 1e-9


def test_what_is_reduced_is_not_reduced_again_for_a_rounded_pixel() -> None:
    """1280 x 816 pixels become 886 x 565, which is over half a million; 885 x 565 would be less."""
    once = reduced(FocalStack(images(2, 816, 1280), FOCUS[:2], CAMERA), 0.5)
    assert once.size == (565, 886) and 565 * 886 > 0.5e6
    assert reduced(once, 0.5) is once
    assert once.camera == CAMERA.scaled(886 / 1280)


def test_frames_are_reduced_as_stacks_and_the_camera_once() -> None:
    pixels = images(2, 200, 300)
    whole = [Frame(image, focus, stamp_ns=7) for image, focus in zip(pixels, FOCUS, strict=False)]
    small = [reduced_frame(frame, 0.01) for frame in whole]
    assert [(f.original_size_px, f.stamp_ns, f.scale) for f in small] == [((200, 300), 7, 122 / 300)] * 2
    assert reduced_frame(small[0], 0.01) is small[0]
    stack, expected = FocalStack.from_frames(small, CAMERA), reduced(FocalStack.from_frames(whole, CAMERA), 0.01)
    np.testing.assert_array_equal(stack.images, expected.images)
    assert stack.camera == expected.camera == CAMERA.scaled(122 / 300)

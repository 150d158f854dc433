"""Alignment: what was done to a stack on purpose is found."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from alignment_rig import (
    CAMERA,
    FOCUS,
    MIDDLE,
    SIZE,
    corner_error_px,
    errors_px,
    lens,
    photograph,
    scene,
    stack_of,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage import data

from dfs_ros.alignment.align import align
from dfs_ros.config import AlignmentConfig
from dfs_ros.optics import thin_lens

# What was done is found


def test_the_measure_of_error_sees_a_wrong_motion() -> None:
    true = lens(0.01, shift_px=(3, -2), degrees=0.5)
    assert corner_error_px(true, lens(0.0), true) < 1e-9
    assert corner_error_px(lens(0.01, shift_px=(3, -2)), lens(0.0), true) > 1.0
    assert corner_error_px(lens(0.01, shift_px=(3, -1), degrees=0.5), lens(0.0), true) == pytest.approx(1.0)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    photo=st.sampled_from(["coffee", "astronaut", "chelsea"]),
    breathing=st.floats(-0.5, 2.5),
    shifts=st.lists(st.floats(-12, 12), min_size=10, max_size=10),
    degrees=st.lists(st.floats(-1.5, 1.5), min_size=5, max_size=5),
    gains=st.lists(st.floats(0.8, 1.2), min_size=5, max_size=5),
    blur=st.lists(st.integers(0, 16).map(lambda quarters: quarters / 4), min_size=5, max_size=5),
)
# At half the image's size this one was wrong by 0.304 px.
@example("astronaut", 1.0, [0.0] * 4 + [3.0, 1.0] + [0.0] * 4, [0.0] * 5, [1.0] * 5, [0.0] * 5)
def test_motion_and_gain_are_recovered(
    photo: str,
    breathing: float,
    shifts: list[float],
    degrees: list[float],
    gains: list[float],
    blur: list[float],
) -> None:
    log_scales = breathing * np.log(thin_lens.magnification(FOCUS, CAMERA))
    motions = [
        lens(float(s), shift_px=(shifts[2 * i], shifts[2 * i + 1]), degrees=degrees[i])
        for i, s in enumerate(log_scales)
    ]
    picture = getattr(data, photo)() * np.float64(0.8)  # room for gains above 1
    images = [
        photograph(picture, m, blur_px=b, gain=g, noise_levels=1.0, seed=i)
        for i, (m, b, g) in enumerate(zip(motions, blur, gains, strict=True))
    ]
    aligned = align(stack_of(images))
    assert aligned.kept == (0, 1, 2, 3, 4)
    assert aligned.kept[aligned.reference] == MIDDLE
    assert max(errors_px(aligned, motions)) < 0.3
    for i, estimate in enumerate(aligned.estimates):
        assert estimate.gain == pytest.approx(gains[MIDDLE] / gains[i], rel=0.015)
        assert estimate.correlation > 0.9


def test_a_still_scene_stays_where_it_is() -> None:
    for defocus in (0.0, 1.5):
        blur = [defocus * abs(float(d) - 1.0) for d in FOCUS]
        aligned = align(scene(noise_levels=[1.0] * 5, blur_px=blur))
        assert max(errors_px(aligned, [lens(0.0)] * 5)) < 0.1
    assert abs(aligned.breathing) < 0.05
    assert [e.gain for e in aligned.estimates] == pytest.approx([1.0] * 5, abs=0.004)


def test_images_that_need_nothing_are_not_resampled() -> None:
    image = photograph(data.coffee(), lens(0.0))
    stack = stack_of([image] * 5)
    aligned = align(stack)
    np.testing.assert_array_equal(aligned.stack.images, stack.images)
    assert aligned.valid.all()


def test_distortion_that_changes_with_focus_is_removed() -> None:
    motions = [lens(0.012 * d, radial=-0.003 * d) for d in FOCUS]
    aligned = align(scene(motion=motions))
    assert max(errors_px(aligned, motions)) < 0.3
    without = [replace(e.motion, radial=0.0) for e in aligned.estimates]
    assert corner_error_px(without[0], motions[MIDDLE], motions[0]) > 0.5
    assert aligned.estimates[0].motion.radial == pytest.approx(-0.003 * (FOCUS[0] - FOCUS[MIDDLE]), abs=0.001)


def test_how_much_the_lens_breathes_is_found_and_the_intrinsics_follow() -> None:
    model = np.log(thin_lens.magnification(FOCUS, CAMERA))
    aligned = align(scene(motion=[lens(1.8 * float(m)) for m in model]))
    assert aligned.breathing == pytest.approx(1.8, abs=0.1)
    camera = aligned.stack.camera
    assert camera.reference_focus_diopters == FOCUS[MIDDLE]
    at_infinity = CAMERA.focal_length_m / CAMERA.pixel_pitch_m
    assert camera.fx_px == pytest.approx(at_infinity * math.exp(1.8 * model[MIDDLE]), rel=2e-3)
    assert (camera.cx_px, camera.cy_px) == ((SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2)
    np.testing.assert_array_equal(aligned.stack.magnification, 1.0)


def test_large_motion_is_found() -> None:
    motions = [lens(0.0, shift_px=(x, y)) for x, y in ((40, 0), (-20, 15), (0, 0), (10, -35), (-38, -20))]
    aligned = align(scene(motion=motions))
    assert aligned.kept == (0, 1, 2, 3, 4)
    assert max(errors_px(aligned, motions)) < 0.3


def test_local_motion_is_found_where_there_is_some() -> None:
    """The lower half moves against the upper half, as near and far things do when the camera moves."""
    height, width = SIZE
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    still = photograph(data.coffee(), lens(0.0), blur_px=1.0)
    slide = 3.0 * np.tanh((y - height / 2) / 30).astype(np.float32)
    moved = cv2.remap(still, x - slide, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    stack = stack_of([still, still, still, moved, still])
    inner = (slice(20, -20), slice(20, -20))

    def error_px(config: AlignmentConfig) -> float:
        map_x, map_y = align(stack, config).estimates[3].motion.maps(SIZE)
        return float(np.sqrt(np.mean((np.square(map_x - x - slide) + np.square(map_y - y))[inner])))

    assert error_px(AlignmentConfig(local_motion=False)) > 1.2
    assert error_px(AlignmentConfig()) < 0.65
    aligned = align(stack)
    assert [e.motion.local is not None for e in aligned.estimates] == [False, False, False, True, False]
    assert aligned.estimates[3].report()["local_px"] > 2.0


def test_an_earlier_estimate_is_where_the_search_starts() -> None:
    far = lens(0.0, degrees=25)
    stack = scene(motion=[lens(0.0)] * 4 + [far], blur_px=[1.0] * 5)
    config = AlignmentConfig(max_rotation_deg=40.0)
    alone = align(stack, config)
    assert alone.kept == (0, 1, 2, 3), "too far to be found from scratch"
    earlier = list(alone.estimates)
    nearby = lens(0.002, shift_px=(1, -1), degrees=24.5)
    earlier[4] = replace(earlier[4], motion=nearby, source="images", correlation=0.5, dropped="", detail=None)
    aligned = align(stack, config, initial=earlier)
    assert aligned.kept == (0, 1, 2, 3, 4)
    assert max(errors_px(aligned, [lens(0.0)] * 4 + [far])) < 0.3


def test_an_outdated_estimate_does_not_stick() -> None:
    before = align(scene(motion=[lens(0.01 * d, shift_px=(6 * d, -4 * d)) for d in FOCUS]))
    motions = [lens(0.01 * d, shift_px=(-9 * d, 5 * d)) for d in FOCUS]
    moved = scene(motion=motions)
    assert max(errors_px(align(moved, initial=before.estimates), motions)) < 0.3

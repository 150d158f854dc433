"""Alignment: what comes out of it; what does not belong is dropped, not used."""

from __future__ import annotations

import itertools
import logging
import math
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from alignment_rig import (
    CAMERA,
    FOCUS,
    MIDDLE,
    SIZE,
    STACKS,
    errors_px,
    lens,
    photograph,
    scene,
    stack_of,
    to_light,
    to_value,
)
from skimage import data

from dfs_ros.alignment.align import align
from dfs_ros.alignment.exposure import gain_table
from dfs_ros.alignment.registration import Features, Motion
from dfs_ros.alignment.resampling import equalized
from dfs_ros.config import AlignmentConfig
from dfs_ros.optics import thin_lens
from dfs_ros.pose import Pose
from dfs_ros.types import Camera, FocalStack

# What comes out


def test_aligned_images_coincide_in_place_and_brightness() -> None:
    motions = [lens(0.012 * d, shift_px=(2 * d, -d), degrees=0.3 * d) for d in FOCUS]
    stack = scene(motion=motions, gain=[0.6, 0.8, 0.7, 0.5, 0.75], blur_px=[1.0] * 5)
    aligned = align(stack)
    reference = aligned.stack.images[aligned.reference].astype(float)
    inner = aligned.valid & (reference.max(axis=2) < 200)
    for before, after in zip(stack.images, aligned.stack.images, strict=True):
        if before is stack.images[MIDDLE]:
            continue
        assert np.sqrt(np.mean((after - reference)[inner] ** 2)) < 3.0
    assert np.sqrt(np.mean((stack.images[0] - reference)[inner] ** 2)) > 15.0


def test_the_reference_is_not_moved_and_coverage_is_known() -> None:
    motions = [lens(0.0, shift_px=(x, 0)) for x in (0, 8, 0, -5, 0)]
    stack = scene(motion=motions, gain=[0.9, 1.0, 0.8, 1.0, 0.9])
    for reference in (None, 1):
        aligned = align(stack, reference=reference)
        index = MIDDLE if reference is None else reference
        assert aligned.kept[aligned.reference] == index
        filtered = equalized(stack.images[index].astype(np.float32))
        np.testing.assert_array_equal(aligned.stack.images[aligned.reference], np.rint(np.clip(filtered, 0, 255)))
    aligned = align(replace(stack, focus_sigma_diopters=np.array([0.0, 0.1, 0.2, math.nan, 0.4])))
    np.testing.assert_array_equal(aligned.stack.focus_sigma_diopters, [0.0, 0.1, 0.2, math.nan, 0.4])
    columns = np.flatnonzero(aligned.valid.all(axis=0))
    # A frame whose picture lies 8 px to the right ends 8 px before the reference does.
    assert (columns[0], columns[-1]) == pytest.approx((5, SIZE[1] - 1 - 8), abs=1)


def test_blur_is_scaled_with_the_image() -> None:
    motions = [lens(0.02 * d) for d in FOCUS]
    stack = replace(scene(motion=motions), blur_scale=np.full(5, 2.0))
    aligned = align(stack)
    np.testing.assert_allclose(aligned.stack.blur_scale, 2.0 * np.exp(-0.02 * (FOCUS - FOCUS[MIDDLE])), rtol=2e-3)


def test_the_magnification_of_another_focus_can_be_asked_for() -> None:
    model = np.log(thin_lens.magnification(FOCUS, CAMERA))
    stack = scene(motion=[lens(float(m)) for m in model])
    config = AlignmentConfig(target_focus_diopters=0.0)
    aligned = align(stack, config)
    want = photograph(data.coffee(), lens(0.0), blur_px=float(thin_lens.coc_px(1.0, FOCUS[MIDDLE], CAMERA)))
    inner = np.s_[10:-10, 10:-10]
    got = aligned.stack.images[aligned.reference].astype(float)
    assert np.abs(got - equalized(want.astype(np.float32)))[inner].mean() < 1.5
    assert np.abs(stack.images[MIDDLE] - want.astype(float))[inner].mean() > 3.0
    np.testing.assert_allclose(aligned.stack.blur_scale, np.exp(-model), rtol=2e-3)
    assert aligned.stack.camera.fx_px == pytest.approx(CAMERA.focal_length_m / CAMERA.pixel_pitch_m, rel=1e-3)
    assert aligned.stack.camera.reference_focus_diopters == 0.0


def test_gain_is_applied_to_light() -> None:
    table = gain_table(0.5, "srgb")
    assert table[200] == pytest.approx(float(to_value(0.5 * to_light(np.array(200.0)))), abs=1e-3)
    assert gain_table(0.5, "linear")[200] == pytest.approx(100.0)
    linear = AlignmentConfig(transfer_curve="linear")
    bright = photograph(data.coffee(), lens(0.0))
    dark = np.rint(bright * 0.7).astype(np.uint8)
    aligned = align(stack_of([dark, bright, bright, bright, bright]), linear)
    assert aligned.estimates[0].gain == pytest.approx(1 / 0.7, rel=0.01)
    assert (
        align(stack_of([dark] * 3 + [bright] * 2), replace(linear, normalize_exposure=False)).estimates[4].gain == 1.0
    )


def test_grey_images_and_odd_sizes() -> None:
    stack = scene()
    grey = FocalStack(np.ascontiguousarray(stack.images[:, 3:104, 5:90, 1]), FOCUS, CAMERA)
    aligned = align(grey)
    assert aligned.stack.images.shape == grey.images.shape
    assert all(e.motion.largest_displacement_px() < 0.5 for e in aligned.estimates)


# What does not belong


@pytest.mark.parametrize("wrong", [0, MIDDLE])
def test_a_frame_of_another_scene_is_dropped_with_a_warning(wrong: int, caplog: pytest.LogCaptureFixture) -> None:
    motions = [lens(0.01 * d, shift_px=(d, d)) for d in FOCUS]
    stack = scene(motion=motions)
    stack.images[wrong] = cv2.resize(data.astronaut(), SIZE[::-1])
    stack = replace(stack, poses=tuple(Pose((float(i), 0.0, 0.0)) for i in range(5)))
    with caplog.at_level(logging.WARNING, logger="dfs_ros.alignment.align"):
        aligned = align(stack)
    assert aligned.kept == tuple(i for i in range(5) if i != wrong)
    assert len(aligned.stack) == 4
    np.testing.assert_array_equal(aligned.stack.focus_diopters, np.delete(FOCUS, wrong))
    assert aligned.stack.poses == tuple(stack.poses[i] for i in aligned.kept)
    assert "does not show the same scene" in aligned.estimates[wrong].dropped
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert f"frame {wrong} " in caplog.text
    assert max(errors_px(aligned, motions)) < 0.3, "the wrong frame must not disturb the others"


@pytest.mark.parametrize("level", [0, 255])
def test_a_blank_frame_is_dropped(level: int) -> None:
    stack = scene()
    stack.images[MIDDLE] = level
    aligned = align(stack)
    assert aligned.kept == (0, 1, 3, 4)
    assert "no texture in common" in aligned.estimates[MIDDLE].dropped


@pytest.mark.parametrize("bright", [0, MIDDLE])
def test_an_over_exposed_frame_is_dropped_and_is_no_reference(bright: int) -> None:
    stack = scene()
    stack.images[bright] = np.clip(stack.images[bright].astype(np.float64) * 3.0, 0, 255).astype(np.uint8)
    aligned = align(stack)
    assert aligned.kept == tuple(i for i in range(5) if i != bright)
    assert re.match(r"it is over-exposed: \d+% of its pixels are clipped", aligned.estimates[bright].dropped)
    all_bright = replace(stack, images=np.stack([stack.images[bright]] * 5))
    assert align(all_bright).kept == (0, 1, 2, 3, 4)


def test_too_few_frames_of_one_scene_is_an_error() -> None:
    stack = scene()
    for i, photo in enumerate((data.astronaut(), data.chelsea(), data.rocket(), data.hubble_deep_field())):
        stack.images[i] = cv2.resize(photo, SIZE[::-1])
    with pytest.raises(ValueError, match="at least 2 of 5 frames to show the same scene, found 1"):
        align(stack)
    stack = scene()
    stack.images[1] = cv2.resize(data.astronaut(), SIZE[::-1])
    with pytest.raises(ValueError, match="found 1"):
        align(stack, reference=1)


@pytest.mark.parametrize(
    ("motion", "limit", "reason"),
    [
        (lens(0.0, shift_px=(40, 0)), {"max_shift": 0.1}, "shifted by 40 px, expected at most 32 px"),
        (lens(0.06), {"max_zoom": 0.03}, "its scale is 1.06"),
        (lens(0.0, degrees=6), {"max_rotation_deg": 4.0}, "rotated by 6.0 deg"),
    ],
)
def test_implausible_motion_is_not_believed(motion: Motion, limit: dict[str, float], reason: str) -> None:
    motions = [lens(0.0)] * 4 + [motion]
    stack = scene(motion=motions, blur_px=[1.0] * 5)
    assert align(stack, AlignmentConfig(max_zoom=0.2)).kept == (0, 1, 2, 3, 4)
    aligned = align(stack, AlignmentConfig(**limit))
    assert aligned.kept == (0, 1, 2, 3)
    assert reason in aligned.estimates[4].dropped


# Where images say nothing


@pytest.mark.parametrize("noise_levels", [0.0, 4.0])
def test_without_texture_the_lens_model_stands_in(noise_levels: float) -> None:
    noise = np.random.default_rng(0).normal(128, noise_levels, (5, *SIZE, 3))
    aligned = align(stack_of(list(np.rint(noise).astype(np.uint8))))
    model = thin_lens.magnification(FOCUS, CAMERA)
    assert aligned.kept == (0, 1, 2, 3, 4)
    assert [e.source for e in aligned.estimates] == ["prior", "prior", "reference", "prior", "prior"]
    assert [e.motion.scale for e in aligned.estimates] == pytest.approx(list(model / model[MIDDLE]), rel=1e-9)
    assert all(e.motion.shift_px == (0.0, 0.0) and e.gain == 1.0 for e in aligned.estimates)


def test_texture_that_blur_wiped_out_is_no_reason_to_drop() -> None:
    camera = replace(CAMERA, pixel_pitch_m=1.5e-6)
    dots = np.random.default_rng(0).integers(0, 2, (*SIZE, 1)).astype(np.float64) * 60 + 100
    images = [np.repeat(np.rint(dots), 3, axis=2).astype(np.uint8)] * 2 + [np.full((*SIZE, 3), 130, np.uint8)]
    focus = np.array([1.0, 0.9, 3.0])
    assert Features(images[0], 160, "srgb").contrast(1) > 1.0
    aligned = align(FocalStack(np.stack(images), focus, camera), reference=0)
    assert aligned.kept == (0, 1, 2)
    assert aligned.estimates[2].source == "prior"
    little_blur = replace(camera, f_number=90.0)
    assert align(FocalStack(np.stack(images), focus, little_blur), reference=0).kept == (0, 1)


def test_modes() -> None:
    motions = [lens(0.03 * d, shift_px=(3 * d, 0)) for d in FOCUS]
    stack = scene(motion=motions, gain=[0.8] * 4 + [0.9])
    off = align(stack, AlignmentConfig(mode="off"))
    assert off.stack is stack
    assert off.valid.all()
    assert {e.motion.largest_displacement_px() for e in off.estimates} == {0.0}
    prior = align(stack, AlignmentConfig(mode="prior"))
    model = thin_lens.magnification(FOCUS, CAMERA)
    assert [e.motion.scale for e in prior.estimates] == pytest.approx(list(model / model[MIDDLE]))
    slope = AlignmentConfig(mode="prior", prior="linear", zoom_slope_m=0.03, zoom_intercept=1.0)
    linear = 1.0 + 0.03 * FOCUS
    found = align(stack, slope)
    assert [e.motion.scale for e in found.estimates] == pytest.approx(list(linear / linear[MIDDLE]))
    np.testing.assert_allclose(found.stack.blur_scale, linear[MIDDLE] / linear)


def test_known_magnification_replaces_the_lens_model() -> None:
    blank = stack_of([np.full((*SIZE, 3), 90, np.uint8)] * 5)
    known = replace(blank, magnification=1.0 + 0.02 * FOCUS)
    scales = known.magnification / known.magnification[MIDDLE]
    assert [e.motion.scale for e in align(known).estimates] == pytest.approx(list(scales))
    assert align(known).stack.camera.fx_px == pytest.approx(1.02 * CAMERA.focal_length_m / CAMERA.pixel_pitch_m)
    still = align(replace(blank, magnification=np.ones(5)))
    np.testing.assert_array_equal(still.stack.images, blank.images)
    partly = replace(blank, magnification=np.array([1.05, math.nan, 1.02, math.nan, 1.004]))
    scale = align(partly).estimates[1].motion.scale
    assert 1.0 < scale < 1.05 / 1.02, "between its neighbours"


def test_wrong_arguments_say_what_was_expected() -> None:
    stack = scene()
    with pytest.raises(ValueError, match="0 to 4, received 5"):
        align(stack, reference=5)
    with pytest.raises(ValueError, match="estimates of 5 frames as in the stack, received 1"):
        align(stack, initial=align(stack).estimates[:1])
    with pytest.raises(ValueError, match="magnification over 0"):
        align(stack, AlignmentConfig(prior="linear", zoom_slope_m=-1.0))
    long_lens = replace(stack, camera=replace(CAMERA, focal_length_m=0.05))
    with pytest.raises(ValueError, match=r"target_focus_diopters: .* inside the focal length"):
        align(long_lens, AlignmentConfig(target_focus_diopters=25.0))


# Real photos


def load(name: str) -> FocalStack:
    folder = STACKS / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    description = yaml.safe_load((folder / "stack.yaml").read_text())
    images = [cv2.imread(str(folder / f["file"]))[..., ::-1] for f in description["frames"]]
    focus = np.array([f["focus_diopters"] for f in description["frames"]])
    return FocalStack(np.ascontiguousarray(images), focus, Camera(**description["camera"]))


def flicker(stack: FocalStack, inside: np.ndarray) -> float:
    """Share of edges that differ between neighbours in focus: |grad a - grad b| over |grad a| + |grad b|."""
    order = np.argsort(stack.focus_diopters)
    shares = []
    for first, second in itertools.pairwise(order):
        slopes = []
        for image in (stack.images[first], stack.images[second]):
            grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 2.0)
            slopes.append(np.stack([cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)])[:, inside])
        difference = np.abs(slopes[0] - slopes[1]).sum()
        shares.append(difference / (np.abs(slopes[0]).sum() + np.abs(slopes[1]).sum()))
    return float(np.mean(shares))


@pytest.mark.parametrize(
    ("name", "breathing", "improvement"),
    [("phone_boxes", (1.7, 1.95), 2.5), ("tablet_keyboard", (1.9, 2.15), 1.8), ("phone_desk", (1.3, 2.2), 2.0)],
)
def test_real_stacks(name: str, breathing: tuple[float, float], improvement: float) -> None:
    stack = load(name)
    aligned = align(stack)
    assert aligned.kept == tuple(range(len(stack)))
    assert all(e.correlation > 0.95 for e in aligned.estimates)
    assert breathing[0] < aligned.breathing < breathing[1]
    assert aligned.valid.mean() > 0.9
    assert flicker(stack, aligned.valid) > improvement * flicker(aligned.stack, aligned.valid)
    if name != "phone_desk":  # the others stood on a tripod
        scales = np.log([e.motion.scale for e in aligned.estimates])
        fit = np.polyfit(stack.focus_diopters, scales, 1)
        assert np.abs(scales - np.polyval(fit, stack.focus_diopters)).max() < 0.0015
        assert max(math.hypot(*e.motion.shift_px) for e in aligned.estimates) < 0.6
        assert max(abs(e.motion.rotation_rad) for e in aligned.estimates) < 2e-4
        assert all(e.motion.local is None for e in aligned.estimates)

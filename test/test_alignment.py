"""Alignment: what was done to a stack on purpose is found and undone; what does not belong is dropped, not used."""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage import data

from dfs_ros import optics
from dfs_ros.alignment import AlignedStack, align
from dfs_ros.config import AlignmentConfig
from dfs_ros.exposure import gain_table
from dfs_ros.registration import Features, Motion
from dfs_ros.types import Camera, FocalStack

SIZE = (240, 320)
CAMERA = Camera(focal_length_m=0.0068, f_number=1.85, pixel_pitch_m=9e-6)
FOCUS = np.array([2.5, 1.6, 1.0, 0.5, 0.2])
MIDDLE = 2
STACKS = Path(__file__).resolve().parents[2] / "shared" / "data" / "stacks"


def to_light(value: np.ndarray) -> np.ndarray:
    value = value / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def to_value(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0.0, 1.0)
    return 255.0 * np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def photograph(
    photo: np.ndarray,
    motion: Motion,
    *,
    blur_px: float = 0.0,
    gain: float = 1.0,
    noise_levels: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """What a camera sees of a flat photo. `motion` leads from the middle of the photo, SIZE large, to the image."""
    light = to_light(photo.astype(np.float32))
    if blur_px > 0:
        light = cv2.filter2D(light, -1, optics.disk_psf(blur_px, 2 * math.ceil(blur_px / 2) + 1))
    # The way back by fixed-point iteration, so that this code shares none of the inverse with the code under test.
    height, width = motion.size
    target_x, target_y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = target_x.copy(), target_y.copy()
    for _ in range(20):
        forward_x, forward_y = forward(motion, x, y)
        x, y = x + target_x - forward_x, y + target_y - forward_y
    x, y = x + (photo.shape[1] - width) / 2, y + (photo.shape[0] - height) / 2
    seen = cv2.remap(
        light * np.float32(gain), np.float32(x), np.float32(y), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    noise = np.random.default_rng(seed).normal(0.0, noise_levels, seen.shape) if noise_levels else 0.0
    return np.rint(np.clip(to_value(seen) + noise, 0.0, 255.0)).astype(np.uint8)


def forward(motion: Motion, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where `motion` takes pixels, from its formula."""
    height, width = motion.size
    unit = max(motion.size) / 2
    u, v = (x - (width - 1) / 2) / unit, (y - (height - 1) / 2) / unit
    stretch = 1.0 + motion.radial * (u * u + v * v)
    a = motion.affine
    return (
        (a[0, 0] * u * stretch + a[0, 1] * v * stretch + a[0, 2]) * unit + (width - 1) / 2,
        (a[1, 0] * u * stretch + a[1, 1] * v * stretch + a[1, 2]) * unit + (height - 1) / 2,
    )


def lens(log_scale: float, *, shift_px: tuple[float, float] = (0, 0), degrees: float = 0, radial: float = 0) -> Motion:
    unit = max(SIZE) / 2
    shift = (shift_px[0] / unit, shift_px[1] / unit)
    return Motion.from_parameters(SIZE, shift, log_scale, math.radians(degrees), radial)


def stack_of(images: list[np.ndarray], focus: np.ndarray = FOCUS, camera: Camera = CAMERA) -> FocalStack:
    return FocalStack(np.stack(images), focus, camera)


def scene(**changes: list) -> FocalStack:
    """A still stack of the coffee photo, sharp at 1 dioptre; `changes` gives each frame its value of that argument."""
    motions = changes.pop("motion", [lens(0.0)] * len(FOCUS))
    blur = changes.pop("blur_px", list(optics.coc_px(1.0, FOCUS, CAMERA) / 2))
    images = []
    for i, motion in enumerate(motions):
        values = {name: value[i] for name, value in changes.items()}
        images.append(photograph(data.coffee(), motion, blur_px=blur[i], seed=i, **values))
    return stack_of(images)


def corner_error_px(found: Motion, reference: Motion, frame: Motion) -> float:
    """Largest error at the corners of the map from reference to frame, both known from the flat photo."""
    height, width = SIZE
    x, y = (c.ravel() for c in np.meshgrid([0.0, (width - 1) / 2, width - 1.0], [0.0, (height - 1) / 2, height - 1.0]))
    on_reference = forward(reference, x, y)
    true = forward(frame, x, y)
    guess = forward(found, *on_reference)
    return float(np.hypot(guess[0] - true[0], guess[1] - true[1]).max())


def errors_px(aligned: AlignedStack, motions: list[Motion]) -> list[float]:
    reference = motions[aligned.kept[aligned.reference]]
    return [corner_error_px(aligned.estimates[i].motion, reference, motions[i]) for i in aligned.kept]


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
    log_scales = breathing * np.log(optics.magnification(FOCUS, CAMERA))
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
    model = np.log(optics.magnification(FOCUS, CAMERA))
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
    earlier[4] = replace(earlier[4], motion=nearby, source="images", correlation=0.5, dropped="")
    aligned = align(stack, config, initial=earlier)
    assert aligned.kept == (0, 1, 2, 3, 4)
    assert max(errors_px(aligned, [lens(0.0)] * 4 + [far])) < 0.3


def test_an_outdated_estimate_does_not_stick() -> None:
    before = align(scene(motion=[lens(0.01 * d, shift_px=(6 * d, -4 * d)) for d in FOCUS]))
    motions = [lens(0.01 * d, shift_px=(-9 * d, 5 * d)) for d in FOCUS]
    moved = scene(motion=motions)
    assert max(errors_px(align(moved, initial=before.estimates), motions)) < 0.3


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


def test_the_reference_is_not_resampled_and_coverage_is_known() -> None:
    motions = [lens(0.0, shift_px=(x, 0)) for x in (0, 8, 0, -5, 0)]
    stack = scene(motion=motions, gain=[0.9, 1.0, 0.8, 1.0, 0.9])
    for reference in (None, 1):
        aligned = align(stack, reference=reference)
        index = MIDDLE if reference is None else reference
        assert aligned.kept[aligned.reference] == index
        np.testing.assert_array_equal(aligned.stack.images[aligned.reference], stack.images[index])
    aligned = align(stack)
    columns = np.flatnonzero(aligned.valid.all(axis=0))
    # A frame whose picture lies 8 px to the right ends 8 px before the reference does.
    assert (columns[0], columns[-1]) == pytest.approx((5, SIZE[1] - 1 - 8), abs=1)


def test_blur_is_scaled_with_the_image() -> None:
    motions = [lens(0.02 * d) for d in FOCUS]
    stack = replace(scene(motion=motions), blur_scale=np.full(5, 2.0))
    aligned = align(stack)
    np.testing.assert_allclose(aligned.stack.blur_scale, 2.0 * np.exp(-0.02 * (FOCUS - FOCUS[MIDDLE])), rtol=2e-3)


def test_the_magnification_of_another_focus_can_be_asked_for() -> None:
    model = np.log(optics.magnification(FOCUS, CAMERA))
    stack = scene(motion=[lens(float(m)) for m in model])
    config = AlignmentConfig(target_focus_diopters=0.0)
    aligned = align(stack, config)
    want = photograph(data.coffee(), lens(0.0), blur_px=float(optics.coc_px(1.0, FOCUS[MIDDLE], CAMERA)))
    inner = np.s_[10:-10, 10:-10]
    got = aligned.stack.images[aligned.reference].astype(float)
    assert np.abs(got - want)[inner].mean() < 1.5
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
    with caplog.at_level(logging.WARNING, logger="dfs_ros.alignment"):
        aligned = align(stack)
    assert aligned.kept == tuple(i for i in range(5) if i != wrong)
    assert len(aligned.stack) == 4
    np.testing.assert_array_equal(aligned.stack.focus_diopters, np.delete(FOCUS, wrong))
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
    model = optics.magnification(FOCUS, CAMERA)
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
    model = optics.magnification(FOCUS, CAMERA)
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

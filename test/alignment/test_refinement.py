"""Registration with a first depth: no bias by blur, parallax by depth, nothing anew while nothing moves."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_research.evaluation.lens_blur import LensBlur
from dfs_research.evaluation.views import View, render_views
from dfs_ros.alignment.align import AlignedStack, align
from dfs_ros.alignment.matching import difference_px
from dfs_ros.alignment.refinement import blurred, refined
from dfs_ros.alignment.registration import Motion
from dfs_ros.config import AlignmentConfig, Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.optics import thin_lens
from dfs_ros.simulation.pupil import Pupil
from dfs_ros.simulation.render import decode, encode_uint8, render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera, FocalStack

HEIGHT, WIDTH = SIZE = (192, 256)
Y, X = np.indices(SIZE)
FOCUS = (2.0, 1.5, 1.1, 0.7)
REFERENCE = 1
DEPTH_M = np.where((np.abs(X - 128) < 60) & (Y > 40), 0.55, 1.4)
DIOPTERS = np.float32(1.0 / DEPTH_M)


@pytest.fixture(scope="module")
def still() -> FocalStack:
    """Seen by a lens of 15 px a dioptre that neither moves nor breathes."""
    stack = render_stack(plane_scene(1.0, WIDTH, HEIGHT, seed=3).rgb, DEPTH_M, Camera(0.008, 1.4, 3e-6), FOCUS, rng=1)
    return dataclasses.replace(stack, magnification=np.full(len(FOCUS), math.nan))


def errors_px(aligned: AlignedStack, true: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Root mean square error of every frame's map."""
    maps = [e.motion.maps(SIZE) for e in aligned.estimates]
    return [float(np.sqrt(np.mean((x - tx) ** 2 + (y - ty) ** 2))) for (x, y), (tx, ty) in zip(maps, true, strict=True)]


def test_blur_does_not_bias_the_motion(still: FocalStack) -> None:
    first = align(still)
    assert first.reference == REFERENCE
    assert max(errors_px(first, [(X, Y)] * 4)) > 0.12, "blur biases registration of this scene"
    found, moved, _ = refined(still, first, DIOPTERS, "srgb")
    assert moved
    assert max(errors_px(found, [(X, Y)] * 4)) < 0.05
    np.testing.assert_array_equal(found.stack.images[REFERENCE], still.images[REFERENCE])
    np.testing.assert_allclose(found.stack.blur_scale, 1.0, atol=1e-3)


def test_a_moving_camera_is_followed_by_depth() -> None:
    """1 mm sideways and 2 mm forward from image to image: parallax of a pixel."""
    camera, count = Camera(0.008, 1.4, 6e-6), len(FOCUS)
    positions = [(0.001 * (i - REFERENCE), 0.0, 0.002 * (i - REFERENCE)) for i in range(count)]
    views = tuple(View(focus, position_m=p) for focus, p in zip(FOCUS, positions, strict=True))
    rgb = plane_scene(1.0, 2 * WIDTH, 2 * HEIGHT, seed=3).rgb
    light = render_views(decode(rgb), np.kron(DEPTH_M, np.ones((2, 2))), camera, views, LensBlur(Pupil(), 0.5), 2)
    stack = FocalStack(encode_uint8(light), np.array(FOCUS), camera)
    true = []
    for x_m, _, z_m in positions:
        growth = 1.0 / (1.0 - z_m * DIOPTERS)
        parallax = camera.focal_length_m / camera.pixel_pitch_m * x_m * DIOPTERS * growth
        x, y = (X - (WIDTH - 1) / 2) * growth - parallax, (Y - (HEIGHT - 1) / 2) * growth
        true.append((x + (WIDTH - 1) / 2, y + (HEIGHT - 1) / 2))
    first = align(stack, reference=REFERENCE)
    found, moved, _ = refined(stack, first, DIOPTERS, "srgb")
    assert moved
    assert max(errors_px(first, true)) > 0.5
    assert max(errors_px(found, true)) < 0.2
    assert found.valid.mean() > 0.95


def test_motion_of_a_still_camera_is_refined_once(still: FocalStack) -> None:
    found, _, _ = refined(still, align(still), DIOPTERS, "srgb")
    noise = np.random.default_rng(5).normal(0.0, 1.0, still.images.shape)
    later = dataclasses.replace(still, images=np.uint8(np.clip(np.rint(still.images + noise), 0, 255)))
    second = align(later, initial=found.estimates)
    assert [e.known for e in second.estimates] == [True, False, True, True]
    assert max(errors_px(second, [(X, Y)] * 4)) < 0.05
    third, moved, _ = refined(later, second, DIOPTERS, "srgb")
    assert not moved
    assert third.stack is second.stack
    shifted = dataclasses.replace(later, images=np.roll(later.images, 2, axis=2).copy())
    shifted.images[REFERENCE] = later.images[REFERENCE]
    assert not any(e.known for e in align(shifted, initial=found.estimates).estimates)


def test_motion_that_cannot_be_refined_stays(still: FocalStack) -> None:
    flat = dataclasses.replace(still, images=np.full_like(still.images, 120))
    first = align(flat)
    found, moved, _ = refined(flat, first, DIOPTERS, "srgb")
    assert not moved
    assert [e.motion for e in found.estimates] == [e.motion for e in first.estimates]
    everywhere = np.float32(np.where((X // 8 + Y // 8) % 2, 0.5, 1.5))  # nothing but jumps
    first = align(still)
    assert refined(still, first, everywhere, "srgb")[1] is False


def test_rounds_are_limited_by_the_setting(still: FocalStack) -> None:
    base = {"network": {"name": "none"}, "lens": {"aperture": "given"}, "processing": {"device": "cpu", "threads": 1}}
    base |= {"hypotheses": {"count": 24, "min_depth_m": 0.4, "max_depth_m": 2.0}}
    identity = Motion.identity(SIZE)

    def worst_px(rounds: int) -> float:
        config = Config.from_dict({**base, "alignment": {"rounds": rounds}})
        estimates = DepthEstimator(config).estimate(still, sharpen=False).alignment
        return max(difference_px(e.motion, identity, (24, 32)) for e in estimates)

    assert worst_px(0) > 0.12
    assert worst_px(AlignmentConfig().rounds) < 0.06


@settings(max_examples=20, deadline=None, derandomize=True)
@given(low=st.floats(0.0, 6.0), width=st.floats(0.0, 6.0))
def test_every_pixel_is_blurred_by_its_own_disk(low: float, width: float) -> None:
    """The response of a ramp of diameters to a constant and to points: sum 1, and the disk's second moment."""
    diameter = np.float32(np.broadcast_to(np.linspace(low, low + width, 61), (61, 61)))
    np.testing.assert_allclose(blurred(np.full((61, 61), 0.7, np.float32), diameter), 0.7, atol=2e-5)
    parabola = np.float32(((Y - 30.0) ** 2)[:61, :61])
    added = (blurred(parabola, diameter) - parabola)[30, 10:-10]
    disks = [thin_lens.disk_psf(float(d), 2 * math.ceil(d / 2) + 1) for d in diameter[30, 10:-10]]
    expected = [float((disk.sum(axis=1) * (np.arange(len(disk)) - len(disk) // 2) ** 2).sum()) for disk in disks]
    np.testing.assert_allclose(added, expected, atol=0.08)

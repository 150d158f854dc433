"""A camera that has not moved since the sweep before keeps its alignment; one that moved does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack, align
from dfs_ros.alignment.registration import Motion
from dfs_ros.config import AlignmentConfig
from dfs_ros.optics.srgb import encode_linear
from dfs_ros.simulation.render import decode, render_stack
from dfs_ros.simulation.scenes import random_scene
from dfs_ros.types import Camera, FocalStack

SIZE = (96, 128)


@pytest.fixture(scope="module")
def first() -> FocalStack:
    scene = random_scene(5, SIZE[1], SIZE[0])
    return render_stack(scene.rgb, scene.depth_m, Camera(0.008, 1.8, 6e-6), [2.0, 1.2, 0.4], noise=0.0)


@pytest.fixture(scope="module")
def before(first: FocalStack) -> AlignedStack:
    return align(noisy(first, 1))


def noisy(stack: FocalStack, seed: int) -> FocalStack:
    noise = np.random.default_rng(seed).normal(0.0, 2.0, stack.images.shape)
    return dataclasses.replace(stack, images=np.uint8(np.clip(np.rint(stack.images + noise), 0, 255)))


def with_images(stack: FocalStack, change: dict[int, NDArray[np.uint8]]) -> FocalStack:
    images = stack.images.copy()
    for i, image in change.items():
        images[i] = image
    return dataclasses.replace(stack, images=images)


def motions(aligned: AlignedStack) -> list[Motion]:
    return [estimate.motion for estimate in aligned.estimates]


def test_a_still_camera_keeps_its_motions(first: FocalStack, before: AlignedStack) -> None:
    same = align(noisy(first, 2), initial=before.estimates)
    assert all(a is b for a, b in zip(motions(same), motions(before), strict=True))
    assert [e.gain for e in same.estimates] == [e.gain for e in before.estimates]
    assert same.breathing == pytest.approx(before.breathing)
    np.testing.assert_array_equal(same.stack.blur_scale, before.stack.blur_scale)


@pytest.mark.parametrize("shift_px", [0.25, 1.0])
def test_a_frame_that_moved_is_registered_anew(first: FocalStack, before: AlignedStack, shift_px: float) -> None:
    image = decode(first.images[0])
    whole = int(np.ceil(shift_px))
    share = shift_px / whole
    shifted = encode_linear((1 - share) * image + share * np.roll(image, whole, axis=1), "srgb")
    moved = align(noisy(with_images(first, {0: shifted}), 2), initial=before.estimates)
    change = motions(moved)[0].shift_px[0] - motions(before)[0].shift_px[0]
    assert change == pytest.approx(shift_px, abs=0.15)


def test_an_object_that_comes_into_view_is_looked_at(first: FocalStack, before: AlignedStack) -> None:
    images = first.images.copy()
    images[:, 20:60, 30:80] = images[:, 50:90, 60:110].copy()
    changed = align(noisy(dataclasses.replace(first, images=images), 2), initial=before.estimates)
    assert not any(a is b for a, b in zip(motions(changed)[:1], motions(before)[:1], strict=True))


def test_gains_follow_the_images(first: FocalStack, before: AlignedStack) -> None:
    dimmed = encode_linear(decode(first.images[2]) / 1.03, "srgb")
    stack = noisy(with_images(first, {2: dimmed}), 2)
    second = align(stack, initial=before.estimates)
    third = align(stack, initial=second.estimates)
    for found in (second, third):
        assert motions(found)[2] is motions(before)[2]
        assert found.estimates[2].gain == pytest.approx(before.estimates[2].gain * 1.03, abs=0.004)
    off = AlignmentConfig(normalize_exposure=False)
    kept = align(stack, off, initial=align(noisy(first, 1), off).estimates)
    assert [e.gain for e in kept.estimates] == [1.0] * 3


def test_another_reference_needs_another_alignment(first: FocalStack, before: AlignedStack) -> None:
    other = align(noisy(first, 2), reference=0, initial=before.estimates)
    assert other.reference == 0 and other.estimates[0].source == "reference"

"""Resampling: one frequency response for every position between pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.alignment.align import align
from dfs_ros.alignment.registration import Motion
from dfs_ros.alignment.resampling import equalized, resampled
from dfs_ros.config import AlignmentConfig
from dfs_ros.types import Camera, FocalStack

SIZE = (40, 64)
Y, X = np.indices(SIZE, dtype=np.float32)
INNER = np.s_[9:-9, 9:-9]


def expected_response(frequency: float) -> float:
    """Cubic kernel of parameter -0.75 half way between two pixels."""
    return 2.0 * (0.59375 * math.cos(math.pi * frequency) - 0.09375 * math.cos(3.0 * math.pi * frequency))


def wave(fx: float, fy: float, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    return np.float32(np.cos(2 * np.pi * (fx * (X + shift[0]) + fy * (Y + shift[1])) + 0.7))


def amplitude(image: np.ndarray, fx: float, fy: float) -> float:
    """Amplitude of a wave, by least squares over the pixels that no border reaches."""
    angle = 2 * np.pi * (fx * X + fy * Y)[INNER].ravel()
    design = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return float(np.hypot(*np.linalg.lstsq(design, image[INNER].ravel(), rcond=None)[0]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    fx=st.floats(-0.32, 0.32),
    fy=st.floats(0.05, 0.32),
    shift=st.tuples(st.floats(-2.0, 2.0), st.floats(-2.0, 2.0)),
)
def test_the_response_is_the_same_at_every_phase(fx: float, fy: float, shift: tuple[float, float]) -> None:
    expected = expected_response(fx) * expected_response(fy)
    found = resampled(wave(fx, fy), X + np.float32(shift[0]), Y + np.float32(shift[1]))
    assert amplitude(found, fx, fy) == pytest.approx(expected, rel=0.008)
    assert amplitude(equalized(wave(fx, fy)), fx, fy) == pytest.approx(expected, rel=0.005)


def test_the_image_is_moved_by_its_map() -> None:
    found = resampled(wave(0.1, 0.07), X + np.float32(1.25), Y - np.float32(0.5))
    expected = expected_response(0.1) * expected_response(0.07) * wave(0.1, 0.07, (1.25, -0.5))
    np.testing.assert_allclose(found[INNER], expected[INNER], atol=0.03)


def test_brightness_stays_and_colours_are_independent() -> None:
    flat = np.full((*SIZE, 3), (10.0, 130.0, 255.0), np.float32)
    for image in (resampled(flat, X + np.float32(0.3), Y * np.float32(1.01)), equalized(flat)):
        np.testing.assert_allclose(image, flat, atol=1e-3)
    colours = np.stack([wave(0.1, 0.1), wave(0.2, 0.1), wave(-0.3, 0.2)], axis=-1)
    shift = (X + np.float32(0.3), Y - np.float32(0.8))
    for c in range(3):
        np.testing.assert_allclose(resampled(colours, *shift)[..., c], resampled(colours[..., c], *shift), atol=1e-5)


def test_all_frames_of_an_aligned_stack_have_one_response() -> None:
    """Contrast of a noisy texture, moved and not, is the same after alignment by known scales."""
    camera = Camera(focal_length_m=0.02, f_number=4.0, pixel_pitch_m=8e-6)
    noise = np.random.default_rng(1).normal(128, 30, (120, 160))
    stack = FocalStack(
        np.stack([np.clip(np.rint(noise), 0, 255).astype(np.uint8)] * 3), np.array([0.2, 1.0, 2.0]), camera
    )
    aligned = align(stack, AlignmentConfig(mode="prior", normalize_exposure=False))
    inner = aligned.stack.images[:, 12:-12, 12:-12].astype(np.float64)
    assert aligned.estimates[0].motion.scale < 0.99 < 1.01 < aligned.estimates[2].motion.scale
    np.testing.assert_allclose(inner.std(axis=(1, 2)) / inner.std(axis=(1, 2))[1], 1.0, atol=0.02)
    still = Motion.identity(stack.size)
    assert still.largest_displacement_px() == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_array_equal(
        aligned.stack.images[1], np.rint(np.clip(equalized(stack.images[1].astype(np.float32)), 0, 255))
    )

"""Resampling in PyTorch, held to that of OpenCV."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dfs_ros.alignment import resampling_torch
from dfs_ros.alignment.exposure import gain_table
from dfs_ros.alignment.operations import Shot, resampled_frames
from dfs_ros.alignment.registration import Motion

CPU = torch.device("cpu")
SIZE = (61, 86)


def image_of(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Noise over the whole range, worst for interpolation."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def motion_of(local: bool = True) -> Motion:
    """Enlarged by 3 %, turned by 1 degree, shifted by some pixels, distorted, bent, with local motion of a pixel."""
    motion = Motion.from_parameters(SIZE, (0.031, -0.052), 0.03, 0.017, 0.004)
    motion = dataclasses.replace(motion, perspective=(0.006, -0.004))
    field = np.random.default_rng(1).normal(0.0, 1.0 / motion.unit_px, (6, 8, 2)).astype(np.float32)
    return dataclasses.replace(motion, local=field) if local else motion


def on_device(
    image: NDArray[np.uint8], motion: Motion, table: NDArray[np.float32] | None, still: bool
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    found, valid = resampling_torch.resampled_frames(torch.from_numpy(image[None]), [Shot(0, motion, table, still)])
    return found.numpy(), valid.numpy()


@pytest.mark.parametrize("local", [False, True])
def test_maps_are_those_of_numpy(local: bool) -> None:
    found, expected = resampling_torch.maps_of(motion_of(local), SIZE, CPU), motion_of(local).maps(SIZE)
    for map_found, map_expected in zip(found, expected, strict=True):
        np.testing.assert_allclose(map_found.numpy(), map_expected, atol=3e-5)


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3)])
@pytest.mark.parametrize("gain", [1.0, 1.13])
@pytest.mark.parametrize("still", [False, True])
def test_frames_are_those_of_opencv(shape: tuple[int, ...], gain: float, still: bool) -> None:
    image, table = image_of(shape), None if gain == 1.0 else gain_table(gain, "srgb")
    found, inside = on_device(image, motion_of(), table, still)
    expected, expected_inside = resampled_frames(image[None], [Shot(0, motion_of(), table, still)])
    assert found.dtype == np.uint8 and found.shape == (1, *shape)
    off = np.abs(found.astype(int) - expected)
    # A position that rounds to the other 32nd of a pixel changes noise by some grey levels.
    assert off.max() <= 12 and (off > 1).mean() < 1e-3 and (off > 0).mean() < 5e-3
    assert np.array_equal(inside, expected_inside) and inside.all() == still


def test_the_comparison_can_tell() -> None:
    image = image_of((*SIZE, 3))
    found, _ = on_device(image, motion_of(local=False), None, False)
    expected, _ = on_device(image, motion_of(), None, False)
    assert (np.abs(found.astype(int) - expected) > 1).mean() > 0.5

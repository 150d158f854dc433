"""Texture and phantom surfaces in PyTorch, held to those of OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dfs_ros.depth import texture, texture_torch


def images_of(size: tuple[int, int], grey: bool) -> NDArray[np.uint8]:
    """Three blurs of a textured square on a wall, textured on the right only, with coloured noise."""
    rng = np.random.default_rng(7)
    image = 90.0 + 8.0 * rng.standard_normal((*size, 3)) * (np.arange(size[1]) > 50)[:, None]
    image[20:44, 20:60] = 190.0 + 30.0 * rng.standard_normal((24, 40, 3))
    blurred = [image, cv2.GaussianBlur(image, (0, 0), 2.0), cv2.GaussianBlur(image, (0, 0), 8.0)]
    images = np.stack([np.clip(b + rng.standard_normal(b.shape), 0, 255) for b in blurred]).astype(np.uint8)
    return np.ascontiguousarray(images[..., 1]) if grey else images


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (71, 83)])
@pytest.mark.parametrize("reach_px", [0.3, 6.4, 90.0])
def test_texture_and_phantoms_are_those_of_opencv(grey: bool, size: tuple[int, int], reach_px: float) -> None:
    images = images_of(size, grey)
    expected = texture.texture_of(images, reach_px)
    for plane, own in zip(texture_torch.texture_of(torch.from_numpy(images), reach_px), expected, strict=True):
        found = plane.numpy()
        assert found.dtype == np.bool_ and found.shape == size
        assert (found != own).mean() < 1e-3  # contrasts at the threshold
    assert reach_px < 1 or 0.01 < expected[1].mean() < 0.9
    assert 0.1 < expected[0].mean() < 0.9


def test_the_comparison_can_tell() -> None:
    images = images_of((64, 96), grey=False)
    found = texture_torch.texture_of(torch.from_numpy(images), 20.0)
    for plane, own in zip(found, texture.texture_of(images, 20.0), strict=True):
        assert (plane.numpy()[:, ::-1] != own).mean() > 0.05

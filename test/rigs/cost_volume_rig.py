"""Stacks for tests of cost volumes, and the comparison of two volumes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from places import DATA
from scipy import ndimage

from dfs_ros.optics import thin_lens
from dfs_ros.optics.srgb import encode_linear
from dfs_ros.types import Camera, FocalStack

GOLDEN = DATA / "golden"
METHODS = ("released", "paper", "residual")
CAMERA = Camera(focal_length_m=0.015, f_number=2.8, pixel_pitch_m=11.2e-6)
FOCUS_DIOPTERS = np.array([2.0, 1.4, 0.9, 0.5, 0.2])


def relative_error(value: NDArray[Any], expected: NDArray[Any]) -> float:
    """Norm of the difference over the norm of what is expected; infinite for another shape or any NaN."""
    if value.shape != expected.shape:
        return math.inf
    error = float(np.linalg.norm(value.astype(np.float64) - expected) / np.linalg.norm(expected))
    return error if math.isfinite(error) else math.inf


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """Asymmetric coloured texture with detail at all scales, light in [0, 1]."""
    rng = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(rng.standard_normal((height, width, 3)), (s, s, 0)) * s for s in (0.7, 2, 6)]
    image = sum(layers, np.zeros((height, width, 3)))
    return np.asarray((image - image.min()) / np.ptp(image))


def plane_stack(depth_m: float, size: tuple[int, int] = (72, 90), seed: int = 0) -> FocalStack:
    """A textured plane, blurred in space by the exact-area disk in linear light, away from any border, 8-bit sRGB."""
    margin = 24
    sharp = texture(size[0] + 2 * margin, size[1] + 2 * margin, seed)
    images = []
    for focus in FOCUS_DIOPTERS:
        psf = thin_lens.disk_psf(float(thin_lens.coc_px(1 / depth_m, focus, CAMERA)), 2 * margin - 1)
        blurred = np.stack([ndimage.convolve(sharp[..., c], psf) for c in range(3)], axis=-1)
        images.append(encode_linear(blurred[margin:-margin, margin:-margin], "srgb"))
    return FocalStack(np.stack(images), FOCUS_DIOPTERS, CAMERA)


def random_stack(count: int, shape: tuple[int, ...], seed: int = 0) -> FocalStack:
    """Images that no depth explains: every pixel of the volume is then far from 0."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    return FocalStack(images, np.linspace(2.0, 0.1, count), CAMERA)

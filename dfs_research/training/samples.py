"""Training samples of the light network: inputs from a rendered stack with errors.

All errors of use are drawn anew for every sample: noise, misalignment, exposure, f-number, focus, PSF and transfer
curve. So are the hypotheses: users choose their number, range and order, and the network may not depend on them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_research.training.stacks import TrainingStack
from dfs_ros.config import CostConfig, RegularizationConfig
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.cost_volume.energy import log_energy
from dfs_ros.cost_volume.hypotheses import depth_hypotheses, subdivided, subdivision
from dfs_ros.depth.guide import guide_image, image_channels
from dfs_ros.depth.regularization import smoothed_energy
from dfs_ros.network.light import DOWNSAMPLING
from dfs_ros.types import FocalStack

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """Inputs of the network and true index.

    `energy` and `smoothed` float32 (D, H, W), `image` (4, H, W), `truth` (H, W): fractional index, NaN unknown.
    """

    energy: Array
    smoothed: Array
    image: Array
    truth: Array


@dataclass(frozen=True)
class Perturbation:
    """Largest errors of a sample; most samples stay well below."""

    noise: float = 0.02
    f_number: float = 0.15
    focus: float = 0.02
    shift_px: float = 1.0
    gain: float = 0.02
    jpeg_quality: int = 75  # the least


Energies = Callable[[FocalStack, NDArray[np.float64], CostConfig, int], tuple[Array, Array, NDArray[np.float64]]]
"""Function of stack, depths, cost and interpolate_to -> energy and smoothed energy, (D, H, W), and depths (D,)."""


def estimator_energies(
    stack: FocalStack, depths_m: NDArray[np.float64], cost: CostConfig, interpolate_to: int
) -> tuple[Array, Array, NDArray[np.float64]]:
    """:data:`Energies` as the estimator makes them."""
    volume = cost_volume_from_config(stack, depths_m, cost, threads=1)
    between = subdivision(depths_m, interpolate_to)
    if between is not None:
        volume, depths_m = subdivided(volume, between), between.depths_m
    energy = log_energy(volume, cost.method)
    smoothed = smoothed_energy(energy, guide_image(stack.images), RegularizationConfig())
    return energy, smoothed, depths_m


def random_sample(
    rng: np.random.Generator,
    rendered: TrainingStack,
    hypotheses: int,
    interpolate_to: int,
    energies: Energies = estimator_energies,
) -> Sample:
    """Random sample of one stack with `hypotheses` hypotheses.

    Costs are interpolated between fewer hypotheses than `interpolate_to`.
    """
    stack, depth_m = turned(rng, rendered.stack, rendered.depth_m)
    stack = disturbed(rng, _fewer_images(rng, stack), Perturbation())
    depths_m = random_hypotheses(rng, 1.0 / depth_m[np.isfinite(depth_m)], hypotheses)
    cost = CostConfig(
        channels="rgb" if rng.random() < 0.15 else "luma",
        psf="gaussian" if rng.random() < 0.05 else "disk",
        transfer_curve="linear" if rng.random() < 0.1 else "srgb",
    )
    return sample_of(rng, stack, depth_m, depths_m, cost, interpolate_to, energies)


def sample_of(
    rng: np.random.Generator,
    stack: FocalStack,
    depth_m: Array,
    depths_m: NDArray[np.float64],
    cost: CostConfig,
    interpolate_to: int = 0,
    energies: Energies = estimator_energies,
) -> Sample:
    """Sample of a stack with true depth (H, W), as the estimator computes its inputs.

    The image is a random one of the stack.
    """
    energy, smoothed, depths_m = energies(stack, depths_m, cost, interpolate_to)
    image = stack.images[int(rng.integers(len(stack)))]
    return Sample(energy, smoothed, image_channels(guide_image(stack.images), image), index_of(depths_m, depth_m))


def index_of(depths_m: NDArray[np.float64], depth_m: Array) -> Array:
    """Fractional index of depths among the hypotheses, linear in inverse depth.

    NaN for unknown depth and outside the range.
    """
    inverse = 1.0 / np.asarray(depths_m, np.float64)
    positions = np.arange(len(inverse), dtype=np.float64)
    order = np.argsort(inverse)
    index = np.interp(1.0 / depth_m, inverse[order], positions[order], left=np.nan, right=np.nan)
    return np.asarray(index, np.float32)


def random_hypotheses(rng: np.random.Generator, inverse_depth: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """Random depths (count,) in metres, ascending or descending.

    The range holds nearly all of the scene. The scene fills all of it or only a small part, as in use with fixed
    settings.
    """
    far, near = np.percentile(inverse_depth, [0.5, 99.5])
    near *= math.exp(rng.uniform(0.0, 1.6))
    far *= rng.uniform(0.05, 1.0) if rng.random() < 0.8 else 1.0
    if near < 1.3 * far:
        near, far = 1.2 * near, far / 1.2
    spacing = "linear" if rng.random() < 0.1 and near < 6.0 * far else "inverse"
    depths = depth_hypotheses(1.0 / near, 1.0 / far, count, spacing)
    return depths if rng.random() < 0.5 else np.ascontiguousarray(depths[::-1])


def cropped(sample: Sample, rng: np.random.Generator, size_px: int) -> Sample:
    """Random square crop of the sample, a multiple of 32 px."""
    if size_px % DOWNSAMPLING:
        raise ValueError(f"crop: expected a multiple of {DOWNSAMPLING} px, received {size_px}")
    top, left = (int(rng.integers(n - size_px + 1)) for n in sample.truth.shape)
    window = (..., slice(top, top + size_px), slice(left, left + size_px))
    return Sample(sample.energy[window], sample.smoothed[window], sample.image[window], sample.truth[window])


def turned(rng: np.random.Generator, stack: FocalStack, depth_m: Array) -> tuple[FocalStack, Array]:
    """Mirror and transpose at random."""
    images = stack.images
    if rng.random() < 0.5:
        images, depth_m = images[:, :, ::-1], depth_m[:, ::-1]
    if rng.random() < 0.3:
        images, depth_m = images[:, ::-1], depth_m[::-1]
    if rng.random() < 0.3:
        images, depth_m = images.transpose(0, 2, 1, 3), depth_m.T
    return dataclasses.replace(stack, images=np.ascontiguousarray(images)), np.ascontiguousarray(depth_m)


def _fewer_images(rng: np.random.Generator, stack: FocalStack) -> FocalStack:
    """Drop some images at times, as an incomplete sweep does."""
    count = len(stack)
    if count < 4 or rng.random() < 0.7:
        return stack
    kept = rng.permutation(count)[: int(rng.integers(3, count + 1))]
    return FocalStack(
        np.ascontiguousarray(stack.images[kept]),
        stack.focus_diopters[kept],
        stack.camera,
        magnification=np.ones(len(kept)),
    )


def disturbed(rng: np.random.Generator, stack: FocalStack, most: Perturbation) -> FocalStack:
    """Apply the errors of a real camera and its metadata, at most `most`."""
    count = len(stack)
    images = stack.images.astype(np.float32)
    if rng.random() < 0.3:
        amount = most.shift_px * rng.random()
        for i in range(count):
            dx, dy = rng.uniform(-amount, amount, 2)
            matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
            size = (images.shape[2], images.shape[1])
            images[i] = cv2.warpAffine(
                images[i], matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
            )
    if rng.random() < 0.3:
        images *= 1.0 + rng.uniform(-most.gain, most.gain, (count, 1, 1, 1)).astype(np.float32)
    noise = most.noise * rng.random() ** 2
    images += rng.standard_normal(images.shape, np.float32) * np.float32(255.0 * noise)
    camera, focus = stack.camera, stack.focus_diopters
    if rng.random() < 0.6:
        # The aperture is mostly estimated from the stack, which leaves one or two per cent.
        width = 0.1 if rng.random() < 0.6 else 0.4
        error = float(np.clip(rng.normal(0.0, width), -1.0, 1.0)) * most.f_number
        camera = dataclasses.replace(camera, f_number=camera.f_number * (1.0 + error))
    if rng.random() < 0.3:
        focus = focus * (1.0 + np.clip(rng.normal(0.0, 0.35, count), -1.0, 1.0) * most.focus)
    noisy = np.rint(np.clip(images, 0.0, 255.0)).astype(np.uint8)
    if rng.random() < 0.2:
        quality = int(rng.integers(most.jpeg_quality, 98))
        noisy = np.stack([_compressed(image, quality) for image in noisy])
    return FocalStack(noisy, focus, camera, magnification=np.ones(count))


def _compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Compress and decompress an image as JPEG."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)

"""Recipes: batches and loss of each network in training.

Batches are tuples of tensors and depend on a random generator alone. The loop (:mod:`dfs_research.training.loop`) knows
nothing else of a network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dfs_research.baselines.ddfs import DdfsArchitecture, DdfsNetwork, expected_depth
from dfs_research.baselines.direct import DirectArchitecture, DirectNetwork
from dfs_research.baselines.dualfocus import TILE, DualFocusArchitecture, DualFocusNetwork, SurfaceHead
from dfs_research.evaluation.predictors import LEAST_DIOPTERS, ddfs_hypotheses, ddfs_inputs, image_inputs
from dfs_research.training.loss import training_loss
from dfs_research.training.samples import (
    Energies,
    Perturbation,
    Sample,
    cropped,
    disturbed,
    estimator_energies,
    index_of,
    random_sample,
    turned,
)
from dfs_research.training.settings import TrainingSettings
from dfs_research.training.stacks import TrainingStack
from dfs_research.training.variational import focal_variation, spatial_variation
from dfs_ros.config import HypothesesConfig
from dfs_ros.cost_volume.hypotheses import fine_count
from dfs_ros.network.light import LightArchitecture, LightNetwork
from dfs_ros.types import FocalStack

Batch = tuple[Tensor, ...]
Losses = tuple[Tensor, dict[str, Tensor]]

SCALES = tuple(0.5 * n for n in range(2, 19))
"""Factors 1.0, 1.5 ... 9.0 on depth, focus distance, focal length and pixel pitch (DDFS, sect. 3.1); images stay."""

_HYPOTHESES = (24, 32, 48, 64, 96)
_INTERPOLATED = 0.75
_NOISE_ONLY = Perturbation(noise=0.01, f_number=0.0, focus=0.0, shift_px=0.0, gain=0.0)
_SURFACE = 4


class Recipe:
    """Recipe of one network: `network` is kept; `auxiliary` is trained with it, then dropped."""

    network: Any
    auxiliary: nn.Module | None = None
    about = ""
    """Texts for the model card: network, augmentation, limits."""
    augmentation = "Samples are mirrored, transposed, cropped and given noise at random; the lens stays as it is."
    limits = ""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings

    def batch(self, rng: np.random.Generator, stacks: Sequence[TrainingStack]) -> Batch:
        """Random batch for one step."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Losses:
        """Loss of a batch on the network's device, and its parts."""
        raise NotImplementedError

    def _autocast(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, torch.bfloat16, enabled=self.settings.bf16)


class LightRecipe(Recipe):
    """Recipe of the light network: random hypotheses, stacks with small errors."""

    about = (
        "Depth from a `residual` cost volume and an image: probability over depth hypotheses, with the same weights at "
        "every hypothesis, so that any camera, range and number of hypotheses will do"
    )
    augmentation = (
        "Noise, misalignment, exposure, errors of f-number and focus, PSF, transfer curve and depth hypotheses are "
        "drawn anew for every sample. Loss and its parts are in units of hypotheses."
    )
    limits = (
        "Trained on rendered images only. Where a scene has no texture the depth is a guess from its surroundings, and "
        "sigma says so. Sigma is calibrated on scenes of the kind above; elsewhere take it as an order of doubt."
    )

    def __init__(
        self,
        settings: TrainingSettings,
        architecture: LightArchitecture | None = None,
        energies: Energies = estimator_energies,
    ) -> None:
        super().__init__(settings)
        self._energies = energies
        self.network: LightNetwork = LightNetwork(architecture)
        if settings.spatial_weight > 0:
            self.auxiliary = SurfaceHead(3, _SURFACE)

    def batch(self, rng: np.random.Generator, stacks: Sequence[TrainingStack]) -> Batch:
        hypotheses = int(rng.choice(_HYPOTHESES))
        # As in the estimator, and sometimes without, as users may turn interpolation off.
        least = HypothesesConfig().interpolate_to if rng.random() < _INTERPOLATED else 0
        samples = []
        for _ in range(max(1, round(self.settings.hypotheses_per_step / fine_count(hypotheses, least)))):
            rendered = stacks[int(rng.integers(len(stacks)))]
            sample = random_sample(rng, rendered, hypotheses, least, self._energies)
            samples.append(cropped(sample, rng, self.settings.crop_px))
        fields = [field.name for field in dataclasses.fields(Sample)]
        return tuple(torch.from_numpy(np.stack([getattr(s, name) for s in samples])) for name in fields)

    def loss(self, batch: Batch) -> Losses:
        energy, smoothed, image, truth = batch
        with self._autocast(energy):
            logits, score = self.network.logits(energy, smoothed, image)
        loss, parts = training_loss(logits, score, truth)
        constraints, more = constraint_losses(logits.softmax(dim=1), truth, self.settings, self.auxiliary)
        return loss + constraints, parts | more


class DdfsRecipe(Recipe):
    """Recipe of DDFS: the authors' volume; sum of L1 depth errors at four scales."""

    about = (
        "The DDFS network (Fujimura et al., IJCV 2024) on the `released` cost volume: probability over a fixed number "
        "of hypotheses, which are its channels"
    )
    augmentation = (
        f"{Recipe.augmentation} With `scale_augmentation` depth and camera are scaled together, 1.0 to 9.0 times."
    )
    limits = (
        "There to be compared with. Hypotheses as channels learn where in its range depth tends to lie: another range "
        "than the one it was trained for is answered badly."
    )

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        self.network: DdfsNetwork = DdfsNetwork(
            DdfsArchitecture(settings.hypotheses, settings.wiring, settings.width, settings.spacing)
        )
        if settings.spatial_weight > 0:
            self.auxiliary = SurfaceHead(3, _SURFACE)
        depths = ddfs_hypotheses((settings.min_depth_m, settings.max_depth_m), settings.hypotheses, settings.spacing)
        self.depths_m: NDArray[np.float64] = depths

    def batch(self, rng: np.random.Generator, stacks: Sequence[TrainingStack]) -> Batch:
        rows = []
        for rendered in some_stacks(rng, stacks, self.settings.samples_per_step, alike=False):
            stack, depth_m = augmented(rng, rendered, self.settings.crop_px)
            if self.settings.scale_augmentation:
                stack, depth_m = randomly_scaled(rng, stack, depth_m, self.depths_m)
            image, cost = ddfs_inputs(stack, self.depths_m, threads=1)
            outside = (depth_m < self.depths_m.min()) | (depth_m > self.depths_m.max())
            rows.append((image, cost, np.where(outside, np.float32(np.nan), depth_m)))
        return stacked(rows)

    def loss(self, batch: Batch) -> Losses:
        image, cost, truth = batch
        with self._autocast(image):
            scores = self.network(image, cost)
        values = torch.from_numpy(self.depths_m).to(truth)
        total = truth.new_zeros(())
        parts = {}
        for level, score in enumerate(scores):
            at_scale = subsampled(truth, 2**level)
            error = masked_mean((expected_depth(score.float(), values) - filled(at_scale)).abs(), at_scale)
            total = total + error
            if level == 0:
                parts["depth [m]"] = error.detach()
        index = torch.from_numpy(index_of(self.depths_m, truth.cpu().numpy())).to(truth)
        constraints, more = constraint_losses(scores[0].float(), index, self.settings, self.auxiliary)
        return total + constraints, parts | more


class DualFocusRecipe(Recipe):
    """Recipe of DualFocus: smooth L1 of inverse depth, and both constraints."""

    about = (
        "DualFocus (Lee and Woo, arXiv 2509.21992, as far as it is known): probability over the focus planes of the "
        "stack, from the images and their change with focus"
    )
    limits = (
        "There to be compared with. Depth lies between the nearest and the farthest focus and nowhere else, and the "
        "network is tied to the blur of the lens it was trained with."
    )

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        full = DualFocusArchitecture()
        first, second = (scaled_channels(c, settings.width) for c in full.decoder)
        self.network: DualFocusNetwork = DualFocusNetwork(
            DualFocusArchitecture(scaled_channels(full.features, settings.width), (first, second), full.surface)
        )

    def batch(self, rng: np.random.Generator, stacks: Sequence[TrainingStack]) -> Batch:
        return image_batch(rng, stacks, self.settings)

    def loss(self, batch: Batch) -> Losses:
        images, diopters, depth_m = batch
        truth = 1.0 / depth_m.clamp(max=1.0 / LEAST_DIOPTERS)
        with self._autocast(images):
            output = self.network.output(images, diopters)
        probability = output.logits.float().softmax(dim=1)
        depth = expected_depth(probability, diopters)
        accuracy = masked_mean(F.smooth_l1_loss(depth, filled(truth), beta=0.1, reduction="none"), truth)
        focal = focal_variation(probability, torch.isfinite(truth))
        spatial = spatial_variation(subsampled(truth, TILE), diopters, output.surface_gradient)
        total = accuracy + self.settings.focal_weight * focal + self.settings.spatial_weight * spatial
        error = masked_mean((depth - filled(truth)).abs(), truth)
        return total, {"depth [1/m]": error.detach(), "focal": focal.detach(), "spatial": spatial.detach()}


class DirectRecipe(Recipe):
    """Recipe of the direct network: L1 of log depth."""

    about = "Depth straight from the images and their focus, without a model of defocus, in the way of DefocusNet"
    limits = (
        "There to be compared with: it knows blur only as the lens and focus it was trained with make it, and fails "
        "with others. It says nothing of how sure it is."
    )

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        features = scaled_channels(DirectArchitecture().features, settings.width)
        self.network: DirectNetwork = DirectNetwork(DirectArchitecture(features))

    def batch(self, rng: np.random.Generator, stacks: Sequence[TrainingStack]) -> Batch:
        return image_batch(rng, stacks, self.settings)

    def loss(self, batch: Batch) -> Losses:
        images, diopters, depth_m = batch
        with self._autocast(images):
            log_depth = self.network(images, diopters)
        error = masked_mean((log_depth - filled(depth_m.log())).abs(), depth_m)
        return error, {"log depth": error.detach()}


def make_recipe(settings: TrainingSettings, architecture: LightArchitecture | None = None) -> Recipe:
    """Recipe of the settings' network; `architecture` is for light only."""
    if settings.network == "light":
        return LightRecipe(settings, architecture)
    recipes = {"ddfs": DdfsRecipe, "dualfocus": DualFocusRecipe, "direct": DirectRecipe}
    return recipes[settings.network](settings)


def constraint_losses(
    probability: Tensor, truth: Tensor, settings: TrainingSettings, surface: nn.Module | None
) -> Losses:
    """DualFocus's constraints on a probability (B, D, H, W) over hypotheses.

    `truth` (B, H, W): true index, NaN unknown. The surface features of a hypothesis are its probability and its
    neighbours' at a quarter of the size. Zero, without computation, if the settings weigh them by 0.
    """
    total, parts = probability.new_zeros(()), {}
    if settings.focal_weight > 0:
        parts["focal"] = focal_variation(probability, torch.isfinite(truth))
        total = total + settings.focal_weight * parts["focal"]
    if settings.spatial_weight > 0 and surface is not None:
        quarter = F.avg_pool2d(probability, TILE)
        before, after = quarter[:, :1], quarter[:, -1:]
        beside = [torch.cat([before, quarter[:, :-1]], dim=1), quarter, torch.cat([quarter[:, 1:], after], dim=1)]
        _, slope = surface(torch.stack(beside, dim=2))
        index = torch.arange(probability.shape[1], device=truth.device, dtype=truth.dtype)
        parts["spatial"] = spatial_variation(subsampled(truth, TILE), index.expand(len(truth), -1), slope)
        total = total + settings.spatial_weight * parts["spatial"]
    return total, {name: value.detach() for name, value in parts.items()}


def some_stacks(
    rng: np.random.Generator, stacks: Sequence[TrainingStack], count: int, *, alike: bool
) -> list[TrainingStack]:
    """Random stacks; `alike`: all with the first one's number of images, for one batch."""
    first = stacks[int(rng.integers(len(stacks)))]
    chosen = [first]
    while len(chosen) < count:
        other = stacks[int(rng.integers(len(stacks)))]
        if not alike or len(other.stack) == len(first.stack):
            chosen.append(other)
    return chosen


def image_batch(rng: np.random.Generator, stacks: Sequence[TrainingStack], settings: TrainingSettings) -> Batch:
    """Batch of images, focus and depth.

    Images (B, F, 3, H, W) near to far, focus (B, F) in dioptres, depth (B, H, W) in metres.
    """
    rows = []
    for rendered in some_stacks(rng, stacks, settings.samples_per_step, alike=True):
        stack, depth_m = augmented(rng, rendered, settings.crop_px)
        rows.append((*image_inputs(stack), depth_m))
    return stacked(rows)


def augmented(
    rng: np.random.Generator, rendered: TrainingStack, crop_px: int
) -> tuple[FocalStack, NDArray[np.float32]]:
    """Random crop of a stack, mirrored and transposed at random, with noise; the lens stays."""
    stack, depth_m = turned(rng, rendered.stack, rendered.depth_m)
    if min(stack.size) < crop_px:
        raise ValueError(f"crop_px: stacks are {stack.size[1]}x{stack.size[0]} px, a crop of {crop_px} does not fit")
    top, left = (int(rng.integers(n - crop_px + 1)) for n in depth_m.shape)
    rows, columns = slice(top, top + crop_px), slice(left, left + crop_px)
    part = dataclasses.replace(stack, images=np.ascontiguousarray(stack.images[:, rows, columns]))
    return disturbed(rng, part, _NOISE_ONLY), np.ascontiguousarray(depth_m[rows, columns], np.float32)


def randomly_scaled(
    rng: np.random.Generator, stack: FocalStack, depth_m: NDArray[np.float32], depths_m: NDArray[np.float64]
) -> tuple[FocalStack, NDArray[np.float32]]:
    """Scale depth and camera by a random one of `SCALES`.

    The median depth stays within the hypotheses.
    """
    median = float(np.nanmedian(depth_m))
    fitting = [s for s in SCALES if s * median <= depths_m.max() and stack.camera.focal_length_m * s < 2.0]
    scale = float(rng.choice(fitting)) if fitting else 1.0
    return scaled(stack, scale), (depth_m * np.float32(scale)).astype(np.float32)


def scaled(stack: FocalStack, scale: float) -> FocalStack:
    """Scale the camera of a stack by `scale`, for a scene scaled alike; blur stays."""
    lens = dataclasses.replace(
        stack.camera,
        focal_length_m=stack.camera.focal_length_m * scale,
        pixel_pitch_m=stack.camera.pixel_pitch_m * scale,
        reference_focus_diopters=stack.camera.reference_focus_diopters / scale,
    )
    return dataclasses.replace(stack, camera=lens, focus_diopters=stack.focus_diopters / scale)


def stacked(rows: Sequence[Sequence[NDArray[np.float32]]]) -> Batch:
    """Stack samples to a batch."""
    return tuple(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))


def subsampled(truth: Tensor, factor: int) -> Tensor:
    """Subsample (B, H, W) by `factor`, from the middle of each cell, without averaging."""
    return truth[:, factor // 2 :: factor, factor // 2 :: factor] if factor > 1 else truth


def filled(truth: Tensor) -> Tensor:
    """Replace NaN by 0 for the gradient; :func:`masked_mean` skips these pixels."""
    return torch.where(torch.isfinite(truth), truth, 0.0)


def masked_mean(values: Tensor, truth: Tensor) -> Tensor:
    """Mean of `values` over pixels with known `truth`."""
    known = torch.isfinite(truth)
    return torch.where(known, values, 0.0).sum() / known.sum().clamp(min=1)


def scaled_channels(full: int, width: float) -> int:
    """Scale a number of channels: multiples of 8 from 8 on, else at least 4."""
    channels = full * width
    return 8 * round(channels / 8) if channels >= 8 else max(4, round(channels))

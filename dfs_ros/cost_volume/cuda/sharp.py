"""All-in-focus image on a device. Formulas: ../sharp.py, whose levels of depth it has."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.cuda.tables import RADIAL_ENTRIES_PER_UNIT
from dfs_ros.cost_volume.cuda.volume import VolumeEngine
from dfs_ros.cost_volume.problem import make_problem
from dfs_ros.cost_volume.sharp import LEVELS, diopters_everywhere, levels_around
from dfs_ros.system.transfers import uploaded
from dfs_ros.types import FocalStack


def all_in_focus(
    stack: FocalStack, images: Tensor, depth_m: ArrayLike, cost: CostConfig, engines: Engines
) -> NDArray[np.uint8]:
    """:func:`dfs_ros.cost_volume.sharp.all_in_focus`, for a psf with a radial transfer function.

    `images`: those of the stack on the device of `engines`.
    """
    diopters = diopters_everywhere(depth_m, stack)
    levels, step = levels_around(float(diopters.min()), float(diopters.max()), LEVELS)
    problem = make_problem(stack, 1.0 / levels, dataclasses.replace(cost, method="residual", channels="rgb"))
    # One engine for any number of levels: it holds the spectra's size and tables only.
    engine = engines.of(dataclasses.replace(problem, depths_m=problem.depths_m[:1], coc_px=problem.coc_px[:1]))
    spectra = engine.spectra(images)
    frequency = frequencies(problem.padded_size, images.device)
    diameters = uploaded(problem.coc_px.astype(np.float32), images.device)
    (top, _), (left, _) = problem.pad_px
    height, width = stack.size
    there = uploaded(diopters.astype(np.float32), images.device)
    linear = torch.zeros((problem.channel_count, height, width), device=images.device)
    for level, diameter in zip(levels, diameters, strict=True):
        k = transfer_of(engine, diameter[:, None, None] * frequency)  # (F, H', W' // 2 + 1)
        sharp = (k[:, None] * spectra).sum(dim=0) / (k.square().sum(dim=0) + problem.cost.eps)
        pixels = torch.fft.irfft2(sharp, s=problem.padded_size, norm="forward")
        weight = (1.0 - (there - float(level)).abs() / float(step)).clamp(min=0.0)
        linear += pixels[:, top : top + height, left : left + width] * weight
    image = encoded(linear, problem.cost.transfer_curve).permute(1, 2, 0).expand(height, width, 3)
    return np.ascontiguousarray(image.contiguous().cpu().numpy())


def transfer_of(engine: VolumeEngine, blur_frequency: Tensor) -> Tensor:
    """Transfer function at ``c rho``, by the table (cells, 4) of :func:`.tables.radial_cubics`."""
    position = blur_frequency.abs() * RADIAL_ENTRIES_PER_UNIT
    cell = position.long()
    t = position - cell
    a, b, c, d = engine.radial[cell + engine.far_cells * (blur_frequency < 0)].unbind(dim=-1)
    return ((d * t + c) * t + b) * t + a


@functools.lru_cache(maxsize=4)
def frequencies(size: tuple[int, int], device: torch.device) -> Tensor:
    """Cycles per pixel of a half spectrum, float32 (H', W' // 2 + 1)."""
    rho = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1]))
    return uploaded(rho.astype(np.float32), device)


def encoded(linear: Tensor, transfer_curve: str) -> Tensor:
    """:func:`dfs_ros.optics.srgb.encode_linear` of a tensor."""
    value = linear.clamp(0.0, 1.0)
    if transfer_curve == "srgb":
        bright = 1.055 * value.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
        value = torch.where(value <= 0.0031308, value * 12.92, bright)
    return (value * 255.0).round().to(torch.uint8)

"""Texture and phantom surfaces on a device, as :mod:`dfs_ros.depth.texture`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dfs_ros.alignment.filters_torch import filtered, grey_of, mirrored_gaussian
from dfs_ros.depth import texture


def texture_of(images: Tensor, reach_px: float) -> tuple[Tensor, Tensor]:
    """:func:`dfs_ros.depth.texture.texture_of` of uint8 images (F, H, W, 3) or (F, H, W)."""
    contrast = torch.zeros(images.shape[1:3], device=images.device)
    flattest, differences = [], []
    for grey in grey_of(images):
        blurred = filtered(grey, mirrored_gaussian, mirrored_gaussian, texture.HIGH_PASS_SIGMA_PX)
        own = _local_rms(grey - blurred)
        contrast = torch.maximum(contrast, own)
        flattest.append(_percentile(own, texture.FLATTEST))
        differences.append(_percentile(_local_rms(_second_differences(grey)), texture.FLATTEST))
    quiet, steps = torch.stack([torch.stack(flattest), torch.stack(differences)]).tolist()
    noise = min(float(np.median(quiet)), texture.CORRELATED * min(steps))
    strong = (contrast > texture.STRONG * noise).float()[None]
    reach = round(reach_px)
    for padding in ((0, reach), (reach, 0)):  # the square, as two lines
        window = (2 * padding[0] + 1, 2 * padding[1] + 1)
        strong = F.max_pool2d(strong, window, stride=1, padding=padding)
    phantoms = (contrast < texture.WEAK * noise) & (strong[0] > 0)
    return contrast > texture.WEAK * max(noise, texture.ROUNDING), phantoms


def _local_rms(values: Tensor) -> Tensor:
    height, width = texture.WINDOW_PX
    padded = _mirrored(values * values, height // 2, width // 2)
    return F.avg_pool2d(padded[None], (height, width), stride=1)[0].clamp(min=0.0).sqrt()


def _second_differences(plane: Tensor) -> Tensor:
    around = _mirrored(plane, 1, 1)
    down = around[:-2] - 2.0 * around[1:-1] + around[2:]
    return (down[:, :-2] - 2.0 * down[:, 1:-1] + down[:, 2:]) / 6.0


def _mirrored(plane: Tensor, rows: int, columns: int) -> Tensor:
    """The plane with a border that mirrors it about its outermost pixels, as OpenCV's default."""
    for axis, reach in ((0, rows), (1, columns)):
        size = plane.shape[axis]
        period = max(2 * (size - 1), 1)
        index = torch.arange(-reach, size + reach, device=plane.device) % period
        plane = plane.index_select(axis, torch.minimum(index, period - index)) if reach and size > 1 else plane
    return plane


def _percentile(values: Tensor, percent: float) -> Tensor:
    """Percentile, linear between the two values around it, as numpy's."""
    flat = values.flatten()
    position = percent / 100.0 * (flat.numel() - 1)
    below = int(position)
    low, high = (flat.kthvalue(1 + min(k, flat.numel() - 1)).values for k in (below, below + 1))
    return torch.lerp(low, high, position - below)

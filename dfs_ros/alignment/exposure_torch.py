"""Exposure ratios on a device, as :mod:`.exposure`: one transfer for a stack."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from dfs_ros.alignment import exposure
from dfs_ros.alignment.filters_torch import filtered, mirrored_gaussian, resized, rounded_up
from dfs_ros.alignment.registration import Motion
from dfs_ros.alignment.registration_torch import POSITIONS
from dfs_ros.alignment.resampling_torch import maps_of
from dfs_ros.optics.srgb import linear_table
from dfs_ros.system.transfers import downloaded, uploaded


def exposure_gains(
    images: Tensor, reference: int, motions: Mapping[int, Motion], transfer_curve: str
) -> dict[int, float]:
    """:func:`.exposure.exposure_gains` of uint8 images (F, H, W[, 3]) on a device."""
    linear, usable = _prepared(images, transfer_curve)
    gains = [_gain(linear[reference], usable[reference], linear[i], usable[i], motion) for i, motion in motions.items()]
    found = downloaded(torch.stack(gains)).tolist() if gains else []
    return dict(zip(motions, found, strict=True))


def _prepared(images: Tensor, transfer_curve: str) -> tuple[Tensor, Tensor]:
    """Blurred linear intensity, and pixels neither black nor saturated nor beside one, float32 (F, h, w)."""
    shape = exposure.reduced_shape(images.shape[1:3])
    planes = images.reshape(*images.shape[:3], -1).permute(3, 0, 1, 2)  # (C, F, H, W)
    small = rounded_up(resized(planes.float(), shape))
    usable = ((small >= exposure.BLACK) & (small <= exposure.SATURATED)).all(dim=0).float()
    light = uploaded(linear_table(transfer_curve).astype("float32"), images.device)[small.long()].mean(dim=0)
    eroded = -F.max_pool2d(-usable, 5, stride=1, padding=2)
    return filtered(light, mirrored_gaussian, mirrored_gaussian, exposure.BLUR_PX), eroded


def _gain(own: Tensor, own_usable: Tensor, linear: Tensor, usable: Tensor, motion: Motion) -> Tensor:
    height, width = linear.shape
    map_x, map_y = ((m * POSITIONS).round() / POSITIONS for m in maps_of(motion, (height, width), linear.device))
    normal = torch.stack([(2.0 * map_x + 1.0) / width - 1.0, (2.0 * map_y + 1.0) / height - 1.0], dim=-1)[None]
    seen = F.grid_sample(linear[None, None], normal, padding_mode="reflection", align_corners=False)[0, 0]
    nearest = F.grid_sample(usable[None, None], normal, mode="nearest", align_corners=False)[0, 0]
    both = (nearest > 0.0) & (own_usable > 0.0)
    ratios = torch.where(both, own / seen, torch.inf).flatten().sort().values
    count = both.sum()
    middle = ratios[torch.stack([(count - 1).clamp(min=0) // 2, count // 2])].mean()
    enough = both.float().mean() >= exposure.MIN_SHARE
    return torch.where(enough & ((middle - 1.0).abs() > exposure.SAME_WITHIN), middle, 1.0)

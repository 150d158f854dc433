"""Frames of a moving camera in the reference, on a device, as :class:`.moving.MovingStack` has them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dfs_ros.alignment.filters_torch import filtered, gaussian, reflected, resized
from dfs_ros.alignment.moving import NO_BORDER, PREFILTER, Border, MovingStack, View
from dfs_ros.alignment.resampling_torch import equalized, resampled
from dfs_ros.optics.field import surface_of
from dfs_ros.optics.srgb import LUMA_WEIGHTS, linear_table
from dfs_ros.system.transfers import uploaded


def linear(stack: MovingStack, source: Tensor, transfer_curve: str, channels: int) -> Tensor:
    """:meth:`.MovingStack.linear`, float32 (F, C, H, W), of uint8 images (F, H, W[, 3]) as taken."""
    gains = uploaded(stack.gains.astype(np.float32), source.device)
    planes = linear_planes(source, transfer_curve, channels) * gains[:, None, None, None]
    if tuple(planes.shape[2:]) == stack.size:
        return planes
    sigma_px = PREFILTER * planes.shape[3] / stack.size[1]
    return resized(filtered(planes, gaussian, gaussian, sigma_px), stack.size)


def linear_planes(images: Tensor, transfer_curve: str, channels: int) -> Tensor:
    """:func:`dfs_ros.cost_volume.spectra.linear_planes`, float32 (F, C, H, W), of uint8 images (F, H, W[, 3])."""
    table = uploaded(linear_table(transfer_curve).astype(np.float32), images.device)
    light = table[images.long()].reshape(*images.shape[:3], -1)
    if light.shape[3] == 3 and channels == 1:
        light = (light * uploaded(np.array(LUMA_WEIGHTS, np.float32), images.device)).sum(dim=-1, keepdim=True)
    return light.permute(0, 3, 1, 2).contiguous()


def seen(
    stack: MovingStack, linear: Tensor, diopters: float | Tensor, border: Border = NO_BORDER
) -> tuple[Tensor, Tensor]:
    """:meth:`.MovingStack.seen`: float32 (F, C, H', W'), and which pixels each frame sees, bool (F, H', W')."""
    (top, bottom), (left, right) = border
    height, width = stack.size
    rows, columns = (
        reflected(torch.arange(-before, n + after, device=linear.device), n)
        for before, n, after in ((top, height, bottom), (left, width, right))
    )
    own = equalized(linear[stack.reference])[:, rows][:, :, columns]
    if stack.camera.field is not None:
        surface = uploaded(surface_of(stack.camera, stack.size), linear.device)
        diopters = diopters + surface[rows][:, columns].double()
    planes, masks = [], []
    for i, view in enumerate(stack.views):
        if i == stack.reference:
            whole = torch.ones(stack.size, dtype=torch.bool, device=linear.device)
            planes.append(own)
            masks.append(F.pad(whole, (left, right, top, bottom)))
            continue
        map_x, map_y = maps_of(view, stack, diopters, border, linear.device)
        inside = (map_x >= -0.5) & (map_x <= width - 0.5) & (map_y >= -0.5) & (map_y <= height - 0.5)
        planes.append(torch.where(inside, resampled(linear[i], map_x, map_y), own))
        masks.append(inside)
    return torch.stack(planes), torch.stack(masks)


def maps_of(
    view: View, stack: MovingStack, diopters: float | Tensor, border: Border, device: torch.device
) -> tuple[Tensor, Tensor]:
    """:meth:`.moving.View.maps`."""
    (top, bottom), (left, right) = border
    lens, (height, width) = stack.lens, stack.size
    x = (torch.arange(-left, width + right, dtype=torch.float64, device=device) - lens.cx)[None, :] / lens.fx
    y = (torch.arange(-top, height + bottom, dtype=torch.float64, device=device) - lens.cy)[:, None] / lens.fy
    tx, ty, tz = view.position_m.tolist()
    ray = x - tx * diopters, y - ty * diopters, 1.0 - tz * diopters
    a, b, c = (row[0] * ray[0] + row[1] * ray[1] + row[2] * ray[2] for row in view.rotation.tolist())
    cx, cy, unit = (width - 1) / 2.0, (height - 1) / 2.0, max(stack.size) / 2.0
    u, v = a / c * lens.fx + (lens.cx - cx), b / c * lens.fy + (lens.cy - cy)
    stretch = float(np.exp(view.log_scale)) * (1.0 + view.radial * (u * u + v * v) / unit**2)
    return (u * stretch + cx).float(), (v * stretch + cy).float()

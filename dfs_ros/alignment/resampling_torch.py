"""Resampling of a frame on a device, as :mod:`dfs_ros.alignment.resampling` and :meth:`.registration.Motion.maps`."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dfs_ros.alignment.filters_torch import reflected
from dfs_ros.alignment.operations import Shot
from dfs_ros.alignment.registration import Motion, coordinates
from dfs_ros.alignment.resampling import PHASES, correction, cubic_weights, still_kernel
from dfs_ros.system.transfers import uploaded


def resampled_frames(images: Tensor, shots: Sequence[Shot]) -> tuple[Tensor, Tensor]:
    """:func:`dfs_ros.alignment.operations.resampled_frames` of uint8 images (F, H, W[, 3]) on a device."""
    height, width = images.shape[1:3]
    valid = torch.ones((height, width), dtype=torch.bool, device=images.device)
    frames = []
    for shot in shots:
        image = images[shot.frame]
        planes = image.float() if shot.table is None else uploaded(shot.table, images.device)[image.long()]
        planes = planes.reshape(height, width, -1).permute(2, 0, 1).contiguous()  # (C, H, W)
        if shot.still:
            planes = equalized(planes)
        else:
            map_x, map_y = maps_of(shot.motion, shot.motion.size, images.device)
            planes = resampled(planes, map_x, map_y)
            # A pixel extends half a pixel around its centre.
            valid &= (map_x >= -0.5) & (map_x <= width - 0.5) & (map_y >= -0.5) & (map_y <= height - 0.5)
        frames.append(planes.clamp(0.0, 255.0).round().to(torch.uint8).permute(1, 2, 0).reshape(image.shape))
    return torch.stack(frames), valid


def maps_of(motion: Motion, shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """:meth:`.registration.Motion.maps`.

    In the order of numpy's operations: a position that rounds to the other phase changes the pixel.
    """
    height, width = shape
    x, y = (uploaded(axis, device) for axis in coordinates(motion.size, shape))
    stretch = 1.0 + float(np.float32(motion.radial)) * (x * x + y * y)
    if any(motion.perspective):
        bent_x, bent_y = (float(np.float32(value)) for value in motion.perspective)
        stretch = stretch + (bent_x * x + bent_y * y)
    per_px = motion.unit_px * width / motion.size[1], motion.unit_px * height / motion.size[0]
    linear = (motion.affine[:2] * np.array(per_px)[:, None]).astype(np.float32)
    centre = linear[:, 2] + np.array([(width - 1) / 2.0, (height - 1) / 2.0], np.float32)
    (ax, bx), (ay, by) = linear[:, :2].tolist()
    map_x = (ax * x + bx * y) * stretch + float(centre[0])
    map_y = (ay * x + by * y) * stretch + float(centre[1])
    if motion.local is not None:
        grid = uploaded(motion.local, device).permute(2, 0, 1)[None]
        local = F.interpolate(grid, size=shape, mode="bicubic", align_corners=False)[0]
        map_x = map_x + local[0] * per_px[0]
        map_y = map_y + local[1] * per_px[1]
    return map_x, map_y


def resampled(planes: Tensor, map_x: Tensor, map_y: Tensor) -> Tensor:
    """:func:`dfs_ros.alignment.resampling.resampled` of planes (C, H, W)."""
    weights, change = _tables(planes.device)
    positions = [(m * PHASES).round().long() for m in (map_y, map_x)]
    phases = [p % PHASES for p in positions]
    (y, x), (phase_y, phase_x) = (torch.div(p, PHASES, rounding_mode="floor") for p in positions), phases
    moved = torch.zeros((len(planes), *map_x.shape), device=planes.device)
    for down in range(4):
        rows = reflected(y + (down - 1), planes.shape[1])
        for across in range(4):
            columns = reflected(x + (across - 1), planes.shape[2])
            moved += planes[:, rows, columns] * (weights[phase_y, down] * weights[phase_x, across])
    moved += (_neighbours(moved, 2) * change[phase_x]).sum(dim=-1)
    moved += (_neighbours(moved, 1) * change[phase_y]).sum(dim=-1)
    return moved


def equalized(planes: Tensor) -> Tensor:
    """:func:`dfs_ros.alignment.resampling.equalized` of planes (C, H, W)."""
    kernel = torch.from_numpy(still_kernel()).to(planes.device)
    for axis in (2, 1):
        planes = (_neighbours(planes, axis) * kernel).sum(dim=-1)
    return planes


def _neighbours(planes: Tensor, axis: int) -> Tensor:
    """Pixels (C, H, W, taps) around each along an axis, reflected at the border."""
    size, reach = planes.shape[axis], len(still_kernel()) // 2
    around = torch.arange(-reach, size + reach, device=planes.device)
    return planes.index_select(axis, reflected(around, size)).unfold(axis, 2 * reach + 1, 1)


@functools.lru_cache(maxsize=4)
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """By phase: weights of the cubic kernel (32, 4), and taps of the correction (32, 11)."""
    taps, shares = correction()
    tables = cubic_weights(), (shares.T @ taps).astype(np.float32)
    first, second = (torch.from_numpy(np.ascontiguousarray(table, np.float32)).to(device) for table in tables)
    return first, second

"""Resampling of a frame on a device, as :mod:`dfs_ros.alignment.resampling` and :meth:`.registration.Motion.maps`."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dfs_ros.alignment.registration import Motion, coordinates
from dfs_ros.alignment.resampling import PHASES, correction, cubic_weights, still_kernel


def resampled_frame(
    image: NDArray[np.uint8], motion: Motion, table: NDArray[np.float32] | None, still: bool, device: torch.device
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """:func:`dfs_ros.alignment.align.resampled_frame`, computed on a device."""
    height, width = motion.size
    there = torch.from_numpy(image).to(device)
    planes = there.float() if table is None else torch.from_numpy(table).to(device)[there.long()]
    planes = planes.reshape(height, width, -1).permute(2, 0, 1).contiguous()  # (C, H, W)
    inside = np.ones(motion.size, np.bool_)
    if still:
        planes = equalized(planes)
    else:
        map_x, map_y = maps_of(motion, device)
        planes = resampled(planes, map_x, map_y)
        # A pixel extends half a pixel around its centre.
        covered = (map_x >= -0.5) & (map_x <= width - 0.5) & (map_y >= -0.5) & (map_y <= height - 0.5)
        inside = covered.cpu().numpy()
    values = planes.clamp(0.0, 255.0).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    return values.cpu().numpy().reshape(image.shape), inside


def maps_of(motion: Motion, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sampling maps x' and y', float32 (H, W) in pixels, at full size.

    In the order of numpy's operations: a position that rounds to the other phase changes the pixel.
    """
    height, width = motion.size
    x, y = (torch.from_numpy(axis).to(device) for axis in coordinates(motion.size, motion.size))
    stretch = 1.0 + float(np.float32(motion.radial)) * (x * x + y * y)
    linear = (motion.affine[:2] * motion.unit_px).astype(np.float32)
    centre = linear[:, 2] + np.array([(width - 1) / 2.0, (height - 1) / 2.0], np.float32)
    (ax, bx), (ay, by) = linear[:, :2].tolist()
    map_x = (ax * x + bx * y) * stretch + float(centre[0])
    map_y = (ay * x + by * y) * stretch + float(centre[1])
    if motion.local is not None:
        grid = torch.from_numpy(np.ascontiguousarray(motion.local)).to(device).permute(2, 0, 1)[None]
        local = F.interpolate(grid, size=motion.size, mode="bicubic", align_corners=False)[0]
        map_x = map_x + local[0] * motion.unit_px
        map_y = map_y + local[1] * motion.unit_px
    return map_x, map_y


def resampled(planes: Tensor, map_x: Tensor, map_y: Tensor) -> Tensor:
    """:func:`dfs_ros.alignment.resampling.resampled` of planes (C, H, W)."""
    weights, change = _tables(planes.device)
    positions = [(m * PHASES).round().long() for m in (map_y, map_x)]
    phases = [p % PHASES for p in positions]
    (y, x), (phase_y, phase_x) = (torch.div(p, PHASES, rounding_mode="floor") for p in positions), phases
    moved = torch.zeros_like(planes)
    for down in range(4):
        rows = _reflected(y + (down - 1), planes.shape[1])
        for across in range(4):
            columns = _reflected(x + (across - 1), planes.shape[2])
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
    return planes.index_select(axis, _reflected(around, size)).unfold(axis, 2 * reach + 1, 1)


def _reflected(index: Tensor, size: int) -> Tensor:
    """Indices within the image, as of OpenCV's BORDER_REFLECT."""
    index = index % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


@functools.lru_cache(maxsize=4)
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """By phase: weights of the cubic kernel (32, 4), and taps of the correction (32, 11)."""
    taps, shares = correction()
    tables = cubic_weights(), (shares.T @ taps).astype(np.float32)
    first, second = (torch.from_numpy(np.ascontiguousarray(table, np.float32)).to(device) for table in tables)
    return first, second

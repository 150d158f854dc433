"""A camera that has not moved, by images on a device, as :mod:`.still`: one transfer for a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfs_ros.alignment import still
from dfs_ros.alignment.filters import OUTLIER
from dfs_ros.alignment.filters_torch import central, detail, light, resized
from dfs_ros.alignment.registration import Motion, coordinates
from dfs_ros.alignment.still import Change
from dfs_ros.system.transfers import downloaded, uploaded


class TorchStill:
    """See :class:`.still.Still`. `upload`: brings images to the device."""

    def __init__(self, upload: Callable[[NDArray[np.uint8]], Tensor]) -> None:
        self._upload = upload

    def details(self, images: NDArray[np.uint8], transfer_curve: str) -> list[Tensor]:
        """:func:`.still.detail_of` of every image."""
        return list(detail(light(self._upload(images), still.reduced_shape(images.shape[1:3]), transfer_curve)))

    def changes(self, before: Sequence[Any], after: Iterable[Tensor], size: tuple[int, int]) -> list[Change | None]:
        """:func:`.still.changes`."""
        after = list(after)
        there = after[0]
        if any(not isinstance(b, Tensor) or b.shape != there.shape or b.device != there.device for b in before):
            return [None] * len(after)
        rows = downloaded(_changes(torch.stack(list(before)), torch.stack(after), size))
        return [_change(row, size) for row in rows]


def _change(row: NDArray[np.float64], size: tuple[int, int]) -> Change | None:
    shift_x, shift_y, log_scale, rotation, gain, changed, noise, singular = row.tolist()
    if singular:
        return None
    motion = Motion.from_parameters(size, (shift_x, shift_y), log_scale, rotation, 0.0)
    return Change(motion.largest_displacement_px(), 1.0 + gain, changed, noise)


def _changes(before: Tensor, after: Tensor, size: tuple[int, int]) -> Tensor:
    """Gauss-Newton step (5), shares of changed blocks and of noise, and whether there is no step, float64 (F, 8)."""
    height, width = before.shape[1:]
    x, y = (uploaded(axis, before.device) for axis in coordinates(size, (height, width)))
    both, unit = (before + after) * 0.5, max(size) / 2.0
    slope_x = central(both, 2) * (0.5 * unit * width / size[1])
    slope_y = central(both, 1) * (0.5 * unit * height / size[0])
    columns = (slope_x, slope_y, slope_x * x + slope_y * y, slope_y * x - slope_x * y, before)
    derivatives = torch.stack([column.flatten(1) for column in columns], dim=1)  # (F, 5, pixels)
    residual = (after - before).flatten(1)[:, None]
    typical = residual.abs().mean(dim=2, keepdim=True) + 1e-9
    weighted = derivatives / (1.0 + (residual / (OUTLIER * typical)).square())
    normal = (weighted @ derivatives.transpose(1, 2)).double()
    step, singular = torch.linalg.solve_ex(normal, (weighted @ residual.transpose(1, 2)).double())
    left = (residual - step.transpose(1, 2).float() @ derivatives).square().reshape(before.shape)
    blocks = max(height // still.BLOCK_PX, 1), max(width // still.BLOCK_PX, 1)
    unexplained, present = (resized(a, blocks).flatten(1) for a in (left, before.square()))
    usual = _median(unexplained)
    changed = (unexplained > still.UNUSUAL * usual[:, None]) & (unexplained > still.UNEXPLAINED * present)
    noise = usual / _median(present).clamp(min=1e-12)
    told = torch.stack([changed.double().mean(dim=1), noise.double(), (singular != 0).double()], dim=1)
    return torch.cat([step[..., 0], told], dim=1)


def _median(values: Tensor) -> Tensor:
    """Median (F,) of (F, N); the mean of both in the middle, as numpy's."""
    ordered, count = values.sort(dim=1).values, values.shape[1]
    return 0.5 * (ordered[:, (count - 1) // 2] + ordered[:, count // 2])

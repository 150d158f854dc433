"""Variance of fine detail on a device, as :mod:`dfs_ros.consistency.unexplained`."""

from __future__ import annotations

from torch import Tensor

from dfs_ros.alignment.filters_torch import filtered, mirrored_gaussian
from dfs_ros.alignment.moving_torch import linear_planes
from dfs_ros.consistency.unexplained import HIGH_PASS_SIGMA_PX, WINDOW_SIGMA_PX


def fine_variance(images: Tensor, transfer_curve: str, channels: int) -> Tensor:
    """:func:`dfs_ros.consistency.unexplained.fine_variance` of uint8 images (F, H, W[, 3])."""
    planes = linear_planes(images, transfer_curve, channels)
    fine = planes - filtered(planes, mirrored_gaussian, mirrored_gaussian, HIGH_PASS_SIGMA_PX)
    # A filter is linear: of the sum over images and channels, once.
    energy = fine.square().sum(dim=(0, 1)) / len(images)
    return filtered(energy, mirrored_gaussian, mirrored_gaussian, WINDOW_SIGMA_PX)

"""Filters of planes on a device: matrices along rows and columns, OpenCV's own filters of the identity."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfs_ros.alignment.filters import WINDOW_PX
from dfs_ros.optics.srgb import linear_table
from dfs_ros.system.transfers import uploaded

Image = NDArray[np.float32]
Size = tuple[int, int]

_GREY = (9798, 19235, 3735)  # weights of OpenCV's grey value, in 2^-15


def grey_of(images: Tensor) -> Tensor:
    """Grey value of images uint8 (..., H, W, 3) or (F, H, W), float32, rounded as OpenCV's."""
    if images.ndim == 3:
        return images.float()
    red, green, blue = (plane.int() * weight for plane, weight in zip(images.unbind(dim=-1), _GREY, strict=True))
    return ((red + green + blue + (1 << 14)) >> 15).float()


def light(images: Tensor, shape: Size, transfer_curve: str) -> Tensor:
    """:func:`.filters.light` of uint8 images (F, H, W[, 3])."""
    table = uploaded(linear_table(transfer_curve).astype(np.float32), images.device)
    return resized(table[grey_of(images).long()], shape)


def detail(planes: Tensor) -> Tensor:
    """:func:`.filters.detail` of planes (..., h, w)."""
    return planes - filtered(planes, mean, mean, WINDOW_PX)


def reflected(index: Tensor, size: int) -> Tensor:
    """Indices within the image, as of OpenCV's BORDER_REFLECT."""
    index = index % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def applied(rows: Tensor, planes: Tensor, columns: Tensor) -> Tensor:
    """Matrices of filters down and across applied to planes (..., H, W)."""
    return rows @ planes @ columns.T


def central(planes: Tensor, axis: int) -> Tensor:
    """Differences of both neighbours of (K, h, w) along an axis, 0 at the border."""
    inner = planes.roll(-1, axis) - planes.roll(1, axis)
    ends = torch.tensor([0, planes.shape[axis] - 1], device=planes.device)
    return inner.index_fill(axis, ends, 0.0)


def rounded_up(values: Tensor) -> Tensor:
    """Values rounded, halves upwards, as OpenCV rounds the means of four pixel values."""
    return (values + 0.5).floor()


def reduced(planes: Tensor, step: int) -> Tensor:
    """Planes (F, H, W) smaller by a whole number, as OpenCV's INTER_AREA."""
    size = planes.shape[-2:]
    return resized(planes, (max(size[0] // step, 1), max(size[1] // step, 1)))


def resized(planes: Tensor, shape: Size) -> Tensor:
    rows, columns = (_on_device(area, planes.device, n, to) for n, to in zip(planes.shape[-2:], shape, strict=True))
    return applied(rows, planes, columns)


def filtered(planes: Tensor, down: Callable[..., Image], across: Callable[..., Image], *settings: float) -> Tensor:
    """Planes (..., H, W) filtered by matrices of ``down(H)`` and ``across(W)``."""
    height, width = planes.shape[-2:]
    rows, columns = (
        _on_device(down, planes.device, height, *settings),
        _on_device(across, planes.device, width, *settings),
    )
    return applied(rows, planes, columns)


@functools.lru_cache(maxsize=128)
def _on_device(matrix: Callable[..., Image], device: torch.device, *settings: float) -> Tensor:
    return uploaded(matrix(*settings), device)


def _of_identity(size: int, down: Callable[[Image], Any]) -> Image:
    """Matrix of a linear filter of columns of pixels."""
    return np.asarray(down(np.eye(size, dtype=np.float32)), np.float32).reshape(-1, size)


def area(size: int, to: int) -> Image:
    return _of_identity(size, lambda e: cv2.resize(e, (size, to), interpolation=cv2.INTER_AREA))


def cubic(size: int, to: int) -> Image:
    return _of_identity(size, lambda e: cv2.resize(e, (size, to), interpolation=cv2.INTER_CUBIC))


def mean(size: int, window_px: int) -> Image:
    window = (1, window_px)
    return _of_identity(size, lambda e: cv2.blur(e, window, borderType=cv2.BORDER_REFLECT))


def narrow(size: int) -> Image:
    return _of_identity(size, lambda e: cv2.GaussianBlur(e, (1, 5), 0.8))


def gaussian(size: int, sigma_px: float) -> Image:
    kernel = cv2.getGaussianKernel(round(8.0 * sigma_px + 1.0) | 1, sigma_px)
    return _of_identity(
        size, lambda e: cv2.sepFilter2D(e, cv2.CV_32F, np.ones(1), kernel, borderType=cv2.BORDER_REFLECT)
    )


def mirrored_gaussian(size: int, sigma_px: float) -> Image:
    """As :func:`gaussian`, with a border that mirrors about the outermost pixels."""
    kernel = cv2.getGaussianKernel(round(8.0 * sigma_px + 1.0) | 1, sigma_px)
    return _of_identity(size, lambda e: cv2.sepFilter2D(e, cv2.CV_32F, np.ones(1), kernel))


def smoothed(size: int) -> Image:
    return _of_identity(size, lambda e: cv2.sepFilter2D(e, cv2.CV_32F, np.ones(1), np.array([1.0, 2.0, 1.0])))


def difference(size: int) -> Image:
    return _of_identity(size, lambda e: cv2.sepFilter2D(e, cv2.CV_32F, np.ones(1), np.array([-1.0, 0.0, 1.0])))

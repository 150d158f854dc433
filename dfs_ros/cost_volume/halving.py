"""Planes at half size, for all that follows the costs, and at full size again.

Costs are windowed means of squared residuals, so they hold nothing finer than two pixels. Half size is rounded up; an
odd last row or column is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Image = NDArray[np.float32]

_LIKE = 0.05  # difference of the guide; with 0.02 to 0.1 depth of nine training scenes is as good, to 0.1 %


def half_size(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of the planes of an image of (height, width)."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def halved(plane: Image, out: Image | None = None) -> Image:
    """Means of 2x2 pixels of a plane (H, W), into `out` if given."""
    height, width = half_size(plane.shape)
    plane = _even(plane)
    return np.asarray(cv2.resize(plane, (width, height), dst=out, interpolation=cv2.INTER_AREA), np.float32)


def halved_tensor(planes: Tensor) -> Tensor:
    """:func:`halved` of every plane of a tensor (N, H, W)."""
    from torch.nn import functional

    return functional.avg_pool2d(planes[None], 2, ceil_mode=True, count_include_pad=False)[0]


def enlarged(plane: Image, size: tuple[int, int]) -> Image:
    """Plane at half size enlarged to `size` (H, W), linear."""
    height, width = plane.shape
    larger = cv2.resize(plane, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(larger[: size[0], : size[1]], np.float32)


def enlarged_tensor(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """:func:`enlarged` of a tensor."""
    from torch.nn import functional

    larger = functional.interpolate(plane[None, None], scale_factor=2.0, mode="bilinear", align_corners=False)[0, 0]
    return larger[: size[0], : size[1]]


def enlarged_along(plane: Image, guide: Image) -> Image:
    """Plane at half size enlarged to the size of the guide (H, W), in [0, 1]; it jumps where the image does.

    Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007): mean of the four nearest pixels at half size, weighted by
    bilinear weight times ``exp(-|I - I_half| / 0.05)``.
    """
    small, alike = (np.pad(values, 1, "edge") for values in (plane, halved(guide)))
    full, larger = _even(guide), np.empty((2 * plane.shape[0], 2 * plane.shape[1]), np.float32)
    _fill(larger, small, alike, full, np.exp)
    return larger[: guide.shape[0], : guide.shape[1]]


def enlarged_tensor_along(plane: Tensor, guide: Tensor) -> Tensor:
    """:func:`enlarged_along` of tensors."""
    import torch
    from torch.nn.functional import pad

    height, width = guide.shape
    small = pad(torch.stack([plane, halved_tensor(guide[None])[0]])[None], (1, 1, 1, 1), mode="replicate")[0]
    full = pad(guide[None, None], (0, width % 2, 0, height % 2), mode="replicate")[0, 0]
    larger = torch.empty_like(full)
    _fill(larger, small[0], small[1], full, torch.exp)
    return larger[:height, :width]


def _fill(larger: Any, small: Any, alike: Any, guide: Any, exp: Callable[[Any], Any]) -> None:
    """Enlarge the plane `small`, with a border of one pixel as its guide `alike`."""
    height, width = small.shape[0] - 2, small.shape[1] - 2
    for bottom, right in product((0, 1), (0, 1)):
        seen, weights, total = guide[bottom::2, right::2] + 0.0, 0.0, 0.0  # one copy without gaps
        for below, beside in product((bottom, bottom + 1), (right, right + 1)):
            near = slice(below, below + height), slice(beside, beside + width)
            weight = exp(abs(alike[near] - seen) * (-1.0 / _LIKE))
            weight *= (0.75 if below == 1 else 0.25) * (0.75 if beside == 1 else 0.25)
            weights, total = weights + weight, total + weight * small[near]
        larger[bottom::2, right::2] = total / weights


def _even(plane: Image) -> Image:
    """Plane with its odd last row or column repeated."""
    height, width = plane.shape
    if height % 2 == 0 and width % 2 == 0:
        return plane
    return np.asarray(cv2.copyMakeBorder(plane, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.float32)

"""Classical depth from focus: peak of a focus measure, without an optical model.

A focus measure estimates the sharpness around each pixel. Its peak over the focus settings, refined in dioptres by a
parabola through the peak and its neighbours, gives the depth. Unlike a cost volume it cannot give depth beyond the
first and last focus.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.depth.parabola import vertex
from dfs_ros.depth.regularization import guided_filter
from dfs_ros.types import FocalStack

Image = NDArray[np.float32]

_LAPLACIAN_WINDOW_PX = 9
_RING_RADII_PX = (1.5, 2.5, 4.5)  # of the disk, where the ring begins, where it ends
_RING_AGGREGATION_PX = 4
_RING_AGGREGATION_EPS = 1e-3


def laplacian_depth(stack: FocalStack, min_depth_m: float, max_depth_m: float) -> Image:
    """Depth by the sum-modified Laplacian, averaged over 9 x 9 px.

    Input is an aligned stack, output float32 (H, W) in metres.

    Nayar and Nakagawa, "Shape from Focus", TPAMI 1994, equation 7. Depths are clipped to the range.
    """
    return _depth_of(
        stack, np.stack([sum_modified_laplacian(image) for image in _grey(stack)]), min_depth_m, max_depth_m
    )


def ring_depth(stack: FocalStack, min_depth_m: float, max_depth_m: float) -> Image:
    """Depth by the ring difference filter, aggregated along image edges.

    Input is an aligned stack, output float32 (H, W) in metres.

    Surh et al., "Noise Robust Depth from Focus using a Ring Difference Filter", CVPR 2017; Jeon et al., TIP 2020. The
    guided filter replaces their cost aggregation; the radii are ours. Depths are clipped to the range.
    """
    grey = _grey(stack)
    measure = np.stack([ring_difference(image) for image in grey])
    guide = np.asarray(grey.mean(axis=0), np.float32)
    # The eps assumes a guide in [0, 1]; the filtered values may have any scale and may undershoot without texture.
    smooth = guided_filter(measure, guide, _RING_AGGREGATION_PX, _RING_AGGREGATION_EPS)
    return _depth_of(stack, np.maximum(smooth, 0.0), min_depth_m, max_depth_m)


def sum_modified_laplacian(image: Image) -> Image:
    """Sum-modified Laplacian, averaged over a window; same shape.

    ``|2 I - I(x - 1) - I(x + 1)| + |2 I - I(y - 1) - I(y + 1)|``
    """
    along_x = cv2.filter2D(image, cv2.CV_32F, np.array([[-1.0, 2.0, -1.0]]), borderType=cv2.BORDER_REFLECT_101)
    along_y = cv2.filter2D(image, cv2.CV_32F, np.array([[-1.0], [2.0], [-1.0]]), borderType=cv2.BORDER_REFLECT_101)
    window = (_LAPLACIAN_WINDOW_PX, _LAPLACIAN_WINDOW_PX)
    return np.asarray(cv2.blur(np.abs(along_x) + np.abs(along_y), window, borderType=cv2.BORDER_REFLECT), np.float32)


def ring_difference(image: Image) -> Image:
    """Ring difference of every pixel; same shape.

    ``|mean over a disk - mean over a ring around it|``, with a gap between disk and ring.
    """
    return np.abs(np.asarray(cv2.filter2D(image, cv2.CV_32F, _ring_kernel(), borderType=cv2.BORDER_REFLECT_101)))


def peak_diopters(measure: NDArray[np.floating], focus_diopters: NDArray[np.float64]) -> Image:
    """Focus (H, W) in dioptres of the highest focus measure (F, H, W).

    A parabola goes through the maximum and its two neighbours, at any spacing in dioptres. Its vertex is limited to
    half the way to a neighbour; at the first and last focus the maximum itself counts.
    """
    order = np.argsort(focus_diopters)
    focus, values = np.asarray(focus_diopters, np.float64)[order], np.asarray(measure, np.float64)[order]
    best = values.argmax(axis=0)
    if len(focus) < 3:
        return np.asarray(focus[best], np.float32)
    middle = np.clip(best, 1, len(focus) - 2)
    left, peak, right = (-np.take_along_axis(values, (middle + k)[None], axis=0)[0] for k in (-1, 0, 1))
    before, after = focus[middle] - focus[middle - 1], focus[middle + 1] - focus[middle]
    step, _ = vertex(left, peak, right, before, after)
    found = focus[middle] + np.clip(step, -0.5 * before, 0.5 * after)
    return np.asarray(np.where(best == middle, found, focus[best]), np.float32)


def _grey(stack: FocalStack) -> Image:
    """Brightness float32 (F, H, W) in [0, 1]."""
    images = stack.images if stack.images.ndim == 3 else stack.images.mean(axis=-1, dtype=np.float32)
    return np.asarray(images, np.float32) / np.float32(255.0)


def _depth_of(stack: FocalStack, measure: Image, min_depth_m: float, max_depth_m: float) -> Image:
    diopters = peak_diopters(measure, stack.focus_diopters)
    return np.asarray(1.0 / np.clip(diopters, 1.0 / max_depth_m, 1.0 / min_depth_m), np.float32)


@lru_cache(maxsize=1)
def _ring_kernel() -> NDArray[np.float64]:
    disk, begins, ends = _RING_RADII_PX
    half = int(ends)
    radius = np.hypot(*np.mgrid[-half : half + 1, -half : half + 1])
    inside, ring = radius <= disk, (radius > begins) & (radius <= ends)
    return np.asarray(inside / inside.sum() - ring / ring.sum(), np.float64)

"""Checked input of every backend: stack, hypotheses, blur diameters, padding."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import next_fast_len

from dfs_ros.alignment.moving import MovingStack
from dfs_ros.config import Config, CostConfig
from dfs_ros.optics import thin_lens
from dfs_ros.types import FocalStack

Float = NDArray[np.float64]

_PIXEL_PX2 = 1 / 12
"""Variance of the blur of a square pixel."""

_SOFTNESS_PX2 = 0.39 - _PIXEL_PX2
"""Variance of the blur in focus of a lens whose softness is unknown: 0.55 px as a Gaussian."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Stack and hypotheses, validated for a backend.

    Attributes
    ----------
    stack
        Aligned images, uint8 (F, H, W, 3) or (F, H, W).
    depths_m
        float64 (D,).
    cost
        Resolved: without any `auto`.
    coc_px
        float64 (D, F): blur diameter of each image at each hypothesis, clamped at `cost.max_coc_px`. With an
        aberration it is negative on the far side of the focus.
    pad_px
        Reflected rows and columns before and after the image: ((top, bottom), (left, right)).
    """

    stack: FocalStack
    depths_m: Float
    cost: CostConfig
    coc_px: Float
    pad_px: tuple[tuple[int, int], tuple[int, int]]

    @property
    def padded_size(self) -> tuple[int, int]:
        """(height, width) of the transforms."""
        (height, width), ((top, bottom), (left, right)) = self.stack.size, self.pad_px
        return height + top + bottom, width + left + right

    @property
    def aberration(self) -> float:
        """Aberration of the lens that the blur has; 0 but for the analytic disk."""
        return self.stack.camera.aberration if self.cost.psf == "disk" else 0.0

    @property
    def channel_count(self) -> int:
        """Colour channels that enter the volume, 1 or 3."""
        return 3 if self.cost.channels == "rgb" and self.stack.images.ndim == 4 else 1


def make_problem(stack: FocalStack, depths_m: ArrayLike, cost: CostConfig) -> Problem:
    """Validate the input; compute blur diameters and padding.

    Raises TypeError or ValueError for anything but a FocalStack, a CostConfig in range and 1 or more depths that are
    finite, positive and strictly ascending or descending.
    """
    if not isinstance(stack, FocalStack):
        raise TypeError(f"stack: expected a FocalStack, received {type(stack).__name__}; see dfs_ros.load_stack")
    if not isinstance(cost, CostConfig):
        raise TypeError(f"cost: expected a CostConfig, received {type(cost).__name__}")
    cost = Config(cost=cost).cost.resolved()
    depths = check_depths(depths_m)
    coc = np.minimum(aligned_coc_px(1.0 / depths[:, None], stack), cost.max_coc_px)
    problem = Problem(stack, depths, cost, coc, padding(stack.size, cost.padding_px))
    if not problem.aberration:
        return problem
    diopters: Float = 1.0 / depths[:, None]
    if isinstance(stack, MovingStack):
        diopters = stack.seen_diopters(diopters)[0]
    return replace(problem, coc_px=np.where(diopters < stack.focus_diopters, -coc, coc))


def aligned_coc_px(depth_diopters: ArrayLike, stack: FocalStack) -> Float:
    """Blur diameter (..., F) in pixels of aligned images at inverse depths (..., 1).

    Alignment enlarges an image by b, and with it defocus c and the static blur of lens and pixel, of standard deviation
    s. The static blur of the least enlarged frame belongs to the sharp image; of the others it leaves

        sqrt((b c)^2 + 16 s^2 (b^2 - min b^2))

    as a disk of diameter c has the second moment of a Gaussian with standard deviation c / 4.
    """
    enlarged = stack.blur_scale
    if isinstance(stack, MovingStack):
        depth_diopters, nearer = stack.seen_diopters(depth_diopters)
        defocus = thin_lens.coc_px(depth_diopters, stack.focus_diopters, stack.camera) * enlarged * nearer
    else:
        defocus = thin_lens.coc_px(depth_diopters, stack.focus_diopters, stack.camera) * enlarged
    if np.ptp(enlarged) == 0.0:
        return defocus
    softness = stack.camera.softness_px2
    static = _PIXEL_PX2 + (_SOFTNESS_PX2 if math.isnan(softness) else softness)
    static = 16.0 * static * (enlarged**2 - enlarged.min() ** 2)
    return np.asarray(np.sqrt(defocus**2 + static))


def noise_gain(problem: Problem) -> Float:
    """Energy of unit white noise left in the `residual` of every hypothesis, float64 (D,).

    The joint sharp image absorbs a part of the noise: all of one image's where k stays away from 0, less if all
    images are blurred. Of F images, F - 1 to F remain,

        N(d) = F - 1 + mean over frequency of (eps / (sum_f k_f^2 + eps))^2,

    the trace of the squared residual operator ``I - k k^T / (k^T k + eps)``. Without dividing by it, noise alone would
    prefer hypotheses near the focus of an image. The disk replaces the tabulated disk, too.
    """
    # One octant of the frequency square holds every radius with its share.
    axis = (np.arange(16) + 0.5) / 32.0
    row, column = np.triu_indices(16)
    radius = np.hypot(axis[row], axis[column])
    share = np.where(row == column, 1.0, 2.0)
    k = thin_lens.blur_transfer(problem.cost.psf, problem.coc_px[..., None], radius, problem.aberration)
    energy = (k**2).sum(axis=1)  # (D, number of radii)
    eps = problem.cost.eps
    unseen = np.average((eps / np.maximum(energy + eps, np.finfo(np.float64).tiny)) ** 2, axis=-1, weights=share)
    return np.asarray(problem.coc_px.shape[1] - 1.0 + unseen)


def check_depths(depths_m: ArrayLike) -> Float:
    """Return `depths_m` as float64 (D,); ValueError, with the fault, for invalid ones."""
    try:
        depths = np.asarray(depths_m, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"depths_m: expected numbers in metres, received {depths_m!r}") from error
    if depths.ndim != 1 or depths.size == 0:
        raise ValueError(f"depths_m: expected shape (D,) with D >= 1, received {depths.shape}")
    if not (np.isfinite(depths).all() and (depths > 0).all()):
        bad = depths[~(np.isfinite(depths) & (depths > 0))][0]
        raise ValueError(f"depths_m: expected finite metres over 0, received {bad}; for a far limit use a large depth")
    steps = np.diff(depths)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(
            "depths_m: expected strictly ascending or strictly descending depths; sort them, drop duplicates"
        )
    return depths


def padding(size: tuple[int, int], padding_px: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns before and after an image of `size`, at least `padding_px`; none for 0."""
    # Without padding the boundary is periodic at exactly the image's size, as in the DDFS code. With padding, a few
    # more rows give a size with a fast FFT.
    if padding_px == 0:
        return (0, 0), (0, 0)
    height, width = (next_fast_len(n + 2 * padding_px, real=True) for n in size)
    return (padding_px, height - size[0] - padding_px), (padding_px, width - size[1] - padding_px)

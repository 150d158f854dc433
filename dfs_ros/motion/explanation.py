"""Views by poses, held against the images: breathing of the lens, and poses that are contradicted.

Parallax looks like breathing to the registration of a frame, so breathing is found anew with the poses, as one factor
on that of the lens model for all frames. A camera that turns in its place must not explain the images better.

misfit = mean over the textured half of the least log cost,       at a quarter of the size
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack
from dfs_ros.alignment.moving import MovingStack
from dfs_ros.config import Config
from dfs_ros.depth.energies import Energies
from dfs_ros.image_size import working_size
from dfs_ros.motion.turning import turned
from dfs_ros.motion.views import followed_stack
from dfs_ros.types import FocalStack, reduced

Array = NDArray[np.float64]
Image = NDArray[np.float32]

_PIXELS = 6000  # of the images compared
_FEWEST, _MOST = 16, 80  # inverse depths compared
_FEWEST_HELD = 40  # to hold two explanations against each other
# Parallax from one inverse depth to the next; with 0.3 breathing of half a pixel is found wrong by a fifth of it.
_STEP_PX, _STEP_OF_SWEEPS_PX = 0.15, 0.3
_BEYOND = 1.35  # of the inverse depths compared, beyond those of a first depth
_WINDOW_PX = 2.0
_WORSE = 0.6  # most loss of log cost by poses: right ones lose up to 0.4 on fine texture, those of the wrong sign more
_MOST_BREATHING = 3.0  # in units of the lens model's
_BREATHING_TO = 0.1  # the frames are corrected one by one afterwards


class Explanation:
    """Misfit of a stack under views of its frames: its images at a quarter of the size, where texture is.

    `diopters`: inverse depths of the scene, of any shape.
    """

    def __init__(
        self, aligned: AlignedStack, diopters: NDArray[np.floating], config: Config, energies: Energies
    ) -> None:
        self._aligned, self._curve, self._energies = aligned, config.alignment.transfer_curve, energies
        self._cost = replace(config.cost, method="residual", channels="luma", window_sigma_px=_WINDOW_PX)
        small = reduced(aligned.stack, _PIXELS * 1e-6)
        middle = small.images[aligned.reference].astype(np.float32)
        grey = middle if middle.ndim == 2 else middle.mean(axis=2)
        slope = np.hypot(*np.gradient(grey))
        self._counts = slope >= np.median(slope)
        far, near = np.percentile(diopters, [2.0, 98.0])
        self._ends = far / _BEYOND, near * _BEYOND
        self._modelled = np.array([math.log(aligned.estimates[i].prior_scale) for i in aligned.kept])

    def breathing(self, moved: AlignedStack) -> float:
        """Factor of the lens model's breathing that explains the images of a moving camera best."""
        from scipy import optimize  # a tenth of the start of a node, which a still camera does not need

        if not self._modelled.any():
            return 1.0
        stack = followed_stack(moved)
        levels = self._levels(stack, _FEWEST)
        found = optimize.minimize_scalar(
            lambda factor: self._misfit(self._breathing(stack, factor), levels),
            bounds=(0.0, _MOST_BREATHING),
            method="bounded",
            options={"xatol": _BREATHING_TO},
        )
        return float(found.x)

    def with_breathing(self, moved: AlignedStack, factor: float, radial: float = 0.0) -> AlignedStack:
        """Moving camera with the lens model's breathing times a factor, and its radial term for each unit of it."""
        if not self._modelled.any():
            return moved
        return replace(moved, stack=self._breathing(followed_stack(moved), factor, radial))

    def _breathing(self, stack: MovingStack, factor: float, radial: float = 0.0) -> MovingStack:
        views = zip(stack.views, self._modelled.tolist(), strict=True)
        return stack.with_views(tuple(replace(v, log_scale=factor * m, radial=radial * m) for v, m in views))

    def of_sweep(self, moved: AlignedStack) -> tuple[float, Image]:
        """Misfit of a moving camera, to be held against that of other sweeps, and a coarse inverse depth (h, w)."""
        stack = followed_stack(moved)
        levels = self._levels(stack, _FEWEST, _STEP_OF_SWEEPS_PX)
        log_cost = self._energies.volume(reduced(stack, _PIXELS * 1e-6), 1.0 / levels, self._cost)
        diopters = levels[log_cost.argmin(axis=0)].astype(np.float32)
        return float(log_cost.min(axis=0)[self._counts].mean()), np.asarray(cv2.medianBlur(diopters, 5), np.float32)

    def contradicts(self, moved: AlignedStack, stack: FocalStack) -> bool:
        """True if a moving camera explains the images `stack` worse than one that turns in its place."""
        moving_one, turning = followed_stack(moved), followed_stack(turned(stack, self._aligned, self._curve))
        levels = self._levels(moving_one, _FEWEST_HELD)
        return self._misfit(moving_one, levels) > self._misfit(turning, levels) + _WORSE

    def _levels(self, stack: MovingStack, fewest: int, step_px: float = _STEP_PX) -> Array:
        """Inverse depths compared, as fine as the parallax of the reduced images needs."""
        _, width = working_size(stack.size, _PIXELS * 1e-6)
        span_px = (self._ends[1] - self._ends[0]) * stack.parallax_px_per_diopter * width / stack.size[1]
        return np.linspace(*self._ends, int(np.clip(span_px / step_px, fewest, _MOST)))

    def _misfit(self, stack: MovingStack, levels: Array) -> float:
        """Mean log cost of the best of the inverse depths."""
        small = reduced(stack, _PIXELS * 1e-6)
        return float(self._energies.least(small, 1.0 / levels, self._cost)[self._counts].mean())

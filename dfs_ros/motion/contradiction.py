"""Poses that contradict the images: a camera that turns in its place explains them better.

objective = mean over the textured half of the least log cost,       at a quarter of the size
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack
from dfs_ros.alignment.moving import View
from dfs_ros.config import Config
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.cost_volume.energy import log_energy
from dfs_ros.depth.scene_range import SceneRange
from dfs_ros.motion.views import moving
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import FocalStack, reduced

Array = NDArray[np.float64]
Image = NDArray[np.float32]

_PIXELS = 6000  # of the images compared
_LEVELS = 20
_FARTHEST, _NEARER = 0.15, 1.5  # scene: dioptres, and as a factor of the nearest focus
_WINDOW_PX = 2.0
_WORSE = 0.6  # most loss of log cost by poses: right ones lose up to 0.4 on fine texture, those of the wrong sign more


def contradicted(
    moved: AlignedStack, stack: FocalStack, aligned: AlignedStack, limits: SceneRange, config: Config, threads: int
) -> bool:
    """True if a moving camera explains the images `stack` worse than one that turns in its place."""
    compared, everywhere = _Compared(aligned, config, threads), np.geomspace(*_likely(aligned, limits), 2 * _LEVELS)
    turned = _turned(stack, aligned, config.alignment.transfer_curve)
    return compared.misfit(moved.stack, everywhere) > compared.misfit(turned.stack, everywhere) + _WORSE


def _turned(stack: FocalStack, aligned: AlignedStack, transfer_curve: str) -> AlignedStack:
    """Registration of the frames as views of a camera that turns in its place, resampled as a moving one's."""
    lens = intrinsics(aligned.stack.camera, aligned.stack.size)
    views = []
    for i in aligned.kept:
        motion = aligned.estimates[i].motion
        a, b, roll = motion.shift_px[0] / lens.fx, motion.shift_px[1] / lens.fy, motion.rotation_rad
        rotation = np.array([[1.0, -roll, a], [roll, 1.0, b], [-a, -b, 1.0]])  # of small angles
        views.append(View(np.zeros(3), rotation, motion.log_scale))
    return moving(stack, aligned, tuple(views), 1.0, transfer_curve)


def _likely(aligned: AlignedStack, limits: SceneRange) -> tuple[float, float]:
    """Inverse depths that a scene of this sweep may have."""
    return max(limits.far, _FARTHEST), min(limits.near, _NEARER * float(aligned.stack.focus_diopters.max()))


class _Compared:
    """Images at a quarter of the size, and the half of their pixels with the most texture."""

    def __init__(self, aligned: AlignedStack, config: Config, threads: int) -> None:
        self._cost = replace(config.cost, method="residual", channels="luma", window_sigma_px=_WINDOW_PX)
        self._threads = threads
        small = reduced(aligned.stack, _PIXELS * 1e-6)
        middle = small.images[aligned.reference].astype(np.float32)
        grey = middle if middle.ndim == 2 else middle.mean(axis=2)
        slope = np.hypot(*np.gradient(grey))
        self._counts = slope >= np.median(slope)

    def misfit(self, stack: FocalStack, diopters: Array) -> float:
        """Mean log cost of the best of some inverse depths (D,)."""
        small = reduced(stack, _PIXELS * 1e-6)
        volume = cost_volume_from_config(small, 1.0 / diopters, self._cost, threads=self._threads)
        return float(log_energy(volume, "residual").min(axis=0)[self._counts].mean())

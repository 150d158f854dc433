"""Velocity of a camera from the images of one sweep alone.

Registration tells where the middle of every frame lies; of a camera that moves evenly these places lie on a line in
time, with ``-F v q`` pixels a second for a scene at inverse depth q. So the sideways velocity is known but for one
number, the typical q, and the forward velocity is another; both are searched. The camera counts as one that
does not turn: a turning one moves its pictures evenly, too, but no parallax explains them better than none.

    objective = mean over the textured half of the least log cost,       at a quarter of the size
"""

from __future__ import annotations

import math
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

_EVENLY_PX = 0.25  # largest distance (root mean square) of the places from a line, as a share of their reach
_LEAST_REACH_PX = 1.5  # of the outermost frame, below which a hand may have moved the camera
_PIXELS = 6000  # of the images compared
_LEVELS = 20
_AROUND = np.geomspace(0.4, 2.5, _LEVELS)  # inverse depths, in units of the typical one
_FARTHEST, _NEARER = 0.15, 1.5  # scene: dioptres, and as a factor of the nearest focus
_TYPICAL = 8  # inverse depths tried, in proportion
_FORWARD_PX = (-1.5, -0.75, 0.0, 0.75, 1.5)  # at the corners of the outermost frame
_WINDOW_PX = 2.0
_WORSE = 0.6  # most loss of log cost by poses: right ones lose up to 0.4 on fine texture, those of the wrong sign more
_BETTER = 0.1  # least gain in log cost of a moving camera over the plain alignment


def found_by_images(
    stack: FocalStack, aligned: AlignedStack, limits: SceneRange, config: Config, threads: int
) -> AlignedStack | None:
    """Aligned stack of a camera that moves evenly; None if it stands still, or its motion is not even."""
    elapsed = _elapsed_s(aligned)
    places = np.array([aligned.estimates[i].motion.shift_px for i in aligned.kept])
    px_per_s = _even_motion(places, elapsed)
    if px_per_s is None:
        return None
    lens, curve = intrinsics(aligned.stack.camera, aligned.stack.size), config.alignment.transfer_curve
    reach_px = math.hypot(*aligned.stack.size) / 2.0
    last_s = float(np.abs(elapsed).max())
    scales = [aligned.estimates[i].motion.log_scale for i in aligned.kept]
    compared = _Compared(aligned, config, threads)

    def followed(typical: float, forward_m_s: float) -> AlignedStack:
        velocity = np.array([-px_per_s[0] / (lens.fx * typical), -px_per_s[1] / (lens.fy * typical), forward_m_s])
        views = tuple(
            View(velocity * t, log_scale=s + math.log(max(1.0 - velocity[2] * t * typical, 0.1)))
            for t, s in zip(elapsed, scales, strict=True)
        )
        return moving(stack, aligned, views, typical, curve)

    low, high = _likely(aligned, limits)
    trials = [(float(q), 0.0) for q in np.geomspace(low, high, _TYPICAL)]
    objective = {trial: compared.misfit(followed(*trial).stack, trial[0] * _AROUND) for trial in trials}
    for _ in range(2):
        best = min(objective, key=lambda trial: objective[trial])
        step = math.exp(math.log(high / low) / (_TYPICAL - 1) / 2.0)
        unit = 1.0 / (reach_px * best[0] * last_s)
        around = [(best[0] * step, best[1]), (best[0] / step, best[1])]
        around += [(best[0], px * unit) for px in _FORWARD_PX]
        for trial in around:
            if trial not in objective:
                objective[trial] = compared.misfit(followed(*trial).stack, trial[0] * _AROUND)
    best = min(objective, key=lambda trial: objective[trial])
    plain = compared.misfit(_turned(stack, aligned, curve).stack, np.geomspace(low, high, 2 * _LEVELS))
    return followed(*best) if objective[best] < plain - _BETTER else None


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


def _even_motion(places_px: Array, elapsed_s: Array) -> Array | None:
    """Velocity (2,) of the picture in pixels a second; None if it stands still or moves unevenly."""
    slope = elapsed_s @ places_px / float(elapsed_s @ elapsed_s)
    reach = float(np.linalg.norm(slope)) * float(np.abs(elapsed_s).max())
    left = float(np.sqrt(np.mean(np.sum((places_px - np.outer(elapsed_s, slope)) ** 2, axis=1))))
    return None if reach < _LEAST_REACH_PX or left > _EVENLY_PX * reach else np.asarray(slope)


def _elapsed_s(aligned: AlignedStack) -> Array:
    stamps = aligned.stack.stamp_ns
    if (stamps == 0).any():
        return np.arange(len(stamps)) / 30.0 - aligned.reference / 30.0
    return np.asarray((stamps - stamps[aligned.reference]) * 1e-9, np.float64)


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

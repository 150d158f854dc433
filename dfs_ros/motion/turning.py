"""Frames as registered, as views of a camera that turns in its place.

An image of one geometry has no room for what a frame does not see: near the edges it is filled, and depth there is
wrong. A volume of views leaves such pixels out frame by frame (:mod:`dfs_ros.cost_volume.moving`).
"""

from __future__ import annotations

import numpy as np

from dfs_ros.alignment.align import AlignedStack
from dfs_ros.alignment.moving import View
from dfs_ros.motion.views import LEAST_FRAMES, LEAST_PARALLAX_PX, moving
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import FocalStack

_LEAST_UNSEEN = 0.04  # share of pixels that not every frame sees, worth the cost of views
_LEAST_SHIFTED = 0.02  # of it by shifts: breathing of a camera that stands still may cut as much, and is not worth it


def is_cut(aligned: AlignedStack) -> bool:
    """True if shifted frames do not see a part of the reference, and views can express their motion.

    Of three frames too few are left there: depth at the edges is worse then.
    """
    motions = [aligned.estimates[i].motion for i in aligned.kept]
    height, width = aligned.stack.size
    local = max(motion.local_rms for motion in motions) * max(height, width) / 2.0 > LEAST_PARALLAX_PX
    shifted = float((np.ptp([motion.shift_px for motion in motions], axis=0) / (width, height)).sum())
    if shifted < _LEAST_SHIFTED:
        return False
    return len(aligned.kept) >= LEAST_FRAMES and not local and 1.0 - float(aligned.valid.mean()) > _LEAST_UNSEEN


def turned(stack: FocalStack, aligned: AlignedStack, transfer_curve: str) -> AlignedStack:
    """Registration of the frames of `stack` as views of a camera that turns in its place."""
    lens = intrinsics(aligned.stack.camera, aligned.stack.size)
    views = []
    for i in aligned.kept:
        motion = aligned.estimates[i].motion
        a, b, roll = motion.shift_px[0] / lens.fx, motion.shift_px[1] / lens.fy, motion.rotation_rad
        bent = -np.array(motion.perspective) * np.array([lens.fx, lens.fy]) / motion.unit_px
        rotation = np.array([[1.0, -roll, a], [roll, 1.0, b], [*bent, 1.0]])  # of small angles
        views.append(View(np.zeros(3), rotation, motion.log_scale, motion.radial))
    return moving(stack, aligned, tuple(views), 1.0, transfer_curve)

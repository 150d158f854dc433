"""Views of a sweep from poses, and the stack of a moving camera that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack
from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]

LEAST_PARALLAX_PX = 0.3
"""Parallax over the range of depths that is worth a volume of a moving camera."""

_LEAST_SPEED_M_S = 1e-3  # standard deviation of a velocity that is stated to be exact
_LEAST_LOG_SCALE = 0.01  # the same of its scale: focal length in pixels is no better known


@dataclass(frozen=True)
class MotionDoubt:
    """Standard deviations of the motion of a sweep: of its velocity, and of the logarithm of its scale."""

    velocity_m_s: float
    log_scale: float

    @classmethod
    def of(cls, stack: MovingStack, translation_sigma: float) -> MotionDoubt:
        """Doubt that the poses of a stack state; `translation_sigma`: share of the distance where they state none."""
        distance_m = np.linalg.norm(stack.positions_m, axis=1)
        stated = np.array([pose.sigma_m for pose in stack.poses if pose is not None and not math.isnan(pose.sigma_m)])
        sigma_m = float(stated.max()) if stated.size else translation_sigma * float(distance_m.max())
        elapsed = float(np.abs(elapsed_s(stack)).max())
        share = sigma_m / float(distance_m.max())
        return cls(sigma_m / elapsed + _LEAST_SPEED_M_S, math.hypot(share, _LEAST_LOG_SCALE))


def views_from_poses(aligned: AlignedStack, diopters: float) -> tuple[View, ...] | None:
    """Views of the frames of an aligned stack by their poses; None unless every frame has one.

    Breathing is that of the registration, without what forward motion adds to it at the inverse depth `diopters`.
    """
    poses, reference = aligned.stack.poses, aligned.reference
    if not poses or any(pose is None or pose.is_rotation_alone for pose in poses):
        return None
    origin = poses[reference]
    assert origin is not None
    motions = [aligned.estimates[i].motion for i in aligned.kept]
    views = []
    for pose, motion in zip(poses, motions, strict=True):
        assert pose is not None
        seen = pose.seen_from(origin)
        position = np.array(seen.translation_m)
        log_scale = motion.log_scale + math.log(max(1.0 - position[2] * diopters, 0.1))
        views.append(View(position, seen.rotation.T, log_scale))
    views[reference] = View(np.zeros(3))
    return tuple(views)


def moving(
    stack: FocalStack, aligned: AlignedStack, views: tuple[View, ...], diopters: float, transfer_curve: str
) -> AlignedStack:
    """Aligned stack of a moving camera; `stack`: the images as taken, `diopters`: the plane of its rough images."""
    kept, known = list(aligned.kept), aligned.stack
    found = MovingStack(
        images=known.images,
        focus_diopters=known.focus_diopters,
        camera=known.camera,
        stamp_ns=known.stamp_ns,
        blur_scale=stack.blur_scale[kept] * np.exp([-view.log_scale for view in views]),
        magnification=known.magnification,
        focus_sigma_diopters=known.focus_sigma_diopters,
        poses=known.poses,
        source=stack.images[kept],
        gains=np.array([aligned.estimates[i].gain for i in kept]),
        views=views,
        reference=aligned.reference,
    )
    return brought(replace(aligned, stack=found), diopters, transfer_curve)


def brought(aligned: AlignedStack, diopters: float | NDArray[np.floating], transfer_curve: str) -> AlignedStack:
    """The same with its rough images, and the pixels that most frames see, at an inverse depth or that of (H, W)."""
    stack = aligned.stack
    assert isinstance(stack, MovingStack)
    still, inside = stack.still(diopters, transfer_curve)
    keys = tuple(object() for _ in aligned.kept)
    valid = 2 * inside.sum(axis=0) > len(stack)
    return replace(aligned, stack=replace(stack, images=still.images), valid=valid, frame_keys=keys)


def elapsed_s(stack: MovingStack) -> Array:
    """Time (F,) of each frame from the reference in seconds; in frames of 1/30 s without stamps."""
    stamps = stack.stamp_ns
    if (stamps == 0).any() or np.ptp(stamps) == 0:
        return (np.arange(len(stack)) - stack.reference) / 30.0
    return np.asarray((stamps - stamps[stack.reference]) * 1e-9, np.float64)


def parallax_px(aligned: AlignedStack, width_diopters: float) -> float:
    """Largest change of place of a pixel over a range of inverse depth of this width, in pixels."""
    assert isinstance(aligned.stack, MovingStack)
    return width_diopters * aligned.stack.parallax_px_per_diopter

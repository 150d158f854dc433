"""Views of a sweep from poses, and the stack of a moving camera that they make."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack
from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]

LEAST_PARALLAX_PX = 0.3
"""Parallax over the range of depths that is worth a volume of a moving camera."""

LEAST_FRAMES = 4
"""Frames of a moving camera: fewer leave sigma too small, as tilt, breathing and motion look alike in them."""

_LEAST_SEEN = 0.75  # share of the frames that see a pixel with depth: fewer are all on one side of the focus
_MOST_FORWARD = 0.5  # of the distance sideways: more is hardly told from breathing, which each frame has its own of
_LEAST_LOG_SCALE = 0.01  # of poses that are stated to be exact: focal length in pixels is no better known
_OF_IMAGES = 0.3


def scale_within(stack: MovingStack, translation_sigma: float) -> float:
    """Standard deviation of the logarithm of the scale of the positions, before the images correct it.

    By the poses; `translation_sigma`: that of poses that state none. Without poses the positions come from images.
    """
    if not stack.poses:
        return _OF_IMAGES
    stated = np.array([pose.sigma_m for pose in stack.poses if pose is not None and not math.isnan(pose.sigma_m)])
    distance_m = float(np.linalg.norm(stack.positions_m, axis=1).max())
    return math.hypot(float(stated.max()) / distance_m if stated.size else translation_sigma, _LEAST_LOG_SCALE)


def views_from_poses(aligned: AlignedStack, diopters: float) -> tuple[View, ...] | None:
    """Views of the frames of an aligned stack by their poses; None where these are not enough.

    Enough are poses of all frames, of four at least, that lead over twice as far sideways as forward.
    Breathing is that of the registration, without what forward motion adds to it at the inverse depth `diopters`.
    """
    reference = aligned.reference
    poses = [pose for pose in aligned.stack.poses if pose is not None and not pose.is_rotation_alone]
    if len(poses) < max(len(aligned.kept), LEAST_FRAMES):
        return None
    motions = [aligned.estimates[i].motion for i in aligned.kept]
    views = []
    for pose, motion in zip(poses, motions, strict=True):
        seen = pose.seen_from(poses[reference])
        position = np.array(seen.translation_m)
        log_scale = motion.log_scale + math.log(max(1.0 - position[2] * diopters, 0.1))
        views.append(View(position, seen.rotation.T, log_scale))
    views[reference] = View(np.zeros(3))
    sideways_m, forward_m = (
        float(np.linalg.norm([view.position_m[axes] for view in views])) for axes in (np.s_[:2], 2)
    )
    return tuple(views) if forward_m <= _MOST_FORWARD * sideways_m else None


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


def followed_stack(aligned: AlignedStack) -> MovingStack:
    """Stack of a moving camera. Raises TypeError for that of a still one."""
    if not isinstance(aligned.stack, MovingStack):
        raise TypeError(f"aligned.stack: expected a MovingStack, received {type(aligned.stack).__name__}")
    return aligned.stack


def brought(aligned: AlignedStack, diopters: float | NDArray[np.floating], transfer_curve: str) -> AlignedStack:
    """The same with its rough images, and the pixels that enough frames see, at an inverse depth or that of (H, W)."""
    stack = followed_stack(aligned)
    still, inside = stack.still(diopters, transfer_curve)
    keys = tuple(object() for _ in aligned.kept)
    valid = inside.sum(axis=0) >= max(math.ceil(_LEAST_SEEN * len(stack)), min(LEAST_FRAMES, len(stack)))
    return replace(aligned, stack=replace(stack, images=still.images), valid=valid, frame_keys=keys)


def elapsed_s(stack: FocalStack, reference: int) -> Array:
    """Time (F,) of each frame from the frame `reference` in seconds; in frames of 1/30 s without stamps."""
    stamps = stack.stamp_ns
    if (stamps == 0).any() or np.ptp(stamps) == 0:
        return (np.arange(len(stack)) - reference) / 30.0
    return np.asarray((stamps - stamps[reference]) * 1e-9, np.float64)


def parallax_px(aligned: AlignedStack, width_diopters: float) -> float:
    """Largest change of place of a pixel over a range of inverse depth of this width, in pixels."""
    return width_diopters * followed_stack(aligned).parallax_px_per_diopter


def most_parallax_px(aligned: AlignedStack, width_diopters: float) -> float:
    """Upper limit of :func:`parallax_px` by the poses alone; infinite where one is unknown."""
    poses = [pose for pose in aligned.stack.poses if pose is not None and not pose.is_rotation_alone]
    if len(poses) < len(aligned.kept):
        return math.inf
    own, lens = poses[aligned.reference], intrinsics(aligned.stack.camera, aligned.stack.size)
    farthest_m = max(float(np.linalg.norm(pose.seen_from(own).translation_m)) for pose in poses)
    return width_diopters * farthest_m * (max(lens.fx, lens.fy) + math.hypot(*aligned.stack.size) / 2.0)

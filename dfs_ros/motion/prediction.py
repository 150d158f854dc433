"""Sweep of a moving camera by its poses alone: what earlier sweeps told takes the place of a registration.

Once the scale of the poses, breathing and the depth of the scene are known, poses tell where each frame sees the
reference. The images then tell their exposure alone, at the median inverse depth of the sweep before.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack, as_taken
from dfs_ros.alignment.exposure import overexposed
from dfs_ros.alignment.matching import Breathing, FrameAlignment, Match
from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.alignment.operations import Gains
from dfs_ros.alignment.registration import Motion
from dfs_ros.config import AlignmentConfig
from dfs_ros.motion.tracking import MotionTracker
from dfs_ros.motion.views import LEAST_PARALLAX_PX, followed_stack, moving, parallax_px, views_from_poses
from dfs_ros.optics.pinhole import Intrinsics, intrinsics
from dfs_ros.types import FocalStack

Image = NDArray[np.float32]


def predicted(
    stack: FocalStack, config: AlignmentConfig, reference: int | None, tracker: MotionTracker, gains_of: Gains
) -> AlignedStack | None:
    """Moving camera by poses and by what `tracker` knows; None where a registration is needed.

    That is where the tracker knows too little, where poses are not enough or lead to little parallax, and where an
    image is over-exposed. Arguments as of :func:`dfs_ros.alignment.align.align`.
    """
    if not tracker.predicts or not stack.poses or any(overexposed(stack.images)):
        return None
    if config.mode != "refine" or config.target_focus_diopters >= 0:  # set since the sweeps that told
        return None
    if reference is None:
        reference = int(np.argsort(stack.focus_diopters, kind="stable")[len(stack) // 2])
    breathing = Breathing(stack, config)
    breathing.held(tracker.breathing)
    steps = [breathing.step(reference, i) for i in range(len(stack))]
    still = [Motion.from_parameters(stack.size, (0.0, 0.0), tracker.breathing * step, 0.0, 0.0) for step in steps]
    estimates = [
        FrameAlignment(motion, math.exp(step), source="reference" if i == reference else "poses")
        for i, (motion, step) in enumerate(zip(still, steps, strict=True))
    ]
    aligned = as_taken(stack, Match(reference, tuple(estimates), breathing))
    views = views_from_poses(aligned, 0.0)
    if views is None:
        return None
    views = tuple(
        replace(v, radial=tracker.radial * step) for v, step in zip(tracker.scaled(views), steps, strict=True)
    )
    typical = float(np.median(tracker.diopters))
    lens = intrinsics(aligned.stack.camera, stack.size)
    motions = {i: plane_motion(view, stack.size, lens, typical) for i, view in enumerate(views)}
    del motions[reference]
    gains = gains_of(stack.images, reference, motions, config.transfer_curve) if config.normalize_exposure else {}
    known = tuple(replace(e, motion=motions.get(i, e.motion), gain=gains.get(i, 1.0)) for i, e in enumerate(estimates))
    found = moving(stack, replace(aligned, estimates=known), views, typical, config.transfer_curve)
    width = float(np.ptp(np.percentile(tracker.diopters, [2.0, 98.0])))
    return found if parallax_px(found, width) >= LEAST_PARALLAX_PX else None


def with_gains_by(aligned: AlignedStack, diopters: Image, transfer_curve: str, gains_of: Gains) -> AlignedStack:
    """The same with gains by a coarse inverse depth (h, w); a plane leaves them up to half a per cent off."""
    stack = followed_stack(aligned)
    motions = {i: scene_motion(view, stack, diopters) for i, view in enumerate(stack.views) if i != stack.reference}
    found = gains_of(stack.source, stack.reference, motions, transfer_curve)
    gains = [found.get(i, 1.0) for i in range(len(stack))]
    estimates = tuple(replace(e, gain=gain) for e, gain in zip(aligned.estimates, gains, strict=True))
    return replace(aligned, stack=replace(stack, gains=np.array(gains)), estimates=estimates)


def scene_motion(view: View, stack: MovingStack, diopters: Image) -> Motion:
    """Motion from the reference to a frame, by a coarse inverse depth (h, w)."""
    shape = int(diopters.shape[0]), int(diopters.shape[1])
    plane = plane_motion(view, stack.size, stack.lens, float(np.median(diopters)))
    lens = intrinsics(stack.camera.scaled(shape[1] / stack.size[1]), shape)
    beside = np.stack(view.maps(lens, shape, diopters), axis=-1) - np.stack(plane.maps(shape), axis=-1)
    return replace(plane, local=np.asarray(beside / (max(shape) / 2.0), np.float32))


def plane_motion(view: View, size: tuple[int, int], lens: Intrinsics, diopters: float) -> Motion:
    """Motion from the reference to a frame of a plane, but for terms of the second order in a turn."""
    unit = max(size) / 2.0
    camera = np.array([[lens.fx, 0.0, lens.cx - (size[1] - 1) / 2.0], [0.0, lens.fy, lens.cy - (size[0] - 1) / 2.0]])
    camera = np.vstack([camera / unit, [0.0, 0.0, 1.0]])
    plane = np.eye(3)
    plane[:, 2] -= view.position_m * diopters
    whole = camera @ view.rotation @ plane @ np.linalg.inv(camera)
    whole /= whole[2, 2]
    bent, affine = whole[2, :2], np.eye(3)
    affine[:2, :2] = whole[:2, :2] - np.outer(whole[:2, 2], bent)
    affine[:2, 2] = whole[:2, 2]
    affine[:2] *= math.exp(view.log_scale)
    return Motion(size, affine, view.radial, perspective=(-float(bent[0]), -float(bent[1])))

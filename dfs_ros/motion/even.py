"""Velocity of a camera from the images of one sweep, by a first depth.

Refinement by a first inverse depth q (:mod:`dfs_ros.alignment.refinement`) tells for every frame how pixels at the mean
q0 move, and how much more those that are nearer. A camera that moves evenly through the scene and does not turn, with
velocity v in metres a second, moves them at the time t, beside the rotation that a gyroscope states, by

    u(x) = -F t (vx, vy) q + t vz q x + s x + roll x',       s: breathing,

so that v follows by least squares of all frames. The places at q0 alone tell it, and so does parallax alone: a camera
that turns, or a hand before one that stands still, makes them differ.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack
from dfs_ros.alignment.moving import View
from dfs_ros.alignment.refinement import Parallax
from dfs_ros.alignment.turns import rotations_of, turns
from dfs_ros.motion.views import LEAST_FRAMES, LEAST_PARALLAX_PX, elapsed_s, moving, parallax_px
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]

_UNEVEN = 0.05
"""Largest distance (root mean square) of the places from a line in time, as a share of their reach.

It is .023 at most of an even motion (10 stacks of training photos), .1 and more of a camera that sways every two
seconds.
"""
_DIFFERENT = 0.5  # of the velocities by the places and by parallax; errors of the first depth reduce the latter by .25
# Standard deviation, about what is expected, of the velocity, and of log scale and roll of a frame.
_VELOCITY_WITHIN_M_S, _SCALE_WITHIN, _ROLL_WITHIN = 0.1, 0.01, 0.05


def found_by_parallax(
    stack: FocalStack, aligned: AlignedStack, parallax: Parallax, diopters: NDArray[np.floating], transfer_curve: str
) -> AlignedStack | None:
    """Aligned stack of a camera that moves evenly through the scene; None if it turns, or its motion is not even.

    `parallax`: of the frames of `stack` by the first inverse depth `diopters` (H, W). Stated poses are left out.
    """
    elapsed = elapsed_s(aligned.stack, aligned.reference)
    registered = np.array([bool(information.any()) for information in parallax.information])
    if len(elapsed) < LEAST_FRAMES or registered.sum() < len(elapsed) - 1:
        return None
    parallax = _without_turns(parallax, aligned)
    unit = max(aligned.stack.size) / 2.0
    lens = intrinsics(aligned.stack.camera, aligned.stack.size)
    focal = np.array([lens.fx, lens.fy]) / unit
    places = parallax.parameters[:, :2]
    slope = elapsed @ places / float(elapsed @ elapsed)
    reach = float(np.linalg.norm(slope)) * float(np.abs(elapsed).max())
    if float(np.sqrt(np.mean(np.sum((places - np.outer(elapsed, slope)) ** 2, axis=1)))) > _UNEVEN * reach:
        return None
    velocity, scales = _velocity(parallax, elapsed, focal)
    by_places, by_parallax = -slope / (focal * parallax.mean), _by_parallax_alone(parallax, elapsed, focal)
    if np.linalg.norm(by_places - by_parallax) > _DIFFERENT * np.linalg.norm(by_places):
        return None
    rotations = rotations_of(aligned.stack, aligned.reference)
    views = tuple(
        View(velocity * t, rotation, float(scale))
        for t, rotation, scale in zip(elapsed, rotations, scales, strict=True)
    )
    without_poses = replace(aligned, stack=replace(aligned.stack, poses=()))
    found = moving(stack, without_poses, views, parallax.mean, transfer_curve)
    width = float(np.ptp(np.percentile(diopters, [2.0, 98.0])))
    return found if parallax_px(found, width) >= LEAST_PARALLAX_PX else None


def _without_turns(parallax: Parallax, aligned: AlignedStack) -> Parallax:
    """The same without shift and roll of the rotation of the poses."""
    parameters = parallax.parameters.copy()
    for row, turn in zip(parameters, turns(aligned.stack, aligned.reference), strict=True):
        row[:2] -= turn.affine[:2, 2]
        row[3] -= turn.rotation_rad
    return replace(parallax, parameters=parameters)


def _velocity(parallax: Parallax, elapsed_s: Array, focal: Array) -> tuple[Array, Array]:
    """Velocity (3,) in metres a second and log scales (F,) of breathing, by least squares."""
    count = len(elapsed_s)
    normal = np.diag([_VELOCITY_WITHIN_M_S**-2.0] * 3 + [_SCALE_WITHIN**-2.0, _ROLL_WITHIN**-2.0] * count)
    right = np.zeros(len(normal))
    for k, t in enumerate(elapsed_s):
        of = np.zeros((7, len(normal)))
        for axis in (0, 1):
            of[axis, axis], of[4 + axis, axis] = (-focal[axis] * t * q for q in (parallax.mean, parallax.spread))
        of[2, 2], of[6, 2] = t * parallax.mean, t * parallax.spread
        of[2, 3 + 2 * k] = of[3, 4 + 2 * k] = 1.0
        weighted = of.T @ parallax.information[k]
        normal += weighted @ of
        right += weighted @ parallax.parameters[k]
    solved = np.asarray(np.linalg.solve(normal, right), np.float64)
    return solved[:3], solved[3::2]


def _by_parallax_alone(parallax: Parallax, elapsed_s: Array, focal: Array) -> Array:
    """Velocity (2,) sideways from what nearer pixels move more, with all else of a frame free."""
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for t, parameters, information in zip(elapsed_s, parallax.parameters, parallax.information, strict=True):
        if information.any():
            inner = np.linalg.inv(np.linalg.inv(information)[4:, 4:])
            normal += t * t * inner
            right += t * inner @ parameters[4:]
    return np.asarray(-np.linalg.solve(normal, right)[:2] / (focal * parallax.spread))

"""Motion of the images of a camera that turns in its place, by the rotation of its poses.

With the focal length f in half longer sides and R from axes of the reference to axes of the frame, a point x lies at

    x' = (R00 x + R01 y + f R02, ...) / (R22 + (R20 x + R21 y) / f),

of which a shift, a roll and a perspective term are kept: what is left is of the second order in the angle.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.registration import Motion
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]

_LEAST_RAD = 1e-5


def turns(stack: FocalStack, reference: int) -> tuple[Motion, ...]:
    """Motion from the reference to every frame by the rotation of its pose; none unless all frames have one."""
    still = Motion.identity(stack.size)
    lens = intrinsics(stack.camera, stack.size)
    fx, fy = lens.fx / still.unit_px, lens.fy / still.unit_px
    found = []
    for turned in rotations_of(stack, reference):
        across, down, roll = turned[0, 2] / turned[2, 2], turned[1, 2] / turned[2, 2], math.asin(turned[1, 0])
        if max(abs(across), abs(down), abs(roll)) < _LEAST_RAD:
            found.append(still)
            continue
        motion = Motion.from_parameters(stack.size, (fx * across, fy * down), 0.0, roll, 0.0)
        found.append(replace(motion, perspective=(-float(turned[2, 0]) / fx, -float(turned[2, 1]) / fy)))
    return tuple(found)


def rotations_of(stack: FocalStack, reference: int) -> tuple[Array, ...]:
    """Rotation (3, 3) from axes of the reference to those of every frame; none unless all frames have a pose."""
    poses = [pose for pose in stack.poses if pose is not None]
    if len(poses) < len(stack):
        return (np.eye(3),) * len(stack)
    return tuple(pose.seen_from(poses[reference]).rotation.T for pose in poses)

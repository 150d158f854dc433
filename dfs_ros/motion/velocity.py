"""Velocity of a camera over a sweep, by the positions that its depth goes with."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.moving import MovingStack
from dfs_ros.depth.doubt import LensDoubt
from dfs_ros.motion.views import elapsed_s

Array = NDArray[np.float64]

# Of rendered sweeps of training photos and random scenes at 0.05 and 0.2 m/s, with poses 5 % wrong and without.
_PLACE_PX = 0.1  # standard deviation of the place of an image
_SCALE_SIGMA = 0.02  # of the scale, besides that of depth
_FORWARD, _FORWARD_BY_DEPTH = 0.7, 6.0  # of the velocity forward, as a share of the speed, and by that of depth


def velocity_of(
    stack: MovingStack, diopters: NDArray[np.floating], doubt: LensDoubt, log_within: float = math.inf
) -> tuple[Array, Array]:
    """Mean velocity (3,) in m/s along the axes of the reference, and its covariance (3, 3) in m^2/s^2.

    ``v = sum(t p) / sum(t^2)``, positions p at times t from the reference. Sideways, its scale is that of depth;
    forward it is hardly told from breathing. `diopters` (H, W): inverse depth; `log_within`: deviation of stated
    poses, as a share of the distance, beyond which the images do not lead.
    """
    elapsed = elapsed_s(stack, stack.reference)
    length = float(elapsed @ elapsed)
    velocity = elapsed @ stack.positions_m / length
    typical = np.asarray(np.median(diopters))
    place = _PLACE_PX / (stack.lens.fx * float(typical) * np.sqrt(length))
    depth_variance = float(sum(np.square(term) for term in doubt.terms(typical).values())) / float(typical) ** 2
    covariance = place**2 * np.eye(3) + (depth_variance + _SCALE_SIGMA**2) * np.outer(velocity, velocity)
    covariance[2, 2] += (_FORWARD**2 + _FORWARD_BY_DEPTH**2 * depth_variance) * float(velocity[:2] @ velocity[:2])
    if math.isfinite(log_within) and log_within > 0:
        stated = (log_within * float(np.linalg.norm(velocity))) ** 2
        covariance = np.linalg.inv(np.linalg.inv(covariance) + np.eye(3) / stated)
    return velocity, np.asarray((covariance + covariance.T) / 2.0)

"""Velocity of a camera over a sweep, by the positions that its depth goes with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.moving import MovingStack
from dfs_ros.depth.doubt import LensDoubt
from dfs_ros.motion.views import elapsed_s

Array = NDArray[np.float64]

_PLACE_PX = 0.05
_SCALE_SIGMA = 0.03


def velocity_of(stack: MovingStack, diopters: NDArray[np.floating], doubt: LensDoubt) -> tuple[Array, Array]:
    """Mean velocity (3,) in m/s along the axes of the reference, and its covariance (3, 3) in m^2/s^2.

    ``v = sum(t p) / sum(t^2)``, positions p at times t from the reference. `diopters` (H, W): inverse depth.
    """
    elapsed = elapsed_s(stack, stack.reference)
    length = float(elapsed @ elapsed)
    velocity = elapsed @ stack.positions_m / length
    typical, spread = np.asarray(np.median(diopters)), float(np.std(diopters))
    place = _PLACE_PX / (stack.lens.fx * np.sqrt(length))
    sideways, forward = place / float(typical), place / max(spread * 0.3, 1e-6)
    scale = (
        float(sum(np.square(term) for term in doubt.terms(typical).values())) / float(typical) ** 2 + _SCALE_SIGMA**2
    )
    return velocity, np.diag([sideways**2, sideways**2, forward**2]) + scale * np.outer(velocity, velocity)

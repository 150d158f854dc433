"""Scale of the stated motion of one camera, and breathing of its lens, over its sweeps.

An odometry that is a few per cent wrong is so for long, and the lens stays the same; to find both takes most of a
sweep's time. So they are found on the first sweeps of a moving camera, then now and then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from dfs_ros.alignment.moving import View

WRONG_LOG_SCALE = 0.1
"""Correction of the logarithm of the scale beyond which motion and depth were wrong."""

_FIRST = 3  # sweeps in a row
_EVERY = 5
_MOST = 8.0  # corrections that count


class MotionTracker:
    """Mean of the scales found; `due` for the next correction by the images.

    `breathing`: newest factor of the lens model's, NaN = none yet.
    """

    def __init__(self) -> None:
        self.breathing = math.nan
        self._log_scale, self._found, self._since = 0.0, 0, 0
        self._held = False

    def hold(self) -> None:
        """From now on, no sweep is due."""
        self._held = True

    @property
    def due(self) -> bool:
        """True if the motion of this sweep is to be corrected by its images."""
        return not self._held and (self._found < _FIRST or self._since >= _EVERY - 1)

    def scaled(self, views: Sequence[View]) -> tuple[View, ...]:
        """Views with stated positions scaled."""
        scale = math.exp(self._log_scale)
        return tuple(replace(view, position_m=view.position_m * scale) for view in views)

    def note(self, correction: float) -> None:
        """Note the logarithm of the scale by which the images corrected scaled positions."""
        if abs(correction) > WRONG_LOG_SCALE:
            self._found = 0  # another odometry, or a slip: anew
        self._found, self._since = self._found + 1, 0
        self._log_scale += correction / min(self._found, _MOST)

    def skip(self) -> None:
        """Note a sweep that was not corrected."""
        self._since += 1

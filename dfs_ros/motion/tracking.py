"""Scale of the stated motion of one camera, and breathing of its lens, over its sweeps.

An odometry that is a few per cent wrong is so for long, and the lens stays the same; to find both takes more than a
sweep's time. So they are found on the first sweeps of a moving camera, then ever more seldom while little changes, and
at once where they explain a sweep worse than the one before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.moving import View

WRONG_LOG_SCALE = 0.1
"""Correction of the logarithm of the scale beyond which motion and depth were wrong."""

MISFIT_WITHIN = 0.4
"""Most by which the misfit of a sweep may exceed that of the sweep before.

Of poses 5 % wrong it rises by 0.25 at most where the camera turns round, of half or double translations by 0.49 and
more, of a jump of 1 cm by 2.2 and more, of the wrong sign by 3.4 and more (8 tuning scenes at 0.2 m/s, 4 of them with a
turn).
"""

SMALL_LOG_SCALE = 0.03
"""Correction of it up to which depth needs no better one, and corrections become rarer."""

_FIRST = 3  # sweeps in a row
_EVERY, _MOST_BETWEEN = 5, 20  # sweeps from one correction to the next
_SAMPLED = 16  # pixels from one inverse depth that is kept to the next
_MOST = 8.0  # corrections that count


class MotionTracker:
    """Mean of the scales found; `due` for the next correction by the images.

    Attributes
    ----------
    breathing, radial
        Factor on the log magnification of the lens model, NaN = none yet, and radial term by this log magnification.
    misfit
        That of the newest sweep whose poses explain its images, NaN = none yet.
    diopters
        Inverse depths (N,) of the newest sweep; none where the next is to be registered.
    """

    def __init__(self) -> None:
        self.breathing, self.radial, self.misfit = math.nan, 0.0, math.nan
        self.diopters: NDArray[np.floating] = np.empty(0)
        self._lenses = 0
        self._log_scale, self._found, self._since, self._wait = 0.0, 0, 0, _EVERY
        self._held = False

    def hold(self) -> None:
        """From now on, no sweep is due once the scale is settled; until then each needs a correction of its own."""
        self._held = True

    @property
    def due(self) -> bool:
        """True if the motion of this sweep is to be corrected by its images."""
        return not self.settled or (not self._held and self._since >= self._wait - 1)

    @property
    def settled(self) -> bool:
        """True if enough sweeps in a row told the scale."""
        return self._found >= _FIRST

    @property
    def knows_lens(self) -> bool:
        """True if breathing is not to be searched."""
        return not math.isnan(self.breathing) and (self.settled or not self.due)

    @property
    def predicts(self) -> bool:
        """True if the poses of this sweep tell where its frames see the reference."""
        known = self.settled and bool(self.diopters.size) and not math.isnan(self.breathing + self.misfit)
        return known and not self.due

    def saw(self, diopters: NDArray[np.floating]) -> None:
        """Note the inverse depth (H, W) of a sweep that was followed."""
        self.diopters = diopters[::_SAMPLED, ::_SAMPLED].ravel().copy()

    def forget(self) -> None:
        """Note that the images of a sweep contradict what was known of it: it is due."""
        self.diopters, self._since = np.empty(0), self._wait

    def scaled(self, views: Sequence[View]) -> tuple[View, ...]:
        """Views with stated positions scaled."""
        scale = math.exp(self._log_scale)
        return tuple(replace(view, position_m=view.position_m * scale) for view in views)

    def note_lens(self, modelled: Sequence[float], views: Sequence[View]) -> None:
        """Note the breathing of corrected views; `modelled`: log magnification of each by the lens model."""
        model = np.array(modelled)
        power = float(model @ model)
        if power == 0.0:
            self.breathing = 1.0  # of none, any factor will do
            return
        factor = float(model @ [view.log_scale for view in views]) / power
        radial = float(model @ [view.radial for view in views]) / power
        self._lenses += 1
        if self._lenses == 1:
            self.breathing = factor
        share = 1.0 / min(self._lenses, _MOST)
        self.breathing += share * (factor - self.breathing)
        self.radial += share * (radial - self.radial)

    def note(self, correction: float) -> None:
        """Note the logarithm of the scale by which the images corrected scaled positions."""
        if abs(correction) > WRONG_LOG_SCALE:
            self._found = 0  # another odometry, or a slip: anew
        small = self.settled and abs(correction) <= SMALL_LOG_SCALE
        self._wait = min(2 * self._wait, _MOST_BETWEEN) if small else _EVERY
        self._found, self._since = self._found + 1, 0
        self._log_scale += correction / min(self._found, _MOST)

    def skip(self) -> None:
        """Note a sweep that was not corrected."""
        self._since += 1

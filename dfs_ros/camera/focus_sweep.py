"""Focus sweep: next position, settling, and the lens's state during an exposure.

The lens arrives at a commanded position within `settle_s`. The first image exposed wholly after that, and before the
next command, is the position's image; then the next position is commanded. This module drives nothing: the driver of
the lens reports commands and exposures to it, all on one clock.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_COMMANDS_KEPT = 64


@dataclass(frozen=True)
class Command:
    """Command of position number `position`, number `index` of sweep `sweep_id`.

    The driver accepted it between `asked_ns` and `taken_ns`.
    """

    asked_ns: int
    taken_ns: int
    position: int
    sweep_id: int
    index: int


@dataclass(frozen=True)
class LensPath:
    """State of the lens during an exposure: at `position`, or `moving` there from `origin`.

    `place`: (sweep id, index, images of the sweep) of a position's image; None for all other images.
    """

    position: int
    origin: int
    moving: bool
    place: tuple[int, int, int] | None


class FocusSweep:
    """Focus sweep, see the head of this module.

    Parameters
    ----------
    orders
        Position numbers of each sweep, until they repeat, see :func:`dfs_ros.camera.source.sweep_order`.
    settle_s
        Settling time of the lens after a command to another position.
    """

    def __init__(self, orders: Sequence[Sequence[int]], settle_s: float) -> None:
        if not orders or not all(orders):
            raise ValueError(f"orders: expected sweeps of one position or more, received {list(orders)}")
        if not settle_s >= 0:
            raise ValueError(f"settle_s: expected 0 or more, received {settle_s}")
        self._settle_ns = round(settle_s * 1e9)
        self._plan = (
            (position, sweep_id % 2**32, index, len(order))
            for sweep_id, order in enumerate(itertools.cycle(orders))
            for index, position in enumerate(order)
        )
        self._next = next(self._plan)
        self._count = 0
        self._commands: deque[Command] = deque(maxlen=_COMMANDS_KEPT)
        self._taken = True  # True after the image of the last command

    @property
    def wanted(self) -> int | None:
        """Number of the position to command; None while an image is pending."""
        return self._next[0] if self._taken else None

    def commanded(self, asked_ns: int, taken_ns: int) -> None:
        """Note that the driver has accepted the wanted position."""
        position, sweep_id, index, self._count = self._next
        self._commands.append(Command(asked_ns, taken_ns, position, sweep_id, index))
        self._next = next(self._plan)
        self._taken = False

    def exposed(self, start_ns: int, end_ns: int) -> LensPath | None:
        """Classify an exposure between two times; None for one before the first command."""
        before = [command for command in self._commands if command.asked_ns <= start_ns]
        during = [command for command in self._commands if start_ns < command.asked_ns <= end_ns]
        if not before:
            return None
        last = before[-1]
        came_from = before[-2].position if len(before) > 1 else -1
        away = [command for command in during if command.position != last.position]
        if away:
            return LensPath(away[-1].position, last.position, True, None)
        if last.position != came_from and start_ns < last.taken_ns + self._settle_ns:
            return LensPath(last.position, came_from if came_from >= 0 else last.position, True, None)
        newest = self._commands[-1]
        if last is newest and not self._taken and not during:
            self._taken = True
            return LensPath(last.position, last.position, False, (last.sweep_id, last.index, self._count))
        return LensPath(last.position, last.position, False, None)

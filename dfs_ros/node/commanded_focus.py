"""Focus of images from lens commands, for cameras that do not report it, or report it before the lens is there.

An image is exposed for `schedule.exposure_s` from its stamp. The lens moved if a command was given during that time, or
less than `schedule.settle_s` before it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import Protocol

from dfs_ros.config import ScheduleConfig, numbers
from dfs_ros.types import MAX_FRAMES, FocusMetadata, LensState, check_focus

_COMMANDS_KEPT = 256
# Largest deviation of two stamps from a whole number of periods, in periods.
_JITTER = 0.3
_CLOCK_RESET_PERIODS = 15
# Images held up by a busy machine may come late by seconds, and then in a burst.
_CLOCK_STEP_S = 10.0
_AHEAD_KEPT, _COMPARED = 64, 10
# Over a longer pause the rate's error may add up to a whole period.
_LONGEST_GAP_PERIODS = 300


class CommandedFocus(Protocol):
    """Focus from lens commands."""

    def focus_of(self, stamp_ns: int, received_ns: int | None = None) -> FocusMetadata | None:
        """Focus of the image with this stamp; None = unknown. Called once for each image, in order.

        `received_ns`: time of reception by a clock that is never set, which shows steps of the stamps' clock.
        """


def schedule_of(settings: ScheduleConfig) -> CommandedFocus:
    """Schedule of section `schedule`; ValueError for an impossible one."""
    positions = _positions(settings.focus_diopters)
    if settings.trigger == "time":
        least_s = settings.settle_s + settings.exposure_s
        if least_s >= settings.step_s:
            raise ValueError(
                f"schedule.step_s: expected more than settle_s + exposure_s = {least_s:g} s, received "
                f"{settings.step_s:g}: the lens would never rest during an exposure"
            )
        return TimedSchedule(settings, positions)
    if not settings.rate_hz:
        raise ValueError(
            "schedule.rate_hz: expected images per second over 0, received 0; without it a lost image would shift the "
            "focus of all that follow"
        )
    step_s = settings.frames_per_step / settings.rate_hz
    if settings.settle_s >= step_s:
        raise ValueError(
            f"schedule.settle_s: expected less than the {step_s:g} s of {settings.frames_per_step} images at "
            f"{settings.rate_hz:g} Hz, received {settings.settle_s:g}; raise schedule.frames_per_step"
        )
    return TriggeredSchedule(settings, positions)


class TriggeredSchedule:
    """Schedule by images: every `frames_per_step`-th image moves the lens to the next position.

    Images are counted by their stamps, so that a lost one shifts nothing. If the stamps do not show how many were lost,
    or after a long pause, the focus is NaN from then on; a clock that is set back means a restart of camera and lens.
    After a clock was set ahead the focus is NaN for :data:`_COMPARED` images: their receptions tell by how much.
    """

    def __init__(self, settings: ScheduleConfig, positions: tuple[float, ...]) -> None:
        self._settings = settings
        self._positions = positions
        self._last: tuple[int, int] | None = None  # stamp and number of the newest image
        self._in_step = True
        self._ahead_ns: deque[int] = deque(maxlen=_AHEAD_KEPT)  # stamps less receptions, by the present clock
        # The largest of them before the clock was set, while it is not known by how much.
        self._before_ns: int | None = None

    def focus_of(self, stamp_ns: int, received_ns: int | None = None) -> FocusMetadata | None:
        """Focus by the image's number; numbered, so that lost images are counted."""
        number = self._number(stamp_ns) if received_ns is None or self._clock_is_known(stamp_ns, received_ns) else None
        if number is None:
            return FocusMetadata(stamp_ns, math.nan)
        per_step = self._settings.frames_per_step
        count = len(self._positions) * per_step
        sweep, index = divmod(number, count)
        since_command_s = (index % per_step) / self._settings.rate_hz
        moving = since_command_s < self._settings.settle_s
        return FocusMetadata(
            stamp_ns=stamp_ns,
            focus_diopters=self._positions[index // per_step],
            lens_state=LensState.MOVING if moving else LensState.STATIONARY,
            exposure_ns=round(self._settings.exposure_s * 1e9),
            sweep_id=sweep % 2**32,
            index=index,
            count=count,
        )

    def _clock_is_known(self, stamp_ns: int, received_ns: int) -> bool:
        """Compare stamps and receptions; False while it is not known by how much the clock was set ahead."""
        ahead_ns = stamp_ns - received_ns
        if self._before_ns is None and self._ahead_ns:
            set_ns = ahead_ns - max(self._ahead_ns)
            if set_ns > _CLOCK_STEP_S * 1e9:
                self._before_ns = max(self._ahead_ns)
            if abs(set_ns) > _CLOCK_STEP_S * 1e9:
                self._ahead_ns.clear()
        self._ahead_ns.append(ahead_ns)
        if self._before_ns is None:
            return True
        if len(self._ahead_ns) < _COMPARED:
            return False
        if self._last is not None:  # the least delays of both times are alike
            self._last = self._last[0] + max(self._ahead_ns) - self._before_ns, self._last[1]
        self._before_ns = None
        return True

    def _number(self, stamp_ns: int) -> int | None:
        if self._last is not None:
            periods = (stamp_ns - self._last[0]) * 1e-9 * self._settings.rate_hz
            if periods < -_CLOCK_RESET_PERIODS:
                self._last, self._in_step = None, True
        if self._last is None:
            self._last = (stamp_ns, 0)
            return 0
        if abs(periods - round(periods)) > _JITTER or periods > _LONGEST_GAP_PERIODS:
            self._in_step = False
        number = self._last[1] + round(periods)
        if periods > 0:
            self._last = (stamp_ns, number)
        return number if self._in_step and number >= 0 else None


class TimedSchedule:
    """Schedule by time: the lens moves to the next position every `step_s`.

    After the clock of the stamps was set, the focus is NaN: where the lens is then, they no longer tell.
    """

    def __init__(self, settings: ScheduleConfig, positions: tuple[float, ...]) -> None:
        self._settings = settings
        self._positions = positions
        self._step_ns = round(settings.step_s * 1e9)
        self._start_ns = settings.start_ns or None
        self._last: tuple[int, int | None] | None = None  # stamp and reception of the newest image
        self._in_step = True

    def focus_of(self, stamp_ns: int, received_ns: int | None = None) -> FocusMetadata | None:
        """Focus by the image's time."""
        if self._last is not None and received_ns is not None and self._last[1] is not None:
            ahead_ns = (stamp_ns - self._last[0]) - (received_ns - self._last[1])
            self._in_step = self._in_step and abs(ahead_ns) < _CLOCK_STEP_S * 1e9
        self._last = (stamp_ns, received_ns)
        if not self._in_step:
            return FocusMetadata(stamp_ns, math.nan)
        if self._start_ns is None:
            self._start_ns = stamp_ns
        step, since_command_ns = divmod(stamp_ns - self._start_ns, self._step_ns)
        return _unnumbered(
            FocusMetadata(stamp_ns, self._positions[step % len(self._positions)]),
            self._settings,
            since_command_ns,
            self._step_ns - since_command_ns,
        )


class LensCommands:
    """Newest published commands to the lens."""

    def __init__(self, settings: ScheduleConfig) -> None:
        self._settings = settings
        self._commands: deque[FocusMetadata] = deque(maxlen=_COMMANDS_KEPT)

    def add(self, command: FocusMetadata) -> None:
        """Add a command, given at its stamp; drop later ones after a clock reset."""
        while self._commands and self._commands[-1].stamp_ns >= command.stamp_ns:
            self._commands.pop()
        if self._commands and self._commands[-1].focus_diopters == command.focus_diopters:
            return  # the lens does not move for it
        self._commands.append(command)

    def focus_of(self, stamp_ns: int, received_ns: int | None = None) -> FocusMetadata | None:
        """Focus of the last command before the image's exposure; None without one."""
        next_ns: float = math.inf
        for command in reversed(self._commands):
            if command.stamp_ns <= stamp_ns:
                focus = replace(command, stamp_ns=stamp_ns)
                return _unnumbered(focus, self._settings, stamp_ns - command.stamp_ns, next_ns - stamp_ns)
            next_ns = command.stamp_ns
        return None


class ReportedFocus:
    """Focus reported with each image, by a driver that may be ahead of the lens.

    Images of less than `settle_s` after the first one at a new position count as MOVING.
    """

    def __init__(self, settings: ScheduleConfig, tolerance_diopters: float) -> None:
        self._settings = settings
        self._tolerance_diopters = tolerance_diopters
        self._reached: FocusMetadata | None = None  # the first report of the current position

    def settled(self, focus: FocusMetadata | None) -> FocusMetadata | None:
        """Complete `focus` by the lens's state if the driver does not know it; unchanged without a settling time."""
        if not self._settings.settle_s or focus is None or focus.lens_state != LensState.UNKNOWN:
            return focus
        before = self._reached
        if before is None or focus.stamp_ns < before.stamp_ns:
            settled_ns = round(self._settings.settle_s * 1e9)
            self._reached = replace(focus, stamp_ns=focus.stamp_ns - settled_ns)  # at rest since long
        elif not abs(focus.focus_diopters - before.focus_diopters) <= self._tolerance_diopters:
            self._reached = focus
        since_ns = focus.stamp_ns - (self._reached or focus).stamp_ns
        if since_ns < self._settings.settle_s * 1e9:
            return replace(focus, lens_state=LensState.MOVING)
        return focus


def _unnumbered(
    focus: FocusMetadata, settings: ScheduleConfig, since_command_ns: float, until_next_ns: float
) -> FocusMetadata:
    """Complete `focus` by the lens's state, from the times to the neighbouring commands."""
    exposure_ns = focus.exposure_ns or round(settings.exposure_s * 1e9)
    moving = since_command_ns < settings.settle_s * 1e9 or until_next_ns < exposure_ns
    return replace(
        focus,
        focus_start_diopters=math.nan,
        focus_end_diopters=math.nan,
        lens_state=LensState.MOVING if moving else LensState.STATIONARY,
        exposure_ns=exposure_ns,
        sweep_id=0,
        index=0,
        count=0,
    )


def _positions(text: str) -> tuple[float, ...]:
    name = "schedule.focus_diopters"
    positions = numbers(text, name)
    if len(positions) > MAX_FRAMES or len(set(positions)) < 2:
        raise ValueError(f"{name}: expected 2 to {MAX_FRAMES} positions, two of them different, received {text!r}")
    for position in positions:
        check_focus(position, 0.0, name)
    return positions

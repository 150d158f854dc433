"""Sweeps of a V4L2 camera's lens over its whole range, in raw positions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfs_ros.camera.focus_sweep import FocusSweep
from dfs_ros.camera.sharpest import sharpness
from dfs_ros.camera.v4l2.device import FOCUS_ABSOLUTE, FOCUS_AUTO, V4l2Device, decoded
from dfs_ros.camera.v4l2.source import exposed

_TIMEOUT_S = 5.0


class SweptImage(NamedTuple):
    """Image (H, W, 3) or (H, W) of a sweep.

    `raw`: position of the lens, or where it moves to, by the command that was accepted at `command_ns`; on the same
    monotonic clock `start_ns`, the start of the exposure. `sweep`: number of the sweep whose image at `raw` this is;
    None of all others, among them those that settle.
    """

    image: NDArray[np.uint8]
    raw: int
    start_ns: int
    command_ns: int
    moving: bool
    sweep: int | None


class RawSweep:
    """Camera at `path` whose lens is swept over `count` positions, each of which settles for `settle_s`.

    `orders(count)`: indices of the rising positions, sweep by sweep, until they repeat.
    """

    def __init__(
        self,
        path: str,
        size: tuple[int, int],
        pixel_format: str,
        rate_hz: float,
        settle_s: float,
        count: int,
        orders: Callable[[int], Sequence[Sequence[int]]],
    ) -> None:
        self._device = V4l2Device(path, size, pixel_format, rate_hz)
        self._size, self._pixel_format, self._period_s = size, pixel_format, 1.0 / rate_hz
        try:
            low, high, self.step = self._device.control_range(FOCUS_ABSOLUTE, "focus that can be set (focus_absolute)")
        except BaseException:
            self._device.close()
            raise
        even = np.linspace(low, high, count)
        self.positions = sorted({int(min(low + round((raw - low) / self.step) * self.step, high)) for raw in even})
        self._sweep = FocusSweep(orders(len(self.positions)), settle_s)

    def images(self) -> Generator[SweptImage, None, None]:
        """Yield images without end; damaged ones are left out."""
        device, sweep = self._device, self._sweep
        commanded_ns: dict[int, int] = {}
        if device.has(FOCUS_AUTO):
            device.set(FOCUS_AUTO, 0)
        for frame in device.frames(_TIMEOUT_S):
            start_ns, end_ns = exposed(frame, self._period_s, self._period_s)
            path = None if frame.damaged else sweep.exposed(start_ns, end_ns)
            wanted = sweep.wanted
            if wanted is not None:
                commanded = device.set(FOCUS_ABSOLUTE, self.positions[wanted])
                sweep.commanded(*commanded)
                commanded_ns[wanted] = commanded[1]
            if path is not None:
                image = decoded(frame, self._size, self._pixel_format)
                raw, number = self.positions[path.position], path.place[0] if path.place else None
                yield SweptImage(image, raw, start_ns, commanded_ns[path.position], path.moving, number)

    def close(self) -> None:
        """Stop, and restore the camera's controls."""
        self._device.close()


def one_way(count: int) -> list[Sequence[int]]:
    """Upwards, each time."""
    return [range(count)]


def both_ways(count: int) -> list[Sequence[int]]:
    """Upwards, and downwards in steps of twice the size.

    >>> both_ways(7)
    [[0, 1, 2, 3, 4, 5, 6, 4, 2]]
    """
    return [[*range(count), *range(count - 3, 0, -2)]]


def scan(
    path: str,
    size: tuple[int, int],
    pixel_format: str,
    rate_hz: float,
    *,
    settle_s: float,
    count: int,
    repeats: int,
    progress: Callable[[], None],
) -> tuple[list[int], int, list[list[float]]]:
    """Sweep the lens `repeats` times over `count` positions, in one direction.

    One direction avoids the play of the motor.

    Returns the positions, rising; the lens's smallest step; and the sharpness at each position, sweep by sweep.
    """
    with closing(RawSweep(path, size, pixel_format, rate_hz, settle_s, count, one_way)) as swept:
        rounds: list[list[float]] = [[] for _ in range(repeats)]
        for each in swept.images():
            if each.sweep is not None:
                rounds[each.sweep].append(sharpness(each.image))
                progress()
                if len(rounds[-1]) == len(swept.positions):
                    break
    return swept.positions, swept.step, rounds

"""Sharpness of a V4L2 camera's image over its lens's range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dfs_ros.camera.focus_sweep import FocusSweep
from dfs_ros.camera.sharpest import sharpness
from dfs_ros.camera.v4l2.device import FOCUS_ABSOLUTE, FOCUS_AUTO, V4l2Device, decoded
from dfs_ros.camera.v4l2.source import exposed

_TIMEOUT_S = 5.0


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
    with V4l2Device(path, size, pixel_format, rate_hz) as device:
        low, high, step = device.control_range(FOCUS_ABSOLUTE, "focus that can be set (focus_absolute)")
        even = np.linspace(low, high, count)
        positions = sorted({int(min(low + round((raw - low) / step) * step, high)) for raw in even})
        if device.has(FOCUS_AUTO):
            device.set(FOCUS_AUTO, 0)
        sweep = FocusSweep([range(len(positions))], settle_s)
        rounds: list[list[float]] = [[] for _ in range(repeats)]
        for frame in device.frames(_TIMEOUT_S):
            if not frame.damaged:
                taken = sweep.exposed(*exposed(frame, 1.0 / rate_hz, 1.0 / rate_hz))
                if taken is not None and taken.place is not None:
                    rounds[taken.place[0]].append(sharpness(decoded(frame, size, pixel_format)))
                    progress()
            if len(rounds[-1]) == len(positions):
                break
            wanted = sweep.wanted
            if wanted is not None:
                sweep.commanded(*device.set(FOCUS_ABSOLUTE, positions[wanted]))
    return positions, step, rounds

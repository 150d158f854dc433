"""Sharpness over the whole range of a V4L2 camera's lens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from dfs_ros.camera.raw_sweep import RawSweep, one_way
from dfs_ros.camera.sharpest import sharpness
from dfs_ros.camera.v4l2.source import V4l2Camera
from dfs_ros.config import CameraConfig, V4l2Config


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
) -> tuple[list[float], float, list[list[float]]]:
    """Sweep the lens `repeats` times over `count` positions, in one direction.

    One direction avoids the play of the motor.

    Returns the positions, rising; the lens's smallest step; and the sharpness at each position, sweep by sweep.
    """
    height, width = size
    camera = V4l2Camera(
        V4l2Config(device=path, pixel_format=pixel_format), CameraConfig(width=width, height=height, rate_hz=rate_hz)
    )
    with closing(RawSweep(camera, settle_s, count, one_way)) as swept:
        rounds: list[list[float]] = [[] for _ in range(repeats)]
        for each in swept.images():
            if each.sweep is not None:
                rounds[each.sweep].append(sharpness(each.image))
                progress()
                if len(rounds[-1]) == len(swept.positions):
                    break
    return swept.positions, swept.step, rounds

"""Time of the outputs of one depth image: points, packed cloud, colours."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dfs_ros.io.pictures import colorize_depth
from dfs_ros.messages.points import pack_xyzrgb
from dfs_ros.optics.pinhole import points_from_depth


def measure(repeats: int, height: int = 480, width: int = 640) -> dict[str, float]:
    """Least seconds of each output over `repeats` calls, with random depth and colours."""
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(0.3, 10.0, (height, width)).astype(np.float32)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    intrinsics = (float(width), float(width), (width - 1) / 2, (height - 1) / 2)
    points_m = points_from_depth(depth_m, intrinsics)
    calls: dict[str, Callable[[], NDArray[np.generic]]] = {
        "points": lambda: points_from_depth(depth_m, intrinsics),
        "packed cloud": lambda: pack_xyzrgb(points_m, rgb),
        "colours": lambda: colorize_depth(depth_m, 0.3, 10.0),
    }
    return {name: min(_seconds(call) for _ in range(repeats)) for name, call in calls.items()}


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin

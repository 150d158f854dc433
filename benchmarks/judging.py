"""CPU time of the judgement of a stack, once and for each stack of a live camera."""

from __future__ import annotations

import itertools
import time

from dfs_ros.alignment.align import align
from dfs_ros.calibration.aperture import unfitted
from dfs_ros.consistency.judge import MOST_STACKS_BETWEEN, judge
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import random_scene
from dfs_ros.types import Camera

_CAMERA = Camera(0.008, 1.4, 6e-6)
_FOCUS_DIOPTERS = (2.2, 1.7, 1.3, 0.9, 0.5)


def measure(repeats: int, height: int = 240, width: int = 320) -> dict[str, float]:
    """Least CPU seconds of a judgement of 5 images over `repeats` calls, and per stack of a live camera."""
    scene = random_scene(7, width, height, near_m=0.4, far_m=3.0)
    stack = render_stack(scene.rgb, scene.depth_m, _CAMERA, _FOCUS_DIOPTERS, breathing=True, noise=0.004, rng=7)
    aligned = align(stack)
    marks = [time.process_time()]
    for _ in range(repeats):
        judge(stack, aligned, unfitted())
        marks.append(time.process_time())
    least = min(after - before for before, after in itertools.pairwise(marks))
    return {"judgement": least, "per live stack": least / MOST_STACKS_BETWEEN}

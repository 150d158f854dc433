"""What the tests of consistency share: one honest stack, and what can be wrong with it."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from dfs_ros.alignment.align import align
from dfs_ros.calibration.aperture import unfitted
from dfs_ros.consistency.findings import Findings
from dfs_ros.consistency.judge import judge
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import random_scene
from dfs_ros.types import Camera, FocalStack

CAMERA = Camera(0.016, 2.8, 12e-6)  # 7.6 px of blur a dioptre, and 2.2 px of breathing at the edge of 160 px
FOCUS = (2.2, 1.7, 1.3, 0.9, 0.5)


@functools.cache
def honest_stack(seed: int = 7, noise: float = 0.004) -> FocalStack:
    """A scene between 0.4 and 3 m that a lens breathes on, 160 x 120, with an f-number told 8 % too large."""
    scene = random_scene(seed, 160, 120, near_m=0.4, far_m=3.0)
    stack = render_stack(scene.rgb, scene.depth_m, CAMERA, FOCUS, breathing=True, noise=noise, rng=seed)
    camera = dataclasses.replace(CAMERA, f_number=1.08 * CAMERA.f_number)
    return dataclasses.replace(stack, camera=camera, stamp_ns=np.arange(1, 6) * 10**9)


def showing(stack: FocalStack, which: list[int]) -> FocalStack:
    """The stack whose i-th image is image `which[i]`, with noise of its own where it is another's."""
    rng = np.random.default_rng(5)
    images = stack.images[which].astype(np.float64)
    others = np.array(which) != np.arange(len(stack))
    images[others] += rng.standard_normal(images[others].shape)
    return dataclasses.replace(stack, images=np.clip(np.rint(images), 0, 255).astype(np.uint8))


def told(stack: FocalStack, focus_diopters: np.ndarray | list[float]) -> FocalStack:
    """The stack with other focus values."""
    return dataclasses.replace(stack, focus_diopters=np.asarray(focus_diopters, np.float64))


def findings_of(stack: FocalStack) -> Findings:
    """Judgement of a stack, aligned as usual."""
    return judge(stack, align(stack), unfitted())

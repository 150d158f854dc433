"""What blur cannot tell: an offset of the focus scale, and a gain of it from an aperture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from dfs_ros.config import CostConfig
from dfs_ros.depth.energies import HostEnergies
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import random_scene
from dfs_ros.types import Camera, FocalStack

CAMERA = Camera(0.008, 1.4, 6e-6)
FOCUS = np.array([2.2, 1.7, 1.3, 0.9, 0.5])
DEPTHS = np.linspace(0.3, 2.4, 45)


@pytest.fixture(scope="module")
def stack() -> FocalStack:
    scene = random_scene(np.random.default_rng(3), 128, 96, near_m=0.5, far_m=2.0)
    return render_stack(scene.rgb, scene.depth_m, CAMERA, FOCUS, rng=1)


def misfit(stack: FocalStack, focus: NDArray[np.float64], depths: NDArray[np.float64], f_number: float = 1.4) -> float:
    """Mean logarithm of the least misfit, for focus and depths in dioptres."""
    camera = dataclasses.replace(CAMERA, f_number=f_number)
    least = HostEnergies(1).least(FocalStack(stack.images, focus, camera), 1.0 / depths, CostConfig())
    return float(least.mean())


def test_an_offset_of_the_focus_changes_no_misfit(stack: FocalStack) -> None:
    true = misfit(stack, FOCUS, DEPTHS)
    assert misfit(stack, FOCUS + 0.3, DEPTHS + 0.3) == pytest.approx(true, abs=0.01)
    assert misfit(stack, 1.05 * FOCUS, 1.05 * DEPTHS) > true + 0.03


def test_a_gain_of_the_focus_is_an_aperture(stack: FocalStack) -> None:
    true = misfit(stack, FOCUS, DEPTHS)
    assert misfit(stack, 1.2 * FOCUS, 1.2 * DEPTHS) > true + 0.3
    assert misfit(stack, 1.2 * FOCUS, 1.2 * DEPTHS, 1.2 * 1.4) == pytest.approx(true, abs=0.01)

"""A lens with spherical aberration: depth by its description is that of a lens without."""

from __future__ import annotations

import numpy as np
import pytest

from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.simulation.pupil import Pupil
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import demo_camera, plane_scene
from dfs_ros.types import FocalStack

FOCUS_DIOPTERS = np.linspace(0.35, 2.2, 5)


def plane_off(depth_m: float, aberration: float, told: float) -> float:
    """Error in dioptres of a plane through a lens of that aberration, told another."""
    camera, scene = demo_camera(160), plane_scene(depth_m, 160, 120)
    pupil = Pupil(0, 0.0, aberration)
    images = render_stack(scene.rgb, scene.depth_m, camera, FOCUS_DIOPTERS, rng=1, pupil=pupil).images
    stack = FocalStack(images, FOCUS_DIOPTERS, camera, magnification=np.ones(5))
    settings = {"network": {"name": "none"}, "lens": {"aberration": told, "aperture": "given"}}
    result = DepthEstimator(Config.from_dict(settings)).estimate(stack, sharpen=False)
    return float(np.nanmedian(1.0 / result.depth_m) - 1.0 / depth_m)


@pytest.mark.parametrize("aberration", [-0.4, 0.4])
@pytest.mark.parametrize("depth_m", [0.6, 1.5])
def test_planes(depth_m: float, aberration: float) -> None:
    unknown, told, none = (plane_off(depth_m, *lens) for lens in ((aberration, 0.0), (aberration, aberration), (0, 0)))
    assert abs(unknown) > 0.03
    assert told == pytest.approx(none, abs=0.006)

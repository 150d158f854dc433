"""Velocity of a camera that moves within the sweep, in metres a second, with its covariance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from moving_rig import moving_stack

from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.config import Config
from dfs_ros.depth.doubt import LensDoubt
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.motion.velocity import velocity_of
from dfs_ros.pose import Pose
from dfs_ros.types import FocalStack

SETTINGS = {
    "network": {"name": "none"},
    "processing": {"threads": 1},
    "lens": {"aperture": "given", "focus_sigma_diopters": 0.0},
}


@pytest.mark.parametrize("speed_m_s", [0.05, 0.2])
def test_velocity_of_a_camera_whose_poses_are_a_little_wrong(speed_m_s: float) -> None:
    stack = moving_stack(speed_m_s, told=1.05, sigma_m=0.05 * speed_m_s / 15.0)
    motion = DepthEstimator(Config.from_dict(SETTINGS)).estimate(stack, sharpen=False).report["motion"]
    velocity, covariance = np.array(motion["velocity_m_s"]), np.reshape(motion["covariance_m2_s2"], (3, 3))
    error = velocity - [speed_m_s, 0.0, 0.0]
    assert np.abs(error[:2]).max() < 0.05 * speed_m_s
    assert (np.abs(error) < 3.0 * np.sqrt(np.diag(covariance))).all()
    assert np.sqrt(covariance[0, 0]) < 0.15 * speed_m_s
    np.testing.assert_array_equal(covariance, covariance.T)


def test_no_velocity_of_a_still_camera_or_without_times() -> None:
    estimator, none = DepthEstimator(Config.from_dict(SETTINGS)), {"velocity_m_s": [], "covariance_m2_s2": []}
    assert estimator.estimate(moving_stack(0.001), sharpen=False).report["motion"] == none
    unstamped = replace(moving_stack(0.2), stamp_ns=np.zeros(5, np.int64))
    assert estimator.estimate(unstamped, sharpen=False).report["motion"] == none


def test_stated_poses_bound_the_doubt_that_the_lens_leaves() -> None:
    stack = moving_stack(0.2)
    poses = [Pose(pose.translation_m) for pose in stack.poses if pose is not None]
    views = tuple(View(np.array(pose.seen_from(poses[2]).translation_m)) for pose in poses)
    plain = {name: getattr(stack, name) for name in FocalStack.__dataclass_fields__}
    found = MovingStack(**plain, source=stack.images, gains=np.ones(5), views=views, reference=2)
    diopters, doubt = np.full(stack.size, 1.5, np.float32), LensDoubt(0.3, 0.0, 0.0, 0.5)
    velocity, free = velocity_of(found, diopters, doubt)
    _, bound = velocity_of(found, diopters, doubt, 0.05)
    np.testing.assert_allclose(velocity, [0.2, 0.0, 0.0], atol=1e-9)
    assert np.sqrt(free[0, 0]) == pytest.approx(0.2 * 0.2, rel=0.02)  # 0.3 of the blur at 1 of 1.5 dioptres
    assert 0.045 * 0.2 < np.sqrt(bound[0, 0]) < 0.05 * 0.2
    assert (np.linalg.eigvalsh(bound) > 0).all() and bound[1, 1] < free[1, 1]

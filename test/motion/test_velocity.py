"""Velocity of a camera that moves within the sweep, in metres a second, with its covariance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from moving_rig import moving_stack

from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator

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

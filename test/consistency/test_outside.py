"""Scenes outside the range of depths that a stack can tell."""

from __future__ import annotations

import numpy as np

from dfs_ros.consistency.outside import outside_range
from dfs_ros.depth.scene_range import SceneRange

CONFIDENCE = np.ones((10, 10), np.float32)
NOWHERE = np.zeros((10, 10), np.float32)


def test_a_scene_outside_the_search_is_told() -> None:
    near, far = np.full((10, 10), 1, np.float32), np.full((10, 10), -1, np.float32)
    (found,) = outside_range(near, NOWHERE, NOWHERE, CONFIDENCE, SceneRange(0.001, 4.0))
    assert found.text.startswith("100 % of the textured pixels have no depth: their blur fits 0.25 m best, the nearest")
    assert found.cause == "too_near" and not found.contradiction
    assert outside_range(far, NOWHERE, NOWHERE, CONFIDENCE, SceneRange(0.001, 4.0)) == ()  # infinity
    (found,) = outside_range(far, NOWHERE, NOWHERE, CONFIDENCE, SceneRange(0.1, 4.0))
    assert found.cause == "too_far" and "their blur fits 10 m best, the farthest depth searched" in found.text
    near[:, :7] = 0.0
    assert outside_range(near, NOWHERE, NOWHERE, CONFIDENCE, SceneRange(0.001, 4.0)) == ()  # 30 % only


def test_a_scene_far_outside_the_focus_is_told() -> None:
    limits, most = SceneRange(0.001, 4.0), np.full((10, 10), 4.1, np.float32)
    most[:, :4] = 0.0
    (found,) = outside_range(NOWHERE, most, NOWHERE, CONFIDENCE, limits)
    assert found.cause == "too_near" and not found.contradiction
    assert found.text.startswith("60 % of the textured pixels are nearer than the nearest focus, blurred by over 4 px")
    (found,) = outside_range(NOWHERE, -0.65 * most, NOWHERE, CONFIDENCE, limits)
    assert found.cause == "too_far" and "beyond the farthest focus, blurred by over 2.5 px" in found.text
    assert outside_range(NOWHERE, 0.95 * most, NOWHERE, CONFIDENCE, limits) == ()
    assert outside_range(NOWHERE, -0.6 * most, NOWHERE, CONFIDENCE, limits) == ()
    most[:, :5] = 0.0  # half
    assert outside_range(NOWHERE, most, NOWHERE, CONFIDENCE, limits) == ()
    assert outside_range(NOWHERE, most, NOWHERE, 0.0 * CONFIDENCE, limits) == ()


def test_a_scene_beyond_the_focus_that_no_depth_explains_is_told() -> None:
    limits, beyond = SceneRange(0.001, 4.0), np.full((10, 10), -0.3, np.float32)
    beyond[:, :1] = 0.0
    gain = np.full((10, 10), -0.2, np.float32)
    (found,) = outside_range(NOWHERE, beyond, gain, CONFIDENCE, limits)
    assert found.cause == "too_far" and not found.contradiction
    assert found.text.startswith("90 % of the textured pixels are beyond the farthest focus, and no depth explains")
    assert outside_range(NOWHERE, beyond, NOWHERE, CONFIDENCE, limits) == ()
    beyond[:, 1] = 0.0
    assert outside_range(NOWHERE, beyond, gain, CONFIDENCE, limits) == ()

"""Scenes outside the range of depths that a stack can tell."""

from __future__ import annotations

import numpy as np

from dfs_ros.consistency.outside import outside_range
from dfs_ros.depth.scene_range import SceneRange


def test_a_scene_outside_the_search_is_told() -> None:
    confidence = np.ones((10, 10), np.float32)
    near, far = np.full((10, 10), 1, np.float32), np.full((10, 10), -1, np.float32)
    (found,) = outside_range(near, confidence, SceneRange(0.001, 4.0))
    assert found.text.startswith("100 % of the textured pixels have no depth: their blur fits 0.25 m best, the nearest")
    assert found.cause == "too_near" and not found.contradiction
    assert outside_range(far, confidence, SceneRange(0.001, 4.0)) == ()  # infinity
    (found,) = outside_range(far, confidence, SceneRange(0.1, 4.0))
    assert found.cause == "too_far" and "their blur fits 10 m best, the farthest depth searched" in found.text
    near[:, :7] = 0.0
    assert outside_range(near, confidence, SceneRange(0.001, 4.0)) == ()  # 30 % only

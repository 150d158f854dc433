"""Poses: coordinates from one camera to another."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dfs_ros.pose import Pose, stack_poses

HALF = math.sqrt(0.5)


def test_a_point_of_the_camera_lies_at_r_p_plus_t_in_the_reference() -> None:
    quarter_about_z = Pose((0.1, 0.2, 0.3), (0.0, 0.0, HALF, HALF))
    seen = quarter_about_z.rotation @ [1.0, 0.0, 2.0] + quarter_about_z.translation_m
    np.testing.assert_allclose(seen, [0.1, 1.2, 2.3], atol=1e-12)


def test_rotation_is_about_the_axis_by_the_right_hand() -> None:
    angle = 0.3
    about_y = Pose((0.0, 0.0, 0.0), (0.0, math.sin(angle / 2), 0.0, math.cos(angle / 2)))
    expected = [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    np.testing.assert_allclose(about_y.rotation, expected, atol=1e-12)


def test_seen_from_another_camera_points_keep_their_place() -> None:
    rng = np.random.default_rng(3)

    def pose(sigma_m: float) -> Pose:
        q = rng.standard_normal(4)
        x, y, z, w = (float(v) for v in q / np.linalg.norm(q))
        a, b, c = (float(v) for v in rng.standard_normal(3))
        return Pose((a, b, c), (x, y, z, w), sigma_m)

    first, second = pose(0.1), pose(0.2)
    between = first.seen_from(second)
    point = rng.standard_normal(3)
    by_second = second.rotation @ (between.rotation @ point + between.translation_m) + second.translation_m
    np.testing.assert_allclose(by_second, first.rotation @ point + first.translation_m, atol=1e-12)
    assert between.sigma_m == 0.1
    assert first.seen_from(first).translation_m == pytest.approx((0.0, 0.0, 0.0))


def test_poses_of_a_stack_are_none_at_all_if_no_frame_has_one() -> None:
    pose = Pose((0.0, 0.0, 0.0))
    assert stack_poses([None, None]) == ()
    assert stack_poses([None, pose]) == (None, pose)


def test_a_pose_without_translation_is_rotation_alone() -> None:
    alone = Pose(rotation_xyzw=(0.0, 0.0, HALF, HALF))
    assert alone.is_rotation_alone and alone == Pose((math.nan, math.nan, math.nan), (0.0, 0.0, HALF, HALF))
    between = Pose((0.1, 0.0, 0.0)).seen_from(alone)
    assert between.is_rotation_alone and between.rotation_xyzw == pytest.approx((0.0, 0.0, -HALF, HALF))
    with pytest.raises(ValueError, match="expected 3 finite numbers"):
        Pose((0.0, math.nan, 0.0))

"""Depth of a camera that moves within the sweep, with poses right and wrong."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from moving_rig import CAMERA, FOCUS, NEAR_M, SIZE, moving_stack, truth_m

from dfs_ros.alignment.align import align, aligned_as_is
from dfs_ros.alignment.moving import MovingStack
from dfs_ros.alignment.refinement import refined
from dfs_ros.config import Config
from dfs_ros.depth.energies import HostEnergies
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.motion.even import found_by_parallax
from dfs_ros.motion.explanation import Explanation
from dfs_ros.motion.refinement import by_blur, gains_found, gauss_newton
from dfs_ros.motion.views import followed_stack, moving, views_from_poses
from dfs_ros.pose import Pose
from dfs_ros.types import DepthResult, FocalStack

SETTINGS = {
    "network": {"name": "none"},
    "processing": {"threads": 1},
    "lens": {"aperture": "given", "focus_sigma_diopters": 0.0},
}


def estimated(stack: FocalStack, **settings: dict[str, object]) -> DepthResult:
    return DepthEstimator(Config.from_dict({**SETTINGS, **settings})).estimate(stack)


def error_of(result: DepthResult) -> float:
    assert result.dense_depth_m is not None
    away = np.abs(np.arange(SIZE[0]) - SIZE[0] / 2) > 8
    return float(np.mean(np.abs(result.dense_depth_m / truth_m() - 1.0)[away]))


@pytest.mark.parametrize("told", [1.0, 1.05])
def test_poses_make_good_depth_of_a_moving_camera(told: float) -> None:
    stack = moving_stack(0.2, told, sigma_m=0.05 * 0.0133)
    result = estimated(stack)
    found = error_of(result)
    assert found < 0.03
    assert error_of(estimated(stack, motion={"source": "none"})) > 2 * found
    # The image of a still camera shows the same texture, sharp.
    sharp, still = (r.all_in_focus[8:-8, 12:-12, 0].astype(float) for r in (result, estimated(moving_stack(0.0))))
    assert np.corrcoef(sharp.ravel(), still.ravel())[0, 1] > 0.95


def test_little_parallax_leaves_everything_as_without_poses() -> None:
    stack = moving_stack(0.001)
    with_poses, without = estimated(stack), estimated(replace(stack, poses=()))
    np.testing.assert_array_equal(with_poses.depth_m, without.depth_m)
    np.testing.assert_array_equal(with_poses.all_in_focus, without.all_in_focus)


def test_poses_that_contradict_the_images_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    stack = moving_stack(0.2, told=-2.0)
    wrong = estimated(stack)
    assert "poses not used" in caplog.text
    np.testing.assert_array_equal(wrong.depth_m, estimated(replace(stack, poses=())).depth_m)


def test_poses_of_rotation_alone_or_of_some_frames_are_not_enough() -> None:
    stack = moving_stack(0.2)
    aligned = aligned_as_is(stack, 2)
    assert views_from_poses(replace(aligned, stack=replace(stack, poses=(None, *stack.poses[1:]))), 1.0) is None
    assert views_from_poses(replace(aligned, stack=replace(stack, poses=(Pose(),) * 5)), 1.0) is None


@pytest.mark.parametrize(("forward", "used"), [(0.0, True), (-0.4, True), (0.6, False), (-5.0, False)])
def test_poses_that_lead_mostly_forward_are_not_used(forward: float, used: bool) -> None:
    stack = moving_stack(0.2)
    poses = tuple(Pose((x, 0.0, forward * x)) for x, _, _ in (pose.translation_m for pose in stack.poses))
    aligned = align(replace(stack, poses=poses), reference=2)
    assert (views_from_poses(aligned, 1.0) is not None) == used


def test_poses_of_three_frames_are_not_used() -> None:
    whole = moving_stack(0.2)
    stack = FocalStack(
        whole.images[1:4], whole.focus_diopters[1:4], whole.camera, whole.stamp_ns[1:4], poses=whole.poses[1:4]
    )
    np.testing.assert_array_equal(estimated(stack).depth_m, estimated(replace(stack, poses=())).depth_m)


def followed(told: float) -> MovingStack:
    stack = moving_stack(0.2, told)
    aligned = align(stack, reference=2)
    views = views_from_poses(aligned, 1.0)
    assert views is not None
    found = moving(stack, aligned, views, 1.0, "srgb").stack
    assert isinstance(found, MovingStack)
    return found


def test_blur_tells_the_scale_and_registration_the_velocity() -> None:
    stack = followed(told=1.08)
    assert stack.positions_m[4, 0] == pytest.approx(1.08 * 0.2 * 2 / 30)
    by_parallax = (1.0 / truth_m() / 1.08).astype(np.float32)
    config = Config.from_dict(SETTINGS)
    diopters = by_blur(stack, by_parallax, 0.1, config.cost, HostEnergies(1))
    middle = diopters[3 * SIZE[0] // 4, SIZE[1] // 2]
    assert middle * NEAR_M == pytest.approx(1.0, abs=0.02)
    better = gauss_newton(stack, (1.0 / truth_m()).astype(np.float32), "srgb", 0.3)
    assert better.positions_m[4, 0] == pytest.approx(0.2 * 2 / 30, rel=0.02)
    np.testing.assert_allclose([view.log_scale for view in better.views], 0.0, atol=0.002)


def test_breathing_is_found_with_poses_where_parallax_misleads_registration() -> None:
    stack = moving_stack(0.2)
    factor, modelled = 1.4, CAMERA.focal_length_m * (FOCUS - FOCUS[2])
    images = []
    for image, log_scale in zip(stack.images, factor * modelled, strict=True):
        zoom = cv2.getRotationMatrix2D((SIZE[1] / 2 - 0.5, SIZE[0] / 2 - 0.5), 0.0, float(np.exp(log_scale)))
        images.append(cv2.warpAffine(image, zoom, SIZE[::-1], flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT))
    stack = replace(stack, images=np.stack(images), magnification=np.full(5, np.nan))
    aligned, config = align(stack, reference=2), Config.from_dict(SETTINGS)
    views = views_from_poses(aligned, 1.0)
    assert views is not None
    registered = moving(stack, aligned, views, 1.0, "srgb")
    explanation = Explanation(aligned, 1.0 / truth_m(), config, HostEnergies(1))
    found = followed_stack(explanation.with_breathing(registered, explanation.breathing(registered)))
    np.testing.assert_allclose([view.log_scale for view in found.views], factor * modelled, atol=0.001)
    assert abs(views[0].log_scale - factor * modelled[0]) > 0.0015


def found_in(stack: FocalStack, poses: tuple[Pose, ...] = ()) -> MovingStack | None:
    """By a true first depth, with other poses."""
    stack, diopters = replace(stack, poses=poses), (1.0 / truth_m()).astype(np.float32)
    aligned = align(stack, reference=2)
    parallax = refined(stack, aligned, diopters, "srgb")[2]
    found = None if parallax is None else found_by_parallax(stack, aligned, parallax, diopters, "srgb")
    return None if found is None else followed_stack(found)


@pytest.mark.parametrize("speed_m_s", [0.05, 0.2])
def test_an_even_motion_is_found_by_parallax(speed_m_s: float) -> None:
    found = found_in(moving_stack(speed_m_s))
    assert found is not None
    velocity = found.positions_m[4] / (2 / 30)
    assert velocity[0] == pytest.approx(speed_m_s, rel=0.05)
    assert np.abs(velocity[1:]).max() < 0.1 * speed_m_s
    np.testing.assert_allclose([view.log_scale for view in found.views], 0.0, atol=0.002)


def shifted(stack: FocalStack, pixels: tuple[int, ...]) -> FocalStack:
    """As of a camera that turns as well."""
    return replace(stack, images=np.stack([np.roll(i, p, axis=1) for i, p in zip(stack.images, pixels, strict=True)]))


@pytest.mark.parametrize(
    ("speed_m_s", "pixels"),
    [
        (0.0, (0, 0, 0, 0, 0)),
        (0.0, (-6, -3, 0, 3, 6)),
        (0.1, (-6, -3, 0, 3, 6)),
        (0.05, (3, -2, 0, 2, -1)),
        (0.2, (1, 0, 0, 0, 1)),
    ],
    ids=["still", "turns", "moves and turns", "moves unevenly", "slows down"],
)
def test_no_even_motion_is_found_where_there_is_none(speed_m_s: float, pixels: tuple[int, ...]) -> None:
    assert found_in(shifted(moving_stack(speed_m_s), pixels)) is None


def test_the_velocity_of_a_camera_that_turns_as_well_is_found_with_its_rotation() -> None:
    pixels = (-6, -3, 0, 3, 6)
    rotations = tuple(Pose(rotation_xyzw=(0.0, -p / 600, 0.0, 1.0)) for p in pixels)
    found = found_in(shifted(moving_stack(0.1), pixels), rotations)
    assert found is not None and found.poses == ()
    assert found.positions_m[4, 0] / (2 / 30) == pytest.approx(0.1, rel=0.1)
    np.testing.assert_allclose([300 * view.rotation[0, 2] for view in found.views], pixels, atol=0.01)


@pytest.mark.parametrize("speed_m_s", [0.05, 0.12])
def test_images_alone_make_good_depth_of_a_camera_that_moves_evenly(speed_m_s: float) -> None:
    stack = replace(moving_stack(speed_m_s), poses=())
    found = error_of(estimated(stack))
    assert found < 0.03
    if speed_m_s > 0.1:  # slower, aligned depth is hardly worse
        assert error_of(estimated(stack, motion={"source": "none"})) > 2 * found


def test_gains_are_found_with_motion_compensated() -> None:
    stack = followed(told=1.0)
    wrong = replace(stack, gains=np.array([1.08, 1.0, 1.0, 0.93, 1.0]))
    found = gains_found(wrong, (1.0 / truth_m()).astype(np.float32), "srgb")
    np.testing.assert_allclose(found.gains, 1.0, atol=0.005)


def test_what_a_frame_of_a_turning_camera_does_not_see_is_left_out() -> None:
    stack = replace(moving_stack(0.0), poses=())
    turned = shifted(stack, (-12, -6, 0, 6, 12))
    images = turned.images.copy()
    for image, p in zip(images, (-12, -6, 0, 6, 12), strict=True):  # what came in is something else
        image[:, :p] = 60 if p > 0 else image[:, :p]
        image[:, SIZE[1] + p :] = 60 if p < 0 else image[:, SIZE[1] + p :]
    result = estimated(replace(turned, images=images))
    known = np.isfinite(result.depth_m)
    edges, rows = np.r_[7:14, SIZE[1] - 14 : SIZE[1] - 7], np.r_[8:40, 56:88]
    assert known[rows][:, edges].mean() > 0.8
    assert np.nanmedian(np.abs(result.depth_m / truth_m() - 1.0)[rows][:, edges]) < 0.05
    assert result.report["motion"]["velocity_m_s"] == []

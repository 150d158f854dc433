"""Sweeps of one camera that poses align, without a registration, and those that they do not explain."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from moving_rig import SIZE, moving_stack, truth_m

from dfs_ros.alignment.exposure import exposure_gains
from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.motion.prediction import plane_motion, predicted, with_gains_by
from dfs_ros.motion.tracking import MotionTracker
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.optics.srgb import encode_linear, linear_table
from dfs_ros.pose import Pose
from dfs_ros.types import DepthResult, FocalStack

SETTINGS = {
    "network": {"name": "none"},
    "processing": {"threads": 1},
    "lens": {"aperture": "given", "focus_sigma_diopters": 0.0},
}


def error_of(result: DepthResult) -> float:
    assert result.dense_depth_m is not None
    away = np.abs(np.arange(SIZE[0]) - SIZE[0] / 2) > 8
    return float(np.mean(np.abs(result.dense_depth_m / truth_m() - 1.0)[away]))


def sources(result: DepthResult) -> set[str]:
    return {frame.source for frame in result.alignment}


def tracked(told: float = 1.0, sweeps: int = 4) -> DepthEstimator:
    """Estimator that has seen sweeps of one camera, the last of them judged."""
    estimator = DepthEstimator(Config.from_dict(SETTINGS), one_camera=True)
    for _ in range(sweeps):
        estimator.estimate(moving_stack(0.2, told, sigma_m=0.08 * 0.0133))
    return estimator


def knowing() -> MotionTracker:
    """Tracker of a camera that needs no correction."""
    tracker = MotionTracker()
    for _ in range(3):
        tracker.note(0.0)
    tracker.breathing, tracker.misfit = 1.0, 0.0
    tracker.saw((1.0 / truth_m()).astype(np.float32))
    return tracker


def test_the_motion_of_a_plane_is_that_of_the_view() -> None:
    lens, size = Intrinsics(290.0, 310.0, 66.0, 45.0), (96, 128)
    roll, yaw, pitch = 0.01, 0.02, -0.015
    rotation = np.array([[1.0, -roll, yaw], [roll, 1.0, -pitch], [-yaw, pitch, 1.0]])
    view = View(np.array([0.02, -0.01, 0.005]), rotation, log_scale=0.02)
    found, true = plane_motion(view, size, lens, 1.5).maps(size), view.maps(lens, size, 1.5)
    np.testing.assert_allclose(found, true, atol=0.1)
    assert np.abs(np.array(true) - np.array(plane_motion(View(np.zeros(3)), size, lens, 1.5).maps(size))).max() > 10


def test_poses_align_a_sweep_once_the_camera_is_known() -> None:
    stack = moving_stack(0.2)
    found = predicted(stack, Config().alignment, None, knowing(), exposure_gains)
    assert found is not None and isinstance(found.stack, MovingStack)
    assert found.reference == 2 and found.kept == (0, 1, 2, 3, 4)
    np.testing.assert_allclose(found.stack.positions_m[:, 0], 0.2 * (np.arange(5) - 2) / 30, atol=1e-12)
    # The plane of the median inverse depth, between the two planes of the scene.
    typical = float(np.median(1.0 / truth_m()))
    assert found.estimates[4].motion.shift_px[0] == pytest.approx(-300 * 0.2 * 2 / 30 * typical, rel=1e-6)
    assert [e.source for e in found.estimates] == ["poses", "poses", "reference", "poses", "poses"]


def test_exposures_are_those_of_the_images() -> None:
    stack, dimmed = moving_stack(0.2), np.array([0.9, 1.0, 1.0, 1.05, 0.95])
    light = linear_table("srgb")[stack.images] * dimmed[:, None, None]
    found = predicted(
        replace(stack, images=encode_linear(light.astype(np.float32), "srgb")),
        Config().alignment, 2, knowing(), exposure_gains,
    )  # fmt: skip
    assert found is not None and isinstance(found.stack, MovingStack)
    np.testing.assert_allclose(found.stack.gains, 1.0 / dimmed, rtol=0.02)
    coarse = (1.0 / truth_m()[1::2, 1::2]).astype(np.float32)
    better = with_gains_by(found, coarse, "srgb", exposure_gains)
    assert isinstance(better.stack, MovingStack)
    np.testing.assert_allclose(better.stack.gains, 1.0 / dimmed, rtol=0.004)
    assert [e.gain for e in better.estimates] == better.stack.gains.tolist()


def without_one_pose(stack: FocalStack) -> FocalStack:
    return replace(stack, poses=(None, *stack.poses[1:]))


@pytest.mark.parametrize(
    "stack",
    [
        replace(moving_stack(0.2), poses=()),
        without_one_pose(moving_stack(0.2)),
        replace(moving_stack(0.2), poses=(Pose(),) * 5),
        moving_stack(0.001),
        replace(moving_stack(0.2), images=np.r_[moving_stack(0.2).images[:4], np.full((1, *SIZE), 255, np.uint8)]),
    ],
    ids=["no poses", "one pose unknown", "rotation alone", "hardly moves", "over-exposed"],
)
def test_other_sweeps_are_registered(stack: FocalStack) -> None:
    assert predicted(stack, Config().alignment, 2, knowing(), exposure_gains) is None


def test_a_camera_that_is_not_known_is_registered() -> None:
    unknown = knowing()
    unknown.misfit = math.nan
    for tracker in (MotionTracker(), unknown):
        assert predicted(moving_stack(0.2), Config().alignment, 2, tracker, exposure_gains) is None


def test_depth_without_a_registration_is_as_good() -> None:
    estimator = tracked(told=1.08)
    result = estimator.estimate(moving_stack(0.2, 1.08, sigma_m=0.08 * 0.0133))
    assert sources(result) == {"poses", "reference"}
    assert error_of(result) < 0.03
    assert result.report["motion"]["velocity_m_s"][0] == pytest.approx(0.2, rel=0.03)


def test_poses_that_go_wrong_are_found_and_the_sweep_is_registered(caplog: pytest.LogCaptureFixture) -> None:
    estimator, wrong = tracked(), moving_stack(0.2, told=-2.0)
    result = estimator.estimate(wrong)
    assert "poses not used" in caplog.text and sources(result) == {"images", "reference"}
    assert result.report["motion"]["velocity_m_s"] == []
    alone = DepthEstimator(Config.from_dict(SETTINGS)).estimate(replace(wrong, poses=()))
    assert error_of(result) == pytest.approx(error_of(alone), abs=0.01)


def test_an_odometry_that_slips_is_corrected_at_once() -> None:
    estimator = tracked()
    slipped = moving_stack(0.2, told=0.5, sigma_m=0.5 * 0.0133)
    assert estimator.estimate(slipped).report["motion"]["velocity_m_s"][0] == pytest.approx(0.2, rel=0.05)


def test_beside_another_sweep_under_way_poses_align_and_nothing_is_due() -> None:
    tracker = knowing()
    for _ in range(30):
        tracker.skip()
    assert tracker.due and not tracker.predicts
    tracker.hold()
    assert not tracker.due and tracker.predicts


def test_what_is_known_of_a_camera_can_be_sent_to_another_process() -> None:
    there = pickle.loads(pickle.dumps(knowing()))
    assert there.predicts and there.breathing == 1.0
    np.testing.assert_array_equal(there.diopters, knowing().diopters)


def test_a_setting_that_leaves_motion_out_is_followed_at_once() -> None:
    estimator = tracked(sweeps=8)
    assert "poses" in sources(estimator.estimate(moving_stack(0.2, sigma_m=0.08 * 0.0133)))
    estimator.config = estimator.config.updated({"alignment": {"mode": "off"}})
    assert "poses" not in sources(estimator.estimate(moving_stack(0.2, sigma_m=0.08 * 0.0133)))

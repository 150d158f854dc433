"""Scale of stated motion, kept over the sweeps of one camera."""

from __future__ import annotations

import math

import numpy as np
import pytest
from moving_rig import SIZE, moving_stack, truth_m

from dfs_ros.alignment.moving import View
from dfs_ros.config import Config
from dfs_ros.estimator.camera_state import CameraState
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.motion.tracking import MotionTracker

VIEWS = (View(np.zeros(3)), View(np.array([0.02, -0.01, 0.004]), log_scale=0.01))


def scale_of(tracker: MotionTracker) -> float:
    return float(tracker.scaled(VIEWS)[1].position_m[0] / 0.02)


def corrected_of(tracker: MotionTracker, sweeps: int, correction: float) -> list[int]:
    """Sweeps that are corrected, by as much each."""
    corrected = []
    for sweep in range(sweeps):
        if tracker.due:
            corrected.append(sweep)
            tracker.note(correction)
        else:
            tracker.skip()
    return corrected


def test_the_first_sweeps_are_corrected_then_ever_fewer_while_corrections_are_small() -> None:
    assert corrected_of(MotionTracker(), 60, 0.02) == [0, 1, 2, 7, 17, 37, 57]
    assert corrected_of(MotionTracker(), 20, -0.05) == [0, 1, 2, 7, 12, 17]


def test_a_larger_correction_makes_corrections_frequent_again() -> None:
    tracker = MotionTracker()
    corrected_of(tracker, 37, 0.0)
    assert tracker.due
    tracker.note(0.05)
    assert corrected_of(tracker, 12, 0.0) == [4]
    tracker = MotionTracker()
    corrected_of(tracker, 10, 0.0)
    tracker.forget()
    assert tracker.due and not tracker.predicts


def test_a_correction_need_not_be_waited_for_once_the_scale_is_known() -> None:
    state = CameraState()
    long = []
    for _ in range(8):
        long.append(state.takes_long)
        corrected_of(state.motion, 1, 0.0)
    assert long == [False] * 7 + [True]
    corrected_of(state.motion, 9, 0.0)
    assert state.takes_long
    state.hold()
    assert not state.takes_long


def test_beside_another_sweep_only_a_settled_motion_needs_no_correction() -> None:
    for corrected, due in ((0, True), (2, True), (3, False), (20, False)):
        tracker = MotionTracker()
        corrected_of(tracker, corrected, 0.0)
        tracker.hold()
        assert tracker.due == due


def test_the_scale_is_the_mean_of_those_found() -> None:
    tracker = MotionTracker()
    for total in (0.06, 0.03, 0.045):
        tracker.note(total - math.log(scale_of(tracker)))
    assert math.log(scale_of(tracker)) == pytest.approx(0.045)
    moved = tracker.scaled(VIEWS)[1]
    np.testing.assert_allclose(moved.position_m, math.exp(0.045) * VIEWS[1].position_m)
    assert (moved.log_scale, moved.radial) == (0.01, 0.0)


def test_breathing_is_the_mean_of_corrected_views() -> None:
    tracker = MotionTracker()
    modelled = [-0.01, 0.0, 0.02]
    for factor, radial in ((1.2, 0.02), (1.6, 0.04)):
        views = [View(np.zeros(3), log_scale=factor * m, radial=radial * m) for m in modelled]
        tracker.note_lens(modelled, views)
    assert tracker.breathing == pytest.approx(1.4) and tracker.radial == pytest.approx(0.03)
    still = MotionTracker()
    still.note_lens([0.0, 0.0], VIEWS)
    assert (still.breathing, still.radial) == (1.0, 0.0)


def test_another_scale_is_found_anew() -> None:
    tracker = MotionTracker()
    for _ in range(6):
        tracker.note(0.0)
    tracker.note(-0.3)
    assert scale_of(tracker) == pytest.approx(math.exp(-0.3)) and tracker.due


def test_a_sweep_that_is_not_corrected_has_the_scale_of_those_before() -> None:
    settings = {
        "network": {"name": "none"},
        "processing": {"threads": 1},
        "lens": {"aperture": "given", "focus_sigma_diopters": 0.0},
    }
    estimator = DepthEstimator(Config.from_dict(settings), one_camera=True)
    stack = moving_stack(0.2, told=1.08, sigma_m=0.08 * 0.0133)
    away = np.abs(np.arange(SIZE[0]) - SIZE[0] / 2) > 8
    for sweep in range(5):
        result = estimator.estimate(stack)
        assert result.dense_depth_m is not None
        assert result.report["motion"]["velocity_m_s"][0] == pytest.approx(0.2, rel=0.03), sweep
        assert np.mean(np.abs(result.dense_depth_m / truth_m() - 1.0)[away]) < 0.03, sweep

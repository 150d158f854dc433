"""Conditions of a camera in use and faults: what is true, what is told, and how the estimator is scored on them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from dfs_research.evaluation.faults import FAULTS
from dfs_research.evaluation.in_use import HONEST, UsedStack
from dfs_research.evaluation.rendered import RgbdScene
from dfs_research.evaluation.shots import Shot
from dfs_research.evaluation.use_run import UseScore, conditions_of, run_in_use, spread, summary
from dfs_research.evaluation.use_scores import scored, sure_and_wrong
from dfs_research.evaluation.use_table import DENSE_COLUMNS, USED_COLUMNS, tables
from dfs_ros.cli.main import main
from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.io.strict_json import json_text
from dfs_ros.simulation.scenes import random_scene

CONFIG = Config.from_dict({"network": {"name": "none"}, "hypotheses": {"count": 16}})
STANDS = dict.fromkeys(("sideways_error", "sideways_pull", "forward_error", "forward_pull"), math.nan)


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> Shot:
    made = random_scene(4, 128, 96, near_m=0.5, far_m=2.0)
    scene = RgbdScene("scene", made.rgb, np.asarray(made.depth_m, np.float32), {})
    return Shot(scene, "C", tmp_path_factory.mktemp("cache"))


def taken(shot: Shot, name: str) -> UsedStack:
    return {**HONEST, **FAULTS}[name].taken(shot)


def test_every_condition_gives_a_stack_with_its_truth(shot: Shot) -> None:
    for name in (*HONEST, *FAULTS):
        used = taken(shot, name)
        assert used.condition == name and used.reference == 2
        assert used.stack.images.shape == (5, 48, 64, 3) and used.depth_m.shape == (48, 64)
        np.testing.assert_array_equal(taken(shot, name).stack.images, used.stack.images)
    assert len(list(shot.cache.glob("light_*"))) == 20  # with lens, three planes, four parts, five of a hand


def test_the_lens_is_told_with_its_error_and_is_the_same_under_every_condition(shot: Shot) -> None:
    lens, true = shot.lens(), shot.setup.camera
    assert 0.8 <= lens.breathing <= 2 and 0.35 <= lens.softness_px <= 0.65 and lens.f_number_told != 1
    for name in ("lens", "shake", "drive", "fast", "nominal", "jpeg"):
        used = taken(shot, name)
        assert used.stack.camera.f_number == pytest.approx(true.f_number * lens.f_number_told)
        np.testing.assert_array_equal(used.stack.focus_diopters, shot.focus_diopters)
        assert np.isnan(used.stack.magnification).all()
    ideal = taken(shot, "ideal")
    assert ideal.stack.camera == true and ideal.f_number_told == 1


def test_f_numbers_are_told_with_ten_percent_error(tmp_path: Path) -> None:
    nothing = np.ones((2, 2, 3), np.uint8), np.ones((2, 2), np.float32)
    drawn = [Shot(RgbdScene(f"{i}", *nothing, {}), "B", tmp_path).lens().f_number_told for i in range(400)]
    assert np.mean(np.log(drawn)) == pytest.approx(0.0, abs=0.015)
    assert np.std(np.log(drawn)) == pytest.approx(0.095, abs=0.01)  # cut at two standard deviations


def test_the_camera_moves_at_its_speed(shot: Shot) -> None:
    drive, fast = taken(shot, "drive"), taken(shot, "fast")
    steps = np.diff(drive.position_m, axis=0)
    np.testing.assert_allclose(np.abs(steps[:, 0]), 0.05 / 30)
    np.testing.assert_allclose(steps[:, 2], 0.05 / 30)
    np.testing.assert_allclose(np.abs(np.diff(fast.position_m[:, 0])), 0.2 / 30)
    np.testing.assert_array_equal(fast.position_m[fast.reference], 0.0)
    assert not taken(shot, "lens").position_m.any() and not taken(shot, "shake").position_m.any()
    np.testing.assert_allclose(np.abs(drive.velocity_m_s), (0.05, 0.0, 0.05))
    assert np.sign(drive.velocity_m_s[0]) == np.sign(drive.position_m[-1, 0])


def test_stated_aberrations_are_those_of_the_lens_in_the_same_images(shot) -> None:
    for name in ("lens", "drive"):
        untold, told = (HONEST[each].taken(shot).stack for each in (name, f"{name}_aberration"))
        np.testing.assert_array_equal(told.images, untold.images)
        assert told.camera == dataclasses.replace(untold.camera, aberration=shot.lens().pupil.aberration)
        assert untold.camera.aberration == 0.0


def test_odometry_is_told_with_its_error_and_the_images_are_the_same(shot: Shot) -> None:
    fast, told = HONEST["fast"].taken(shot), HONEST["fast_odometry"].taken(shot)
    np.testing.assert_array_equal(told.stack.images, fast.stack.images)
    poses = [pose for pose in told.stack.poses if pose is not None]
    ratio = poses[-1].translation_m[0] / fast.position_m[-1, 0]
    assert abs(ratio - 1.0) == pytest.approx(0.05) and fast.stack.poses == ()
    assert poses[-1].sigma_m == pytest.approx(0.05 * abs(fast.position_m[-1, 0]) * ratio)
    exact = HONEST["fast_poses"].taken(shot).stack.poses[-1]
    assert exact is not None and exact.translation_m == pytest.approx(tuple(fast.position_m[-1]))


def test_a_turning_camera_states_its_rotation_with_its_error(shot: Shot) -> None:
    turn, told, both = (taken(shot, name) for name in ("turn", "turn_imu", "swerve_odometry"))
    np.testing.assert_array_equal(told.stack.images, turn.stack.images)
    assert not turn.position_m.any() and turn.stack.poses == ()
    first, middle = told.stack.poses[0], told.stack.poses[2]
    assert first is not None and middle is not None and first.is_rotation_alone
    angle_rad = math.asin(abs(first.rotation[0, 2]))
    assert abs(angle_rad / (0.2 * 2 / 30) - 1.0) == pytest.approx(0.02, abs=1e-4)
    assert first.sigma_rad == pytest.approx(0.02 * angle_rad) and middle.rotation_xyzw == (0.0, 0.0, 0.0, 1.0)
    assert both.stack.poses[0] is not None and both.stack.poses[0].rotation_xyzw == first.rotation_xyzw
    assert both.stack.poses[0].sigma_m == pytest.approx(0.05 * abs(both.stack.poses[0].translation_m[0]))


def test_a_hand_before_the_scene_is_where_its_depth_is(shot: Shot) -> None:
    hand = taken(shot, "hand")
    nearer = hand.depth_m < shot.depth_m - 1e-3
    assert 0.08 < nearer.mean() <= 0.11 and np.ptp(hand.depth_m[nearer]) == 0
    assert hand.depth_m[nearer].max() < np.nanmin(hand.depth_m[~nearer])
    changed = np.abs(hand.stack.images.astype(int) - taken(shot, "lens").stack.images).mean(axis=-1) > 30
    still = changed[:, nearer].mean(axis=1)
    assert still[2] > 0.9 and np.delete(still, 2).max() < 0.5


def test_a_hand_moves_every_image_but_the_reference(shot: Shot) -> None:
    views = HONEST["shake"].views(shot, shot.lens(), shot.focus_diopters)
    for i, view in enumerate(views):
        assert (view.shift_px == (0.0, 0.0) and view.roll_rad == 0.0) == (i == shot.reference)
    assert all(view.shift_px == (0.0, 0.0) for view in HONEST["lens"].views(shot, shot.lens(), shot.focus_diopters))


def test_breathing_is_a_thin_lens_to_a_power(shot: Shot) -> None:
    scale = shot.breathing_scale(np.array([2.5, 1.6, 1.0, 0.5, 0.2]), 1.5)
    f = shot.setup.camera.focal_length_m
    np.testing.assert_allclose(scale[[0, 2]], [((1 - f * 1.0) / (1 - f * 2.5)) ** 1.5, 1.0])
    assert scale[0] > 1 > scale[4]


def test_nominal_focus_is_off_by_gain_and_offset_within_its_doubt(shot: Shot) -> None:
    used = taken(shot, "nominal")
    told, true = used.stack.focus_diopters, used.true_focus_diopters
    gain, offset = np.polyfit(told, true, 1)
    assert 0 < abs(gain - 1) <= 0.1 and 0 < abs(offset) <= 0.2
    np.testing.assert_allclose(true, gain * told + offset, atol=1e-12)
    np.testing.assert_allclose(used.focus_sigma_diopters, np.hypot(0.05 * told, 0.1))
    assert not taken(shot, "lens").focus_sigma_diopters.any()


def test_noise_is_of_photons_and_reading(shot: Shot) -> None:
    light = np.full((1, 200, 200, 3), 0.25, np.float32)
    values = shot.developed(light, [1.0], "test").astype(np.float64) / 255
    slope = 1.055 / 2.4 * 0.25 ** (1 / 2.4 - 1)
    expected = math.hypot(slope * math.sqrt(0.25 / 15000 + (5 / 15000) ** 2), 1 / 255 / math.sqrt(12))
    assert values.std() == pytest.approx(expected, rel=0.03)
    assert values.mean() == pytest.approx(1.055 * 0.25 ** (1 / 2.4) - 0.055, abs=0.001)
    brighter = shot.developed(light, [1.05], "test").mean() / 255
    assert brighter == pytest.approx(1.055 * 0.2625 ** (1 / 2.4) - 0.055, abs=0.001)


def test_faults_are_what_they_say(shot: Shot) -> None:
    lens = taken(shot, "lens")
    focus, images = lens.stack.focus_diopters, lens.stack.images.astype(float)

    def told(name: str) -> np.ndarray:
        return taken(shot, name).stack.focus_diopters

    np.testing.assert_array_equal(told("reversed"), focus[::-1])
    np.testing.assert_array_equal(told("metres"), 1 / focus)
    np.testing.assert_array_equal(told("millimetres"), focus / 1000)
    np.testing.assert_allclose(told("offset_0.3"), focus + 0.3)
    np.testing.assert_allclose(told("gain_0.8"), focus * 0.8)
    assert sorted(np.abs(told("swapped") - focus) > 0) == [False] * 3 + [True] * 2
    assert sorted(told("shuffled")) == sorted(focus)
    for name, factor in (("f_number_over", 2.8), ("f_number_under", 1 / 2.8)):
        assert taken(shot, name).stack.camera.f_number == pytest.approx(lens.stack.camera.f_number * factor)

    def difference(a: np.ndarray, b: np.ndarray) -> float:  # but for exposure
        return float(np.sqrt(np.mean((a / a.mean() - b / b.mean()) ** 2)))

    late, stuck = (taken(shot, name).stack.images.astype(float) for name in ("late", "stuck"))
    for i, shown in enumerate((0, 0, 1, 2, 3)):
        others = [difference(late[i], image) for image in images]
        assert int(np.argmin(others)) == shown
    assert 0 < difference(stuck[0], stuck[4]) < 0.3 * difference(images[0], images[4])
    repeated = taken(shot, "repeated").stack.images
    assert sum(np.array_equal(a, b) for a, b in itertools.pairwise(repeated)) == 1
    assert np.ptp(taken(shot, "flat").stack.images.astype(int)) < 30
    for name, depth_m in (("near_plane", 0.22), ("over_max_coc", 0.12), ("far_plane", 15.0)):
        np.testing.assert_allclose(taken(shot, name).depth_m, depth_m)
    for name, depth_m, width in (("near_half_weak", 0.22, 32), ("near_strip", 0.15, 13)):
        part = taken(shot, name).depth_m
        np.testing.assert_allclose(part[:, :width], depth_m)
        np.testing.assert_array_equal(part[:, width:], shot.depth_m[:, width:])
    for name in ("gain_1.2", "gain_0.8", "offset_0.3"):
        assert np.isnan(taken(shot, name).stack.focus_sigma_diopters).all()
    assert not taken(shot, "reversed").stack.focus_sigma_diopters.any()
    np.testing.assert_allclose(taken(shot, "offset_nominal").focus_sigma_diopters[0], math.hypot(0.05 * 2.6, 0.1))


def test_sure_and_wrong_counts_pixels_off_by_ten_percent_and_three_sigma() -> None:
    truth = np.array([[1.0, 1.0, 1.0, 1.0, np.nan, 1.0]], np.float32)
    depth = np.array([[1.2, 1.2, 1.05, np.nan, 9.0, 0.5]], np.float32)
    sigma = np.array([[0.01, 0.1, 0.001, np.nan, 0.01, 0.1]], np.float32)
    assert sure_and_wrong(depth, sigma, truth) == pytest.approx(2 / 5)


def test_scores_are_those_of_the_default_pipeline_dense_and_masked(shot: Shot) -> None:
    used = taken(shot, "lens")
    values = scored(DepthEstimator(CONFIG), used)
    plain = DepthEstimator(CONFIG).estimate(used.stack, reference=2, sharpen=False)
    dense_config = CONFIG.updated({"confidence": {"dense": True}})
    dense = DepthEstimator(dense_config).estimate(used.stack, reference=2, sharpen=False)
    for prefix, result in (("", plain), ("dense_", dense)):
        error = np.abs(result.depth_m - used.depth_m)
        assert values[f"{prefix}abs_rel"] == pytest.approx(np.nanmean(error / used.depth_m), rel=1e-5)
        counted = np.isfinite(error)
        within = np.mean(error[counted] <= 2 * result.sigma_m[counted])
        assert values[f"{prefix}within_2"] == pytest.approx(within, abs=1e-6)
    assert plain.coverage < values["dense_coverage"] == 1.0
    np.testing.assert_array_equal(plain.dense_depth_m, dense.depth_m)
    refused = scored(DepthEstimator(CONFIG.updated({"alignment": {"min_correlation": 1.0}})), used)
    assert refused["coverage"] == 0.0 and refused["sure_and_wrong"] == 0.0
    assert "same scene" in str(refused["refused"])


def test_scores_of_a_velocity_are_its_error_and_pull(shot: Shot) -> None:
    used = taken(shot, "fast_odometry")
    values = scored(DepthEstimator(CONFIG), used)
    motion = DepthEstimator(CONFIG).estimate(used.stack, reference=2, sharpen=False).report["motion"]
    off_m_s = motion["velocity_m_s"][0] - used.velocity_m_s[0]
    assert values["sideways_error"] == pytest.approx(abs(off_m_s) / 0.2) and abs(off_m_s) < 0.01
    assert values["sideways_pull"] == pytest.approx(off_m_s / math.sqrt(motion["covariance_m2_s2"][0]))
    assert math.isnan(float(values["forward_error"])) and math.isnan(float(values["forward_pull"]))  # does not move so


def test_a_run_goes_on_where_it_was(shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conditions = conditions_of("lens,stuck")
    first = run_in_use([shot], conditions, CONFIG, cache=tmp_path / "scores")
    assert [s.condition for s in first] == ["lens", "stuck"]
    monkeypatch.setattr(DepthEstimator, "__init__", None)  # nothing is estimated again
    again = run_in_use([shot], conditions, CONFIG, cache=tmp_path / "scores")
    assert json_text([s.values for s in again]) == json_text([s.values for s in first])  # NaN equals NaN
    with pytest.raises(TypeError):
        run_in_use([shot], conditions, CONFIG.updated({"hypotheses": {"count": 17}}), cache=tmp_path / "scores")


def test_summary_compares_with_ideal_and_spares_the_warned() -> None:
    def of(condition: str, scene: str, abs_rel: float, wrong: float, warnings: list[str]) -> UseScore:
        values = {"dense_abs_rel": abs_rel, "sure_and_wrong": wrong, "coverage": 1.0, "refused": "", **STANDS}
        return UseScore(condition, "B", scene, {**values, "warnings": warnings})

    rows = summary(
        [
            of("ideal", "a", 0.04, 0.0, []),
            of("ideal", "b", 0.06, 0.0, []),
            of("lens", "a", 0.06, 0.5, ["the lens does not move"]),
            of("lens", "b", 0.09, 0.2, []),
        ]
    )
    assert rows[1]["ratio"] == pytest.approx(1.5)
    assert rows[1]["unwarned"] == pytest.approx(0.1) and rows[1]["sure_and_wrong"] == pytest.approx(0.35)
    assert rows[1]["unwarned_worst"] == 0.2 and rows[1]["warned"] == 1 and rows[0]["warned"] == 0


def test_summary_of_velocities_is_of_the_stacks_that_tell_one() -> None:
    def of(scene: str, error: float, pull: float) -> UseScore:
        values = {"dense_abs_rel": 0.05, "sure_and_wrong": 0.0, "coverage": 1.0, "refused": "", **STANDS}
        told = {"sideways_error": error, "sideways_pull": pull}
        return UseScore("fast", "B", scene, {**values, **told, "warnings": []})

    (row,) = summary([of("a", 0.01, 1.0), of("b", 0.04, -2.0), of("c", 0.3, 2.0), of("d", math.nan, math.nan)])
    assert (row["sideways_told"], row["sideways_error"], row["sideways_pull"]) == (3, 0.04, math.sqrt(3.0))
    assert row["forward_told"] == 0 and math.isnan(row["forward_error"]) and math.isnan(row["forward_pull"])
    others = dict.fromkeys([*DENSE_COLUMNS, *USED_COLUMNS], math.nan)
    assert tables([{**others, **row}]).splitlines()[-1] == "| fast | 4 | 3 | 0.0400 | 1.732 | 0 | - | - |"


def test_names_and_groups_of_conditions() -> None:
    assert [c.name for c in conditions_of("stuck, honest,lens")] == ["stuck", *list(HONEST)[:6]]
    assert (
        len(conditions_of("all"))
        == len(HONEST) + len(FAULTS)
        == len(conditions_of("faults,honest,jpeg,moving,turning,aberration"))
    )
    with pytest.raises(ValueError, match="unknown 'slow'; known: ideal, lens"):
        conditions_of("lens,slow")
    assert spread(list("abcdefg"), 3) == ["a", "d", "g"]  # type: ignore[arg-type,comparison-overlap]


def test_command_prints_and_writes_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ["eval", "--procedural", "2", "--cameras", "B", "--width", "96", "--stacks", "1", "--network", "none"]
    arguments += ["--conditions", "ideal,lens,f_number_over", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "conditions.json").read_text())
    assert [row["condition"] for row in report["table"]] == ["ideal", "lens", "f_number_over"]
    assert [s["scene"] for s in report["scores"]] == ["procedural_0"] * 3
    assert report["table"][0]["ratio"] == 1.0
    document = (tmp_path / "out" / "conditions.md").read_text()
    assert tables(report["table"]) in document and tables(report["table"]) in printed
    assert "- `f_number_over`: f-number told 2.8 times too large" in document
    for change, message in ((["--stacks", "0"], "--stacks"), (["--conditions", "x"], "unknown 'x'")):
        assert main([*arguments, *change]) == 2
        assert message in capsys.readouterr().err
    assert main(["eval"]) == 2
    assert "--conditions NAMES" in capsys.readouterr().err

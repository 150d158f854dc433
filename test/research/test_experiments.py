"""The experiments: the same computations as their commands, on one small scene."""

import dataclasses
from functools import partial

import cv2
import numpy as np
import pytest

from benchmarks.speed import SpeedCase
from dfs_research.evaluation.protocol import FARTHEST_M, NEAREST_M
from dfs_research.evaluation.rendered import EVALUATION_CAMERAS, evaluation_stacks, procedural_stacks
from dfs_research.experiments import ablation, constraints, invariance, learned, speed
from dfs_research.experiments import settings as defined
from dfs_research.experiments.training import trained
from dfs_research.training.settings import PRESETS
from dfs_ros.cli.main import main
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.optics.thin_lens import coc_px


@pytest.fixture(autouse=True)
def cached(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def silent(what):
    pass


def test_scaled_camera_makes_the_same_blur_of_a_scaled_scene():
    paper = next(case for case in defined.INVARIANCE if case.name == "paper")
    scaled = paper.tests[2].setup
    own = EVALUATION_CAMERAS["A"]
    assert 1 / np.array(scaled.focus_diopters) == pytest.approx([0.6, 1.2, 2.4])
    diopters = np.array([0.2, 0.5, 1.0])
    for focus, focus_scaled in zip(own.focus_diopters, scaled.focus_diopters, strict=True):
        expected = coc_px(diopters, focus, own.camera)
        assert coc_px(diopters / 0.3, focus_scaled, scaled.camera) == pytest.approx(expected)


def test_every_case_is_tested_first_with_the_camera_it_is_trained_for():
    for case in defined.INVARIANCE:
        assert len({test.name for test in case.tests}) == len(case.tests) >= 3
        for settings in case.training.values():
            assert tuple(1 / d for d in settings.focus_distances_m) == case.tests[0].setup.focus_diopters
    changed = [
        {f.name for f in dataclasses.fields(s) if getattr(s, f.name) != getattr(defined.CONSTRAINTS["neither"], f.name)}
        for s in defined.CONSTRAINTS.values()
    ]
    assert changed == [set(), {"seed"}, {"focal_weight"}, {"spatial_weight"}], "one thing at a time"


def test_invariance_scales_scenes_and_reports_growth(photos, tmp_path):
    tests = tuple(dataclasses.replace(test, median_depth_m=0.5) for test in defined.INVARIANCE[0].tests[:2])
    case = dataclasses.replace(defined.INVARIANCE[0], tests=tests)
    stacks_of = partial(invariance.test_stacks, photos, width=48)
    (stack,) = stacks_of(tests[0])
    assert float(np.nanmedian(stack.depth_m)) == pytest.approx(0.5, rel=0.02)
    table = invariance.measure(case, {"none": "none"}, stacks_of, tmp_path, silent)
    assert set(table["none"]) == {test.name for test in tests}
    text = invariance.markdown(case, {"x": {tests[0].name: 0.1, tests[1].name: 0.35}})
    assert text.splitlines()[-1] == "| x | 0.100 | 0.350, 3.50 x |"


def test_a_training_is_made_once(photos, tmp_path, monkeypatch, coarsely_rendered):
    settings = dataclasses.replace(PRESETS["smoke"], network="direct", camera="B", steps=2, stacks=1)
    said = []
    file = trained("tiny", settings, photos, tmp_path, 1, said.append)
    assert file.is_file() and not list(tmp_path.glob("*.checkpoint"))
    assert trained("tiny", settings, photos, tmp_path, 1, said.append) == file
    assert "weights found" in said[-1]
    other = dataclasses.replace(settings, steps=3)
    monkeypatch.setattr(
        "dfs_research.experiments.training.Trainer", lambda *a, **k: pytest.fail("as expected: it trains")
    )
    with pytest.raises(pytest.fail.Exception, match="as expected"):
        trained("tiny", other, photos, tmp_path, 1, silent)


def test_steps_keep_the_order_of_costs_that_a_raw_argmin_sees(photos):
    (stack,) = evaluation_stacks(photos, ["B"], 64)
    depths_m = depth_hypotheses(NEAREST_M, FARTHEST_M, 16)
    misfit = ablation.misfits(stack, depths_m, CostConfig(method="residual"))
    for step in ablation.STEPS:
        energy = step.energy(misfit, float(misfit.max()))
        assert energy.shape == misfit.shape and np.isfinite(energy).all()
        chosen = np.take_along_axis(energy, misfit.argmin(axis=0)[None], axis=0)[0]
        np.testing.assert_allclose(chosen, energy.min(axis=0), atol=1e-6)
    bounded = next(step for step in ablation.STEPS if step.name == "outlier bound")
    assert bounded.energy(np.full((1, 1, 1), 0.3), 0.3) == pytest.approx(0.999, abs=1e-6)


def test_more_hypotheses_are_finer(photos):
    stacks = list(procedural_stacks(1, ["B"], 64))
    errors = ablation.hypotheses_errors(stacks, silent)
    ours = errors["residual, regularised"]
    assert set(ours) == set(ablation.HYPOTHESES) and ours[64] < ours[8]
    table = ablation.hypotheses_table(errors).splitlines()
    assert f"{ours[128]:.4f}" in next(line for line in table if line.startswith("| residual, regularised"))


def test_networks_of_a_few_hypotheses_gain_by_the_costs_in_between():
    errors = ablation.network_errors(list(procedural_stacks(3, ["B"], 96)), silent)
    with_them, without = errors["light"], errors["light, nothing in between"]
    assert with_them[8] < 0.8 * without[8]
    assert with_them[16] < 0.8 * without[16]  # doubled to 31, as 16 lie over 2 px of blur apart
    assert with_them[32] < 0.8 * without[32]
    assert with_them[64] < 1.01 * without[64]  # of 22 where these lie at most 1.2 px apart: for a third of the volumes


def test_a_network_is_trained_on_another_volume_and_judged_with_it(photos, tmp_path, coarsely_rendered):
    settings = dataclasses.replace(PRESETS["smoke"], camera="B", steps=2, stacks=1)
    stacks, errors = list(evaluation_stacks(photos, ["B"], 64)), {}
    assert [step.volume for step in learned.VARIANTS].count("paper") == 2
    for number, step in enumerate(learned.VARIANTS[::3]):
        file = trained(f"tiny_{number}", settings, photos, tmp_path, 1, silent, learned.energies_of(step))
        errors[step] = learned.error(file, step, stacks, silent)
    # Hardly trained, the network's answer is the minimum of what it is given: another volume, another error.
    assert 0.0 < errors[learned.VARIANTS[0]] < errors[learned.VARIANTS[3]] < 2.0
    text = learned.markdown(errors, 0.5)
    ours, other_seed, paper = text.splitlines()[2:]
    assert ours.endswith("| +0.0 % |") and "another seed | 0.5000 |" in other_seed and paper.startswith("| paper |")


def test_verdict_needs_more_than_chance():
    assert constraints.verdict(-0.004, 0.003) == "helps"
    assert constraints.verdict(0.004, 0.003) == "makes it worse"
    assert constraints.verdict(-0.002, 0.003).startswith("no difference")
    row = dict.fromkeys(constraints.COLUMNS, 0.5)
    table = {"neither": row, "again": row | {"abs_rel": 0.51}, "focal": row | {"abs_rel": 0.4}}
    text = constraints.markdown(table, "neither", "again")
    assert "focal: helps." in text and "-20.0 %" in text and "again:" not in text


def test_command_writes_a_table_and_refuses_to_test_on_what_it_trains_on(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ablation, "HYPOTHESES", (8, 16))
    monkeypatch.setattr(ablation.protocol, "HYPOTHESES", 8)
    base = ["--rgbd", str(photos), "--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    assert main(["experiment", "ablation", *base, "--every", "2", "--width", "48"]) == 0
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert "| light, nothing in between |" in text
    assert "| residual | logarithm (ours) |" in text and "D = 16" in text and "commit: " in text
    assert cv2.imread(str(tmp_path / "out" / "ablation.png")).std() > 5
    capsys.readouterr()
    assert main(["experiment", "constraints", *base, "--train-rgbd", str(photos)]) == 2
    assert "room are tested on too" in capsys.readouterr().err
    assert main(["experiment", "constraints", *base]) == 2
    assert "--train-rgbd" in capsys.readouterr().err
    assert main(["experiment", "nonesuch", *base]) == 2
    assert main(["experiment", "ablation", *base[2:]]) == 2
    assert "--rgbd" in capsys.readouterr().err


def test_speed_is_told_by_step_and_as_a_ratio():
    said = []
    times = speed.measure(SpeedCase("residual", height=64, width=64, images=3, hypotheses=8), 1, said.append, width=0.1)
    assert len(said) == 2 and times.ddfs_parameters < 1e6
    assert all(times.light[step] > 0 for step in speed.NETWORK_STEPS)
    assert times.ddfs_s == pytest.approx(times.ddfs_volume + times.ddfs_network)
    text = speed.markdown(
        speed.Times({"align": 0.0, "aperture": 0.1} | dict.fromkeys(speed.NETWORK_STEPS, 0.1), 1, 2, 7)
    )
    assert "10.0 times as fast" in text and "**0.300**" in text and "**3.000**" in text

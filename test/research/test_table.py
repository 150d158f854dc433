"""The table of `dfs eval`: what is counted, how it is averaged, and the command."""

import json
import math

import numpy as np
import pytest

from dfs_research.evaluation.methods import Prediction, make_method
from dfs_research.evaluation.predictions import PredictionFolder, predict
from dfs_research.evaluation.rendered import EVALUATION_CAMERAS, RenderedStack, evaluation_stacks
from dfs_research.evaluation.table import Score, markdown, score, score_files, summary
from dfs_ros.cli.main import main
from dfs_ros.config import Config
from dfs_ros.types import FocalStack


def rendered(depth_m, camera="B"):
    setup = EVALUATION_CAMERAS[camera]
    images = np.zeros((len(setup.focus_diopters), *depth_m.shape, 3), np.uint8)
    stack = FocalStack(images, np.array(setup.focus_diopters), setup.camera)
    return RenderedStack("scene", camera, stack, depth_m, images[0])


def test_score_of_a_known_error():
    truth = np.full((20, 20), 2.0, np.float32)
    truth[:2] = np.nan
    predicted = np.where(np.arange(20) < 16, 2.1, 2.6).astype(np.float32) * np.ones((20, 1), np.float32)
    sigma = np.where(np.arange(20) < 16, 0.2, 0.5).astype(np.float32) * np.ones((20, 1), np.float32)
    values = score(Prediction(predicted, sigma), rendered(truth), 0.25)
    assert values["abs_rel"] == pytest.approx(0.8 * 0.05 + 0.2 * 0.3, rel=1e-4)
    assert values["within_sigma"] == pytest.approx(0.8) and values["coverage"] == 1.0 and values["seconds"] == 0.25
    assert values["rmse_surest"] == pytest.approx(0.1, rel=1e-4), "the sixteen of twenty that are surest"
    without = score(Prediction(predicted), rendered(truth), 0.0)
    assert math.isnan(without["within_sigma"]) and math.isnan(without["rmse_surest"])


def test_summary_is_the_mean_over_stacks_of_each_camera_and_of_all():
    def one(method, camera, error):
        return Score(method, camera, "s", {"abs_rel": error, "within_sigma": math.nan})

    scores = [one("a", "A", 0.1), one("a", "B", 0.2), one("a", "B", 0.4), one("b", "B", 1.0)]
    rows = summary(scores)
    assert [(r["camera"], r["method"], r["stacks"]) for r in rows] == [
        ("A", "a", 1),
        ("B", "a", 2),
        ("B", "b", 1),
        ("all", "a", 3),
        ("all", "b", 1),
    ]
    assert rows[1]["abs_rel"] == pytest.approx(0.3) and rows[3]["abs_rel"] == pytest.approx(0.7 / 3)
    assert math.isnan(rows[0]["within_sigma"])
    assert len(summary([scores[0]])) == 1, "one camera needs no row for all"


def test_methods_see_depth_in_a_rendered_scene(photos, tmp_path):
    config = Config.from_dict({"hypotheses": {"min_depth_m": 0.4, "max_depth_m": 4.0, "count": 24}})
    methods = {name: make_method(name, config) for name in ("residual", "none")}
    done = []
    stacks = list(evaluation_stacks(photos, ["B"], 160, tmp_path / "cache"))
    folders = {name: PredictionFolder(tmp_path / "predictions", name, config) for name in methods}
    predict(methods, folders, stacks, progress=done.append)
    scores = score_files(folders.values(), stacks)
    assert done == ["B room residual", "B room none"]
    by_name = {s.method: s.values for s in scores}
    assert by_name["none"]["abs_rel"] < by_name["residual"]["abs_rel"] < 0.2
    assert by_name["none"]["coverage"] == 1.0, "dense, whatever the confidence"
    table = markdown(summary(scores)).splitlines()
    assert len(table) == 4 and table[2].startswith("| B | residual | 1 | 0.")
    assert " - |" in table[2] and " - |" not in table[3], "an argmin has no sigma, the regularised one has"


def test_unknown_methods_are_refused_before_the_work():
    with pytest.raises(FileNotFoundError, match="unknown model"):
        make_method("nonesuch", Config())


def test_command_prints_and_writes_the_table(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = ["eval", "--rgbd", str(photos), "--cameras", "B", "--methods", "residual,none", "--width", "96"]
    arguments += ["--hypotheses", "12", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "12 hypotheses from 0.31 to 10 m" in printed and "| B | none | 1 | 0." in printed
    assert (tmp_path / "out" / "table.md").read_text() in printed
    report = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [s["method"] for s in report["scores"]] == ["residual", "none"]
    assert report["scores"][0]["within_sigma"] is None
    assert report["config"]["hypotheses"]["count"] == 12
    assert f"{report['table'][1]['abs_rel']:.3f}" in printed
    assert main([*arguments[:-2], "--f-number-error", "0.3"]) == 0
    assert capsys.readouterr().out != printed


def test_command_refuses_what_is_wrong(photos, tmp_path, capsys):
    for change, message in (
        (["--cameras", "D"], "cameras: unknown"),
        (["--methods", "none,none"], "different names"),
        (["--methods", "nonesuch"], "unknown model"),
        (["--width", "8"], "expected 32 or more"),
        (["--f-number-error", "-2"], "f-number"),
    ):
        assert main(["eval", "--rgbd", str(photos), "--methods", "none", *change]) == 2
        assert message in capsys.readouterr().err
    assert main(["eval", "--rgbd", str(tmp_path), "--methods", "none"]) == 2

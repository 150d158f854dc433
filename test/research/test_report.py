"""The report of `dfs eval`: what stands in it, its pictures, and the same in two steps."""

import json

import cv2
import numpy as np
import pytest

from dfs_research.evaluation import figures
from dfs_research.evaluation.conditions import Condition
from dfs_research.evaluation.provenance import commit, provenance
from dfs_research.evaluation.rendered import EVALUATION_CAMERAS, procedural_stacks
from dfs_research.evaluation.report import robustness_table, sigma_table
from dfs_research.evaluation.table import Score
from dfs_ros.cli.main import main
from dfs_ros.io.stack_folder import save_stack


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def arguments(*more):
    size = ["--procedural", "1", "--cameras", "B", "--width", "64", "--hypotheses", "12"]
    return ["eval", *size, "--methods", "laplacian,residual,none", *map(str, more)]


def test_report_has_tables_plots_pictures_and_where_it_comes_from(tmp_path, capsys):
    report, kept = tmp_path / "report", tmp_path / "predictions"
    assert main(arguments("--report", report, "--predictions", kept, "--output", tmp_path / "out")) == 0
    text = (report / "report.md").read_text()
    for expected in ("| B | laplacian | 1 | 0.", "sc-inv", "ssitrim", "blur error", "AUSE", "32 hypotheses | none | 1"):
        assert expected in text
    assert f"commit: {commit()}" in text and f"Predictions made by commit {commit()}." in text
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["made_by"]["commit"] == commit()
    value = next(row for row in scores["table"] if row["method"] == "none")
    assert f"{value['abs_rel']:.3f}" in text and f"{value['blur_error_px']:.3f}" in text
    for picture in ("accuracy.png", "sparsification.png", "calibration.png", "pictures/B_procedural_0.png"):
        assert f"({picture})" in text
        assert cv2.imread(str(report / picture)).std() > 5, "something is drawn"

    # The same figures, from the files alone; and not with another configuration.
    capsys.readouterr()
    assert main(arguments("--score-only", "--predictions", kept)) == 0
    assert f"{value['abs_rel']:.3f}" in capsys.readouterr().out
    assert main([*arguments("--predictions", kept), "--set", "regularization.smoothness=0.3"]) == 2
    assert "regularization.smoothness" in capsys.readouterr().err
    assert main(arguments("--score-only")) == 2
    assert main(arguments("--robustness-every", "0")) == 2
    assert main(arguments("--score-only", "--predictions", tmp_path / "nowhere")) == 2
    assert "predict it first" in capsys.readouterr().err


def test_robustness_compares_with_the_same_stacks():
    def one(scene, error):
        return Score("none", "B", scene, {"abs_rel": error})

    standard = [one("near", 0.02), one("far", 0.06)]
    table = robustness_table(standard, {Condition("short range"): [one("near", 0.03)]})
    assert table.splitlines()[-1] == "| short range | none | 1 | 0.0300 | 0.0200 | 1.50 |"


def test_sigma_table_leaves_out_what_has_no_sigma():
    values = {"abs_rel": 0.1, "median_abs_rel": 0.1, "mae": 0.1, "rmse": 0.5, "delta_1.25": 1.0, "coverage": 1.0}
    values |= {"rmse_surest": 0.2, "seconds": 1.0, "delta_1.05": 0.5, "sc_inv": 0.1, "ssitrim": 0.1}
    values |= {"blur_error_px": 0.3, "ause": 0.15, "rmse_surest_metres": 0.1}
    rows = [{"camera": "B", "method": name, **values, "within_sigma": w} for name, w in (("a", 0.7), ("b", np.nan))]
    assert sigma_table(rows).splitlines()[2:] == ["| B | a | 0.700 | 0.400 | 0.200 | 0.150 |"]


def test_procedural_stacks_are_the_same_every_time_and_suit_their_camera(tmp_path):
    first, second = procedural_stacks(2, ["A"], 64)
    (again,) = procedural_stacks(1, ["A"], 64, tmp_path)
    np.testing.assert_array_equal(again.stack.images, first.stack.images)
    assert (first.depth_m != second.depth_m).mean() > 0.5
    assert np.nanmin(first.depth_m) > 1.2 and first.stack.camera == EVALUATION_CAMERAS["A"].camera


def test_depth_is_coloured_by_a_scale_in_metres():
    figure = figures.new_figure(4, 3)
    axes = figure.subplots()
    depth = np.array([[0.5, 1.0], [2.0, np.nan]])
    figures.show_depth(axes, depth, 0.5, 2.0, "title")
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown[np.isfinite(depth)], [2.0, 1.0, 0.5])
    assert shown.mask[1, 1]
    bar = figure.axes[1]
    labels = {label.get_text(): value for value, label in zip(bar.get_yticks(), bar.get_yticklabels(), strict=True)}
    assert labels["0.5 m"] == pytest.approx(2.0) and labels["2 m"] == pytest.approx(0.5)


def test_provenance_names_no_host():
    import socket

    facts = provenance()
    assert set(facts) == {"dfs_ros", "commit", "date", "machine", "versions"}
    assert socket.gethostname() not in " ".join(facts.values()).split()


def test_real_stacks_are_shown_side_by_side_and_scored_against_their_reference(tmp_path, capsys):
    (made,) = procedural_stacks(1, ["B"], 64)
    save_stack(made.stack, tmp_path / "shelf", reference_depth_m=made.depth_m)
    size = ["--hypotheses", "16", "--set", "alignment.mode=off", "--methods", "none,laplacian"]
    assert main(["eval", "--stack", str(tmp_path / "shelf"), *size, "--output", str(tmp_path / "look")]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| shelf")]
    assert [row[1] for row in rows] == ["none", "laplacian"]
    assert 0 < float(rows[0][3]) < 0.2 and float(rows[0][2]) <= 1.0
    assert cv2.imread(str(tmp_path / "look" / "shelf.png")).std() > 5
    assert "commit" in (tmp_path / "look" / "table.md").read_text()
    assert main(["eval", "--stack", str(tmp_path / "shelf"), "--methods", "released"]) == 2
    assert "cannot be used on real stacks" in capsys.readouterr().err
    assert main(["eval", "--stack", str(tmp_path / "shelf"), "--report", str(tmp_path / "r")]) == 2

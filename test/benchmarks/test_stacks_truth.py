"""Scores of stacks with known depth: of a rendered plane, with exact and with nominal focus."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stacks_truth import main, measure
from dfs_ros.config import Config
from dfs_ros.io.stack_folder import save_stack
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera, FocalStack

CONFIG = Config.from_dict(
    {
        "network": {"name": "none"},
        "lens": {"aperture": "given"},
        "hypotheses": {"count": 24, "max_depth_m": 3.0},
        "processing": {"device": "cpu", "threads": 1},
    }
)


@pytest.fixture(scope="module")
def plane() -> FocalStack:
    scene = plane_scene(0.8, 96, 64, seed=3)
    return render_stack(scene.rgb, scene.depth_m, Camera(0.008, 1.4, 6e-6), [2.2, 1.3, 0.5], rng=1)


def test_a_plane_at_another_depth_is_off_by_that_and_within_a_nominal_sigma(tmp_path: Path, plane: FocalStack) -> None:
    truth = np.full(plane.size, 0.85, np.float32)
    nothing_stated = dataclasses.replace(plane, focus_sigma_diopters=np.full(3, np.nan))
    folder = save_stack(nothing_stated, tmp_path / "plane", reference_depth_m=truth)
    nominal = measure(folder, {}, CONFIG)
    exact = measure(folder, {"plane": 0.0}, CONFIG)
    assert nominal["median error"] == exact["median error"] == pytest.approx(0.05 / 0.85, rel=0.15)
    assert exact["focus"] == exact["aperture"] == 0.0
    assert nominal["focus"] == pytest.approx(np.hypot(0.05, 0.1 * 0.8), rel=0.03)
    assert exact["in 1 sigma"] < 0.2 and nominal["in 1 sigma"] > 0.5 and nominal["in 2 sigma"] > 0.95
    stated = save_stack(plane, tmp_path / "stated", reference_depth_m=truth)
    assert measure(stated, {"stated": 0.5}, CONFIG)["focus"] == 0.0  # what stack.yaml says comes first


def test_what_is_missing_is_named(tmp_path: Path, plane: FocalStack, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_stack(plane, tmp_path / "plane")
    with pytest.raises(ValueError, match=r"plane: expected a stack with reference_depth or depth\.npy, received none"):
        measure(folder, {}, CONFIG)
    for arguments, text in (([str(folder)], "expected folders with"), ([str(tmp_path), "--focus-sigma", "x"], "NAME=")):
        with pytest.raises(SystemExit):
            main(arguments)
        assert text in capsys.readouterr().err

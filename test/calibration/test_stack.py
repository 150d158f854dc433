"""Aperture calibration: the blur factor is read off a stack whose metadata lie about it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from dfs_ros.calibration.stack import calibrate_aperture
from dfs_ros.cli.main import main
from dfs_ros.config import Config
from dfs_ros.io.stack_folder import save_stack
from dfs_ros.types import FocalStack, opened

FEWER = Config.from_dict({"hypotheses": {"count": 32}, "alignment": {"mode": "prior"}})


@pytest.mark.parametrize("told_over_true", [1.0, 1.15, 0.87])
def test_wrong_f_number_is_found(demo_stack: FocalStack, told_over_true: float) -> None:
    camera = dataclasses.replace(demo_stack.camera, f_number=demo_stack.camera.f_number * told_over_true)
    fit = calibrate_aperture(dataclasses.replace(demo_stack, camera=camera), FEWER)
    assert fit.measured == pytest.approx(told_over_true, rel=0.05)
    assert fit.sigma < 0.05
    assert fit.misfit.min() == 0.0


def test_factors_that_no_lens_has_are_a_warning(
    demo_stack: FocalStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_stack(opened(demo_stack, 0.5), tmp_path / "wrong")
    save_stack(demo_stack, tmp_path / "right")
    assert main(["calibrate", str(tmp_path / "wrong"), "--hypotheses", "32"]) == 0
    assert re.search(r"warning: .*wrong: blur is about [12]\.\d\d times as wide as described", capsys.readouterr().err)
    assert main(["calibrate", str(tmp_path / "right"), "--hypotheses", "32"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_scale_multiplies_the_blur(demo_stack: FocalStack) -> None:
    wider = opened(demo_stack, 2.0)
    assert wider.camera.f_number == demo_stack.camera.f_number / 2.0
    assert opened(demo_stack, 1.0) is demo_stack


def test_two_images_are_refused(demo_stack: FocalStack) -> None:
    two = FocalStack(demo_stack.images[:2], demo_stack.focus_diopters[:2], demo_stack.camera)
    with pytest.raises(ValueError, match="expected images at 3 or more focus positions, received 2"):
        calibrate_aperture(two, FEWER)


def test_no_texture_is_refused(demo_stack: FocalStack) -> None:
    noise = np.random.default_rng(0).standard_normal(demo_stack.images.shape)
    flat = np.clip(np.rint(128 + noise), 0, 255).astype(np.uint8)
    with pytest.raises(ValueError, match="has texture; take a stack of a scene with detail"):
        calibrate_aperture(dataclasses.replace(demo_stack, images=flat), FEWER)

"""Images reduced as they are read give the depth of images reduced afterwards, at the size of the files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.io.stack_folder import load_stack, save_stack
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.system import memory
from dfs_ros.types import Camera, reduced

MEGAPIXELS = 0.01
CAMERA = Camera(
    focal_length_m=0.025, f_number=1.4, pixel_pitch_m=8e-5, fx_px=320.0, fy_px=320.0, cx_px=83.0, cy_px=60.0
)
CONFIG = Config.from_dict(
    {
        "processing": {"threads": 1, "max_megapixels": MEGAPIXELS},
        "network": {"name": "none"},
        "hypotheses": {"count": 16, "min_depth_m": 0.4, "max_depth_m": 4.0},
        "lens": {"aperture": "given"},
    }
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scene = plane_scene(0.9, 161, 117)
    return save_stack(render_stack(scene.rgb, scene.depth_m, CAMERA, (2.2, 1.1, 0.5)), tmp_path / "stack")


def test_images_are_those_reduced_afterwards(folder: Path) -> None:
    whole, read = load_stack(folder), load_stack(folder, working_megapixels=MEGAPIXELS)
    expected = reduced(whole, MEGAPIXELS)
    np.testing.assert_array_equal(read.images, expected.images)
    assert read.camera == expected.camera
    assert (read.size, read.output_size) == (expected.size, (117, 161))
    assert reduced(read, MEGAPIXELS) is read
    assert load_stack(folder, working_megapixels=1.0).output_size == whole.output_size == (117, 161)


@pytest.mark.parametrize("sharpen", [True, False])
def test_depth_is_the_same_to_the_bit(folder: Path, sharpen: bool) -> None:
    estimator = DepthEstimator(CONFIG)
    whole = estimator.estimate(load_stack(folder), sharpen=sharpen)
    read = estimator.estimate(load_stack(folder, working_megapixels=MEGAPIXELS), sharpen=sharpen)
    assert read.depth_m.shape == (117, 161) and np.isfinite(read.depth_m).any()
    for name in ("depth_m", "sigma_m", "confidence", "dense_depth_m", "dense_sigma_m", "local_sigma_m"):
        np.testing.assert_array_equal(getattr(read, name), getattr(whole, name))
    assert read.camera == whole.camera
    assert read.all_in_focus.shape == whole.all_in_focus.shape == (117, 161, 3)
    if sharpen:
        np.testing.assert_array_equal(read.all_in_focus, whole.all_in_focus)
    for name in ("working_size_px", "alignment", "findings"):
        assert read.report[name] == whole.report[name]


def test_what_does_not_fit_is_told_in_two_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    free = dataclasses.make_dataclass("free", ["available"])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free(200_000))
    with pytest.raises(ValueError, match=r"3 images of 161 x 117 pixels: expected at most 0\.0002 GB.* 0\.000339 GB"):
        load_stack(folder)
    with pytest.raises(ValueError, match=r"received 0\.000259 GB"):
        load_stack(folder, working_megapixels=MEGAPIXELS)
    assert memory.check_memory(200_000, "fits") is None  # type: ignore[func-returns-value]

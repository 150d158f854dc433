"""What the tests of the renderer share."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfs_ros.optics import thin_lens
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import DEMO_FOCUS_DIOPTERS, demo_camera, demo_scene, plane_scene, random_scene
from dfs_ros.types import Camera, FocalStack

CAMERA = Camera(0.008, 1.4, 6e-6)  # 7.6 px of blur a dioptre


def depth_for_coc(diameter_px: float, focus_diopters: float, camera: Camera = CAMERA) -> float:
    """The depth, nearer than the focus, at which blur has that diameter."""
    return 1.0 / (focus_diopters + diameter_px / float(thin_lens.coc_px_per_diopter(focus_diopters, camera)))


def flat(depth_m: float, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full(shape, depth_m)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache of simulated cameras and training stacks: the images of each are rendered once, for all workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "rendered"


@pytest.fixture
def coarsely_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training stacks are rendered without oversampling."""
    monkeypatch.setattr("dfs_research.training.stacks._OVERSAMPLING", 1)


@pytest.fixture(scope="session")
def demo_stack() -> FocalStack:
    """The demo scene, 160 x 120."""
    scene = demo_scene(320, 240)
    return render_stack(scene.rgb, scene.depth_m, demo_camera(160), DEMO_FOCUS_DIOPTERS, oversampling=2)


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    return plane_scene(1.0, 64, 48, seed=4).rgb


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one scene of known depth."""
    folder = tmp_path_factory.mktemp("rgbd")
    scene = random_scene(4, 160, 128, near_m=0.5, far_m=2.0)
    (folder / "room").mkdir()
    cv2.imwrite(str(folder / "room" / "rgb.png"), scene.rgb[..., ::-1])
    cv2.imwrite(str(folder / "room" / "depth_mm.png"), np.rint(scene.depth_m * 1000).astype(np.uint16))
    (folder / "room" / "meta.json").write_text("{}")
    return folder

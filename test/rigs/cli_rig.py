"""`dfs estimate` as its tests run it: a small stack, and what lies in a folder before and after."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dfs_ros.cli.main import main
from dfs_ros.io.stack_folder import save_stack
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera

FILES = [
    "all_in_focus.png",
    "depth.npy",
    "depth.png",
    "depth_mm.png",
    "points.ply",
    "report.json",
    "sigma.npy",
    "sigma.png",
]
DFS = (sys.executable, "-m", "dfs_ros.cli.main")
FAST = ("--network", "none", "--hypotheses", "24", "--max-depth", "5")
DEPTH_M = 0.8
Capture = pytest.CaptureFixture[str]


def make_stack(folder: Path, width: int = 64, height: int = 48) -> Path:
    scene = plane_scene(DEPTH_M, width, height, seed=3)
    stack = render_stack(scene.rgb, scene.depth_m, Camera(0.008, 1.4, 6e-6), [2.2, 1.3, 0.5], rng=1)
    return save_stack(stack, folder)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return make_stack(tmp_path / "stack")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with what is in it."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def estimate(stack: Path, output: Path, *options: str) -> int:
    return main(["estimate", str(stack), "--output", str(output), *options])

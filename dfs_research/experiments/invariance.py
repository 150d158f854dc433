"""Invariance to the camera: networks of one camera, tested with others.

DDFS's tables 3 and 4, CPU-sized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dfs_research.evaluation.methods import make_method
from dfs_research.evaluation.predictions import PredictionFolder, predict
from dfs_research.evaluation.rendered import RenderedStack, load_rgbd, render_scene, rgbd_folders
from dfs_research.evaluation.table import Score, score_files
from dfs_research.experiments.settings import InvarianceCase, TestSetting
from dfs_research.experiments.training import Say
from dfs_ros.config import Config
from dfs_ros.io.markdown import markdown_table

Table = dict[str, dict[str, float]]
"""Mean Abs Rel by method and then by name of the test."""


def test_stacks(rgbd: str | Path, test: TestSetting, width: int, every: int = 1) -> Iterator[RenderedStack]:
    """Render every n-th scene of a folder of photos with depth, with a test's camera."""
    for folder in rgbd_folders(rgbd)[::every]:
        scene = load_rgbd(folder, 2 * width, multiple_of=2)
        if test.median_depth_m is not None:
            factor = np.float32(test.median_depth_m / float(np.nanmedian(scene.depth_m)))
            scene = type(scene)(scene.name, scene.rgb, scene.depth_m * factor, scene.meta)
        yield render_scene(scene, test.name, test.setup)


test_stacks.__test__ = False  # type: ignore[attr-defined]


def measure(
    case: InvarianceCase,
    networks: Mapping[str, str],
    stacks_of: Callable[[TestSetting], Iterable[RenderedStack]],
    folder: str | Path,
    say: Say,
) -> Table:
    """Mean Abs Rel of every network in every test of a case.

    `networks`: name in the table -> name or weights file. Predictions are kept in `folder`.
    """
    hypotheses = {"min_depth_m": case.min_depth_m, "max_depth_m": case.max_depth_m, "count": 64}
    config = Config.from_dict({"hypotheses": hypotheses})
    methods = {name: make_method(file, config) for name, file in networks.items()}
    root = Path(folder) / case.name
    folders = {name: PredictionFolder(root / str(i), file, config) for i, (name, file) in enumerate(networks.items())}
    table: Table = {name: {} for name in networks}
    for test in case.tests:
        stacks = list(stacks_of(test))
        predict(methods, folders, stacks, progress=say)
        for name, stored in folders.items():
            table[name][test.name] = _mean(score_files([stored], stacks))
    return table


def markdown(case: InvarianceCase, table: Table) -> str:
    """Markdown table of errors, and of their growth over the training's camera."""
    names = [test.name for test in case.tests]
    heads = ["method", names[0], *(f"{name}: Abs Rel, growth" for name in names[1:])]
    rows = []
    for method, values in table.items():
        own = values[names[0]]
        cells = [f"{values[name]:.3f}, {values[name] / own:.2f} x" for name in names[1:]]
        rows.append([method, own, *cells])
    return markdown_table(heads, rows)


def _mean(scores: Sequence[Score]) -> float:
    return float(np.mean([score.values["abs_rel"] for score in scores]))

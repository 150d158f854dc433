"""DualFocus's constraints as losses of the light network: equal trainings, one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dfs_research.evaluation import protocol
from dfs_research.evaluation.methods import make_method
from dfs_research.evaluation.predictions import PredictionFolder, predict
from dfs_research.evaluation.rendered import RenderedStack
from dfs_research.evaluation.table import score_files
from dfs_research.experiments.training import Say
from dfs_ros.config import Config
from dfs_ros.io.markdown import markdown_table

COLUMNS = {"abs_rel": "Abs Rel", "rmse": "RMSE [m]", "delta_1.25": "delta 1.25", "ause": "AUSE"}


def measure(
    weights: Mapping[str, Path], stacks: Sequence[RenderedStack], folder: str | Path, say: Say
) -> dict[str, dict[str, float]]:
    """Means of the measures in COLUMNS over the stacks, by training."""
    config = Config.from_dict(protocol.SETTINGS)
    table = {}
    for name, file in weights.items():
        stored = PredictionFolder(folder, str(file), config)
        predict({name: make_method(str(file), config)}, {name: stored}, stacks, progress=say)
        scores = score_files([stored], stacks)
        table[name] = {key: float(np.nanmean([score.values[key] for score in scores])) for key in COLUMNS}
    return table


def markdown(table: Mapping[str, Mapping[str, float]], base: str, chance: str) -> str:
    """Markdown table and verdict; changes within those of another seed do not count."""
    own = table[base]["abs_rel"]
    rows = (
        [name, *(values[key] for key in COLUMNS), f"{100 * (values['abs_rel'] / own - 1):+.1f} %"]
        for name, values in table.items()
    )
    lines = [markdown_table(["constraint", *COLUMNS.values(), "Abs Rel against neither"], rows, 4)]
    noise = abs(table[chance]["abs_rel"] - own)
    for name, values in table.items():
        if name not in (base, chance):
            lines.append(f"\n{name}: {verdict(values['abs_rel'] - own, noise)}.")
    return "\n".join(lines)


def verdict(change: float, noise: float) -> str:
    """Verdict on a change of the error, given the change by chance."""
    if abs(change) <= noise:
        return "no difference beyond that of another seed"
    return "helps" if change < 0 else "makes it worse"

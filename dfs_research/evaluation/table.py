"""Table of `dfs eval`: scores of methods, by camera and over all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dfs_research.evaluation import uncertainty
from dfs_research.evaluation.conditions import STANDARD, Condition
from dfs_research.evaluation.methods import Prediction
from dfs_research.evaluation.predictions import PredictionFolder
from dfs_research.evaluation.rendered import RenderedStack
from dfs_ros.io.markdown import markdown_table
from dfs_ros.optics import thin_lens
from dfs_ros.scoring import metrics

COLUMNS = {
    "abs_rel": "Abs Rel",
    "median_abs_rel": "median",
    "mae": "MAE [m]",
    "rmse": "RMSE [m]",
    "delta_1.25": "delta 1.25",
    "coverage": "coverage",
    "within_sigma": "in sigma",
    "rmse_surest": "RMSE surest 80 %",
    "seconds": "time [s]",
}
"""Columns of the printed table: key in a score and heading."""

MORE_COLUMNS = {
    "delta_1.05": "delta 1.05",
    "sc_inv": "sc-inv",
    "ssitrim": "ssitrim",
    "blur_error_px": "blur error [px]",
    "ause": "AUSE",
    "rmse_surest_metres": "RMSE surest 80 % by sigma [m]",
}
"""Further columns of a report."""


@dataclass(frozen=True)
class Score:
    """Scores of one method on one stack.

    `values` by the keys of COLUMNS and MORE_COLUMNS, NaN = undefined.
    """

    method: str
    camera: str
    scene: str
    values: dict[str, float]


def score(prediction: Prediction, rendered: RenderedStack, seconds: float) -> dict[str, float]:
    """All measures of a prediction, over every pixel with true depth."""
    stack = rendered.stack
    px_per_diopter = float(np.mean(thin_lens.coc_px_per_diopter(stack.focus_diopters, stack.camera)))
    return {
        **metrics.all_metrics(prediction.depth_m, rendered.depth_m),
        "blur_error_px": metrics.blur_error_px(prediction.depth_m, rendered.depth_m, px_per_diopter),
        **uncertainty.all_uncertainty_metrics(prediction.depth_m, rendered.depth_m, prediction.sigma_m),
        "seconds": seconds,
    }


def score_files(
    folders: Iterable[PredictionFolder], stacks: Iterable[RenderedStack], condition: Condition = STANDARD
) -> list[Score]:
    """Score the predictions on disk for every suitable stack.

    Raises FileNotFoundError for a missing prediction: a mean over some of the stacks is not comparable.
    """
    folders, scores = list(folders), []
    for rendered in stacks:
        if not condition.suits(rendered):
            continue
        for folder in folders:
            stored = folder.load(rendered)
            if stored is None:
                raise FileNotFoundError(
                    f"{folder.folder}: no prediction of {folder.name} for camera {rendered.camera_name}, scene "
                    f"{rendered.name}, under the condition {condition.name!r}; predict it first"
                )
            values = score(stored.prediction, rendered, stored.seconds)
            scores.append(Score(folder.name, rendered.camera_name, rendered.name, values))
    return scores


def summary(scores: Sequence[Score]) -> list[dict[str, object]]:
    """Means over stacks for each camera and method, then over all stacks: a list of rows."""
    cameras = list(dict.fromkeys(s.camera for s in scores))
    names = list(dict.fromkeys(s.method for s in scores))
    rows: list[dict[str, object]] = []
    for camera in [*cameras, "all"] if len(cameras) > 1 else cameras:
        for name in names:
            chosen = [s for s in scores if s.method == name and camera in (s.camera, "all")]
            if chosen:
                means = {key: _mean([s.values[key] for s in chosen]) for key in chosen[0].values}
                rows.append({"camera": camera, "method": name, "stacks": len(chosen), **means})
    return rows


def markdown(rows: Sequence[Mapping[str, object]], columns: Mapping[str, str] = COLUMNS) -> str:
    """Markdown table of the rows."""
    first = ["camera", "method", "stacks"]
    cells = ([row[key] for key in (*first, *columns)] for row in rows)
    return markdown_table([*first, *columns.values()], cells) + "\n"


def _mean(values: Sequence[float]) -> float:
    """Mean of the defined values; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan

"""The table of `dfs eval`: methods against the evaluation set, by camera and over all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dfs_ros.evaluation import metrics
from dfs_ros.evaluation.methods import Method, Prediction
from dfs_ros.evaluation.rendered import RenderedStack

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
"""Columns of the table: key in a score and heading."""


@dataclass(frozen=True)
class Score:
    """How one method did on one stack; `values` by the keys of COLUMNS and `metrics.all_metrics`, NaN = undefined."""

    method: str
    camera: str
    scene: str
    values: dict[str, float]


def score(prediction: Prediction, rendered: RenderedStack, seconds: float) -> dict[str, float]:
    """All measures of a prediction. Every pixel with true depth counts, without exception."""
    values = metrics.all_metrics(prediction.depth_m, rendered.depth_m)
    within, surest = math.nan, math.nan
    if prediction.sigma_m is not None:
        error = np.abs(prediction.depth_m - rendered.depth_m)
        counted = np.isfinite(error) & np.isfinite(prediction.sigma_m)
        if counted.any():
            within = float(np.mean(error[counted] <= prediction.sigma_m[counted]))
            # Sure is what is sure relative to its depth.
            doubt = (prediction.sigma_m / prediction.depth_m)[counted]
            kept = doubt <= np.quantile(doubt, 0.8)
            surest = float(np.sqrt(np.mean(error[counted][kept].astype(np.float64) ** 2)))
    return {**values, "within_sigma": within, "rmse_surest": surest, "seconds": seconds}


def evaluate(
    methods: Mapping[str, Method],
    stacks: Iterable[RenderedStack],
    progress: Callable[[str], None] = lambda what: None,
) -> list[Score]:
    """Every method on every stack. `progress` is told what was done, once for each."""
    scores = []
    for rendered in stacks:
        for name, method in methods.items():
            started = time.perf_counter()
            prediction = method(rendered.stack)
            seconds = time.perf_counter() - started
            scores.append(Score(name, rendered.camera_name, rendered.name, score(prediction, rendered, seconds)))
            progress(f"{rendered.camera_name} {rendered.name} {name}")
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


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows as a Markdown table."""
    headings = ["camera", "method", "stacks", *COLUMNS.values()]
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in rows:
        cells = [str(row["camera"]), str(row["method"]), str(row["stacks"])]
        lines.append(_line(cells + [_cell(row[key]) for key in COLUMNS]))
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    number = float(value)  # type: ignore[arg-type]
    return "-" if math.isnan(number) else f"{number:.3f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _mean(values: Sequence[float]) -> float:
    """Mean of what is defined."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan

"""Tables of the evaluation in use, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dfs_research.evaluation.faults import FAULTS, Fault
from dfs_research.evaluation.in_use import HONEST, InUse

DENSE_COLUMNS = {
    "dense_abs_rel": "Abs Rel",
    "ratio": "x ideal",
    "dense_rmse": "RMSE [m]",
    "dense_delta_1.25": "delta 1.25",
    "dense_coverage": "coverage",
    "dense_within_1": "in 1 sigma",
    "dense_within_2": "in 2 sigma",
    "dense_relative_sigma": "sigma / depth",
}
USED_COLUMNS = {
    "coverage": "coverage",
    "abs_rel": "Abs Rel",
    "median": "median error",
    "bias": "median, signed",
    "delta_1.25": "delta 1.25",
    "within_1": "in 1 sigma",
    "within_2": "in 2 sigma",
    "relative_sigma": "sigma / depth",
    "unwarned": "sure and wrong",
    "warned": "warned",
}
FAULT_COLUMNS = {
    "coverage": "coverage",
    "median": "median error",
    "within_1": "in 1 sigma",
    "unwarned": "sure and wrong",
    "unwarned_worst": "worst stack",
    "sure_and_wrong": "with warned ones",
    "warned": "warned",
    "refused": "refused",
    "no_depth": "no depth",
}
MOTION_COLUMNS = {
    "sideways_told": "told sideways",
    "sideways_error": "error",
    "sideways_pull": "pull",
    "forward_told": "told forward",
    "forward_error": "error",
    "forward_pull": "pull",
}
DEFINITIONS = """\
Means over stacks, estimated by the default estimator with its default settings, alignment and all. Abs Rel: mean of
|p - t| / t; median error: its median; x ideal: Abs Rel over that of `ideal` on the same stacks; in n sigma: share of
errors within; sigma / depth: median over pixels. Dense: every pixel with true depth. Sure and wrong: share of all
pixels with true depth whose depth is over 10 % and over 3 sigma off in a stack without any warning. Warned: stacks
with a warning, or refused. Ego-motion: stacks whose velocity is told, median of its error over the true velocity, pull:
error over its standard deviation, root mean square."""


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Tables: honest conditions dense and in use, velocities, then faults."""
    honest = [row for row in rows if row["condition"] in HONEST]
    faulty = [row for row in rows if row["condition"] in FAULTS]
    parts = []
    if honest:
        parts += ["Dense, every pixel:", _table(honest, DENSE_COLUMNS)]
        parts += ["With default confidence:", _table(honest, USED_COLUMNS)]
        moving = [row for row in honest if row["sideways_told"] or row["forward_told"]]
        parts += ["Ego-motion:", _table(moving, MOTION_COLUMNS)] if moving else []
    if faulty:
        parts += ["Faults, with default confidence:", _table(faulty, FAULT_COLUMNS)]
    return "\n\n".join(parts) + "\n"


def descriptions(names: Sequence[str]) -> str:
    """Markdown list of conditions and their summaries."""
    known: dict[str, InUse | Fault] = {**HONEST, **FAULTS}
    return "\n".join(f"- `{name}`: {known[name].summary}" for name in names)


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    lines = [_line(["condition", "stacks", *columns.values()]), _line(["---"] * (2 + len(columns)))]
    lines += [_line([row["condition"], str(row["stacks"]), *(_cell(row[key]) for key in columns)]) for row in rows]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    """Text of a figure; NaN is null in JSON."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"

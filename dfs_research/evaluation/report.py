"""Accuracy report in Markdown: tables, calibration of sigma, pictures, provenance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfs_research.evaluation import figures, uncertainty
from dfs_research.evaluation.conditions import Condition
from dfs_research.evaluation.predictions import PredictionFolder
from dfs_research.evaluation.provenance import markdown_lines, provenance
from dfs_research.evaluation.rendered import RenderedStack
from dfs_research.evaluation.table import COLUMNS, MORE_COLUMNS, Score, markdown, summary
from dfs_research.evaluation.uncertainty import REMOVED, Sparsification
from dfs_ros.io.markdown import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PICTURE_COLOURS = 128
DEFINITIONS = """\
Every pixel with true depth counts; means are over stacks. Abs Rel: mean |p - t| / t; median: of the same. delta x:
share of pixels within a factor x. sc-inv: standard deviation of log p - log t (Eigen 2014). ssitrim: error in inverse
depth after scale and shift, largest fifth of residuals left out (Ranftl 2020). Blur error: error in inverse depth times
the lens' pixels of blur per dioptre. In sigma: share of errors within one sigma (0.683 for a Gaussian). RMSE surest
80 %: of the pixels with the least sigma / depth; "by sigma": with the least sigma in metres. AUSE: area between the
sparsification curve and the best possible one (Ilg 2018). Formulas: `dfs_ros/scoring/metrics.py` and
`uncertainty.py`."""


@dataclass(frozen=True)
class Curves:
    """Sparsification and calibration curves of a method, means over stacks."""

    sparsification: Sparsification
    calibration: NDArray[np.float64]


def write_report(
    folder: Path,
    title: str,
    protocol: str,
    scores: Sequence[Score],
    robustness: Mapping[Condition, Sequence[Score]],
    curves: Mapping[str, Curves],
    pictures: Sequence[Path],
    more: str = "",
) -> Path:
    """Write report.md and plots into an existing `folder`; return the file.

    `pictures` must lie in the folder already.
    """
    rows = summary(scores)
    parts = [f"# {title}", protocol, "\n".join(markdown_lines(provenance()))]
    parts += ["## Accuracy", DEFINITIONS, markdown(rows), markdown(rows, MORE_COLUMNS)]
    by_camera: dict[str, dict[str, float]] = {}
    for row in rows:
        by_camera.setdefault(f"{row['camera']}", {})[str(row["method"])] = float(row["abs_rel"])  # type: ignore[arg-type]
    _save(figures.bar_plot(by_camera, "mean Abs Rel"), folder / "accuracy.png")
    parts.append("![Mean Abs Rel of every method by camera](accuracy.png)")
    if robustness:
        parts += [
            "## When the lens is wrong, with other hypotheses",
            ROBUSTNESS_TEXT,
            robustness_table(scores, robustness),
        ]
    if curves:
        _save(
            figures.sparsification_plot({name: c.sparsification for name, c in curves.items()}),
            folder / "sparsification.png",
        )
        _save(figures.calibration_plot({name: c.calibration for name, c in curves.items()}), folder / "calibration.png")
        parts += ["## How sigma holds", sigma_table(rows)]
        parts.append("![Error left when the least sure pixels go](sparsification.png)")
        parts.append("![Share of errors within the intervals that sigma promises](calibration.png)")
    if pictures:
        parts.append("## Pictures")
        parts += [f"![{picture.stem}]({picture.relative_to(folder)})" for picture in pictures]
    if more:
        parts.append(more)
    file = folder / "report.md"
    file.write_text("\n\n".join(part.strip("\n") for part in parts) + "\n")
    return file


ROBUSTNESS_TEXT = """\
Mean Abs Rel over the stacks whose depth lies within the hypotheses but for half a percent of the pixels, beside the
standard condition on the same stacks."""


def robustness_table(scores: Sequence[Score], robustness: Mapping[Condition, Sequence[Score]]) -> str:
    """Table of Abs Rel by condition, beside the standard condition on the same stacks."""
    standard = {(s.method, s.camera, s.scene): s.values["abs_rel"] for s in scores}
    rows = []
    for condition, found in robustness.items():
        for name in dict.fromkeys(s.method for s in found):
            chosen = [s for s in found if s.method == name]
            value = float(np.mean([s.values["abs_rel"] for s in chosen]))
            base = float(np.mean([standard[s.method, s.camera, s.scene] for s in chosen]))
            rows.append([condition.name, name, len(chosen), value, base, f"{value / base:.2f}"])
    return markdown_table(["condition", "method", "stacks", "Abs Rel", "standard", "ratio"], rows, 4)


def sigma_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Table of methods with sigma: coverage of sigma, error of the surest pixels, AUSE."""
    headings = ["camera", "method", "in sigma", "RMSE surest 80 % / RMSE", "the same, by sigma in metres", "AUSE"]
    found = []
    for row in rows:
        values = {key: float(row[key]) for key in (*COLUMNS, *MORE_COLUMNS)}  # type: ignore[arg-type]
        if not math.isnan(values["within_sigma"]):
            cells = [values["within_sigma"], values["rmse_surest"] / values["rmse"]]
            cells += [values["rmse_surest_metres"] / values["rmse"], values["ause"]]
            found.append([row["camera"], row["method"], *cells])
    return markdown_table(headings, found)


def sigma_curves(folders: Iterable[PredictionFolder], stacks: Iterable[RenderedStack]) -> dict[str, Curves]:
    """Curves of every method with sigma, from predictions on disk: means over stacks."""
    folders = list(folders)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for rendered in stacks:
        for folder in folders:
            stored = folder.load(rendered)
            if stored is None or stored.prediction.sigma_m is None:
                continue
            of = (stored.prediction.depth_m, rendered.depth_m, stored.prediction.sigma_m)
            curve = uncertainty.sparsification(*of)
            each = np.concatenate([curve.by_sigma, curve.oracle, uncertainty.calibration_curve(*of)])
            if np.isfinite(each).all():
                found.setdefault(folder.name, []).append(each)
    curves = {}
    for name, rows in found.items():
        by_sigma, oracle, held = np.split(np.mean(rows, axis=0), [len(REMOVED), 2 * len(REMOVED)])
        curves[name] = Curves(Sparsification(by_sigma, oracle), held)
    return curves


def write_pictures(
    folder: Path, folders: Sequence[PredictionFolder], stacks: Iterable[RenderedStack], each: int
) -> list[Path]:
    """Write comparisons of the first `each` stacks of every camera; return the files.

    Predictions come from disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown: dict[str, int] = {}
    files = []
    for rendered in stacks:
        if shown.get(rendered.camera_name, 0) >= each:
            continue
        stored = {f.name: f.load(rendered) for f in folders}
        predictions = {name: s.prediction for name, s in stored.items() if s is not None}
        if not predictions:
            continue
        shown[rendered.camera_name] = shown.get(rendered.camera_name, 0) + 1
        file = folder / f"{rendered.camera_name}_{rendered.name}.png"
        _save(figures.comparison(rendered, predictions), file, colours=_PICTURE_COLOURS)
        files.append(file)
    return files


def _save(figure: Figure, file: Path, colours: int | None = None) -> None:
    """Save a figure as PNG; `colours` limits the palette, for a third of the size."""
    figure.savefig(file)
    if colours is not None:
        with Image.open(file) as image:
            reduced = image.convert("RGB").quantize(colours)
        reduced.save(file, optimize=True)

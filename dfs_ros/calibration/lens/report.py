"""Report of a lens calibration: one page with figures, report.html with all in it, and its figures as report.png."""

from __future__ import annotations

import base64
import html
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.fit import LensFit
from dfs_ros.calibration.lens.model import INDEX, Array, rotated
from dfs_ros.calibration.lens.response import Response
from dfs_ros.lens.calibration import PARAMETERS, LensCalibration
from dfs_ros.system.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_BLUR_PX = 1.5  # below, the blur of one window says little about focus
_DOTS = 4000
_STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}img{width:100%}"
    "td,th{text-align:left;padding:.1em 1.2em .1em 0}.open{color:#b45309}"
)


def write_report(
    folder: Path, lens: LensCalibration, fit: LensFit, board: Board, response: Response | None = None
) -> None:
    """Write report.html, which needs no other file, and report.png into a folder, made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = figures(lens, fit, board, response)
    write_atomically(folder / "report.png", picture)
    write_atomically(folder / "report.html", _page(lens, fit, picture).encode())


def focus_residuals(fit: LensFit) -> tuple[Array, Array, Array]:
    """Raw position, and median and spread [D] of the focus by each window alone less the fit, for each position."""
    position, defocus, fitted, alone = fit.measured[:, (0, 3, 4, 5)].T
    blurred = (fitted > _LEAST_BLUR_PX**2) & np.isfinite(defocus) & (alone > 0)
    residual = defocus * (np.sqrt(np.maximum(alone, 0.0) / np.maximum(fitted, 1e-9)) - 1.0)
    rows = []
    for each in np.unique(position[blurred]):
        low, middle, high = np.percentile(residual[blurred & (position == each)], [16, 50, 84])
        rows.append((fit.raw.centre + fit.raw.half_range * each, middle, (high - low) / 2))
    raw, middle, spread = np.array(rows).reshape(-1, 3).T
    return raw, middle, spread


def figures(lens: LensCalibration, fit: LensFit, board: Board, response: Response | None = None) -> bytes:
    """PNG of six figures, and a seventh of the response to steps where it was measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 3 if response is None else 4
    figure = Figure(figsize=(5 * columns, 9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns)
    _focus_scale(axes[0, 0], lens)
    _residuals(axes[0, 1], lens, fit)
    _surface(axes[0, 2], lens, figure)
    _blur(axes[1, 0], lens, fit)
    _breathing(axes[1, 1], lens)
    _coverage(axes[1, 2], lens, fit, board)
    if response is not None:
        _steps(axes[0, 3], response)
        axes[1, 3].set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _raws(lens: LensCalibration) -> Array:
    return np.asarray(lens.raw_centre + lens.raw_half_range * np.linspace(-1, 1, 101))


def _focus_scale(axes: Axes, lens: LensCalibration) -> None:
    raws = _raws(lens)
    for direction, label, colour in ((1, "upwards", "C0"), (-1, "downwards", "C1")):
        focus, sigma = np.array([lens.focus_of(raw, direction) for raw in raws]).T
        axes.plot(raws, focus, colour, label=label)
        axes.fill_between(raws, focus - sigma, focus + sigma, color=colour, alpha=0.2)
    axes.set(title="Focus scale, mean over the field, one sigma", xlabel=lens.unit, ylabel="focus [1/m]")
    axes.legend()


def _residuals(axes: Axes, lens: LensCalibration, fit: LensFit) -> None:
    raw, middle, spread = focus_residuals(fit)
    axes.errorbar(raw, middle, spread, fmt="o", capsize=3)
    axes.axhline(0.0, color="grey", linewidth=0.8)
    axes.set(title="Focus by each window alone, less the fit", xlabel=lens.unit, ylabel="median and spread [1/m]")


def _surface(axes: Axes, lens: LensCalibration, figure: Any) -> None:
    height, width = lens.size
    u, v = np.meshgrid(np.linspace(0, width - 1, 61), np.linspace(0, height - 1, 61))
    half = math.hypot(height, width) / 2
    x, y = (u - lens["cx_px"]) / half, (v - lens["cy_px"]) / half
    surface = lens["curvature"] * (x * x + y * y) + lens["tilt_x"] * x + lens["tilt_y"] * y
    shown = axes.contourf(u, v, surface, 15, cmap="viridis")
    figure.colorbar(shown, ax=axes, label="focus less that on the axis [1/m]")
    axes.invert_yaxis()
    left_open = [name for name in ("curvature", "tilt_x", "tilt_y") if name in lens.undetermined]
    note = f" (not determined: {', '.join(left_open)})" if left_open else ""
    axes.set(title=f"Focal surface over the field{note}", xlabel="u [px]", ylabel="v [px]", aspect="equal")


def _blur(axes: Axes, lens: LensCalibration, fit: LensFit) -> None:
    chosen = np.linspace(0, len(fit.measured) - 1, min(len(fit.measured), _DOTS)).astype(int)
    defocus, _, alone = fit.measured[chosen][:, 3:6].T
    axes.plot(defocus, np.sign(alone) * np.sqrt(np.abs(alone)), ".", markersize=2, alpha=0.4, label="windows alone")
    reach = float(np.nanmax(np.abs(defocus), initial=0.1))
    line = np.linspace(-reach, reach, 201)
    axes.plot(line, lens["aperture_m"] * lens["fx_px"] * np.abs(line), "C3", label="on the axis")
    axes.set(title="Blur against defocus", xlabel="focus less 1 / depth [1/m]", ylabel="diameter [px]")
    axes.legend()


def _breathing(axes: Axes, lens: LensCalibration) -> None:
    raws = _raws(lens)
    e = (raws - lens.raw_centre) / lens.raw_half_range
    scale = lens["breathing1"] * e + lens["breathing2"] * e * e
    by = np.zeros((len(e), len(PARAMETERS)))
    by[:, PARAMETERS.index("breathing1")], by[:, PARAMETERS.index("breathing2")] = e, e * e
    sigma = np.sqrt(np.einsum("ni,ij,nj->n", by, lens.covariance, by).clip(0))
    axes.plot(raws, 100 * scale)
    axes.fill_between(raws, 100 * (scale - sigma), 100 * (scale + sigma), alpha=0.2)
    axes.set(title="Breathing", xlabel=lens.unit, ylabel="image scale [%], one sigma")


def _coverage(axes: Axes, lens: LensCalibration, fit: LensFit, board: Board) -> None:
    high, wide = board.size_m
    outline = np.array([(0, 0), (wide, 0), (wide, high), (0, high), (0, 0)])
    fx = math.exp(fit.lens[INDEX["log_fx"]])
    for i, pose in enumerate(fit.poses):
        point = rotated(np.tile(pose[:3], (5, 1)), outline) + pose[3:]
        u, v = (fx * point[:, k] / point[:, 2] + lens[name] for k, name in ((0, "cx_px"), (1, "cy_px")))
        axes.plot(u, v, f"C{i % 10}", label=f"{point[:4, 2].min():.2f} to {point[:4, 2].max():.2f} m")
    axes.plot(fit.measured[:, 1], fit.measured[:, 2], "k.", markersize=1)
    height, width = lens.size
    axes.set(title="Poses of the board, corners used", xlim=(0, width - 1), ylim=(height - 1, 0), aspect="equal")
    axes.legend(fontsize="small")


def _steps(axes: Axes, response: Response) -> None:
    since, share = np.array([(image.since_s, image.share) for image in response.images]).T
    axes.plot(since, share, ".", markersize=3, alpha=0.5, label=f"images of {response.steps} steps")
    axes.axvline(response.latency_s, color="C1", label=f"latency {response.latency_s:.3f} s")
    axes.axvline(response.settle_s, color="C2", label=f"settled {response.settle_s:.3f} s")
    reach = max(2.5 * response.settle_s, 0.1)
    axes.set(title="Step response", xlabel="exposure after the command [s]", ylabel="share of the step")
    axes.set(xlim=(min(float(since.min()), 0.0) - 0.01, reach), ylim=(-0.4, 1.4))
    axes.legend(fontsize="small")


def _page(lens: LensCalibration, fit: LensFit, picture: bytes) -> str:
    rows = []
    for name in PARAMETERS:
        left_open = name in lens.undetermined
        kind, note = (' class="open"', "not determined, left near its prior") if left_open else ("", "")
        rows.append(
            f"<tr{kind}><td>{name}</td><td>{lens[name]:.5g}</td><td>{lens.sigma(name):.2g}</td><td>{note}</td></tr>"
        )
    rows += [
        f"<tr><td>{name}</td><td>{value:.3g}</td><td>{sigma:.2g}</td><td>{of}</td></tr>"
        for name, of, value, sigma in fit.processing
    ]
    near, far = fit.distances_m
    title = html.escape(f"Lens calibration {lens.note}".strip())
    low, high = (lens.raw_centre + side * lens.raw_half_range for side in (-1, 1))
    measured = "not measured" if math.isnan(lens.settle_s) else f"{lens.settle_s:g} s, latency {lens.latency_s:g} s"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"</head><body><h1>{title}</h1><p>{fit.images} images of {lens.size[1]} x {lens.size[0]} pixels, "
        f"{len(fit.poses)} poses of the board at {near:.2f} to {far:.2f} m; {html.escape(lens.unit)} {low:g} to "
        f"{high:g}; settling time: {measured}.</p>"
        f'<img alt="figures" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        f"<table><tr><th>parameter</th><th>value</th><th>sigma</th><th></th></tr>{''.join(rows)}</table>"
        "</body></html>"
    )

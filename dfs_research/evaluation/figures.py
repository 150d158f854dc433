"""Pictures and plots of a report: depth, error, sigma, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dfs_research.evaluation.methods import Prediction
from dfs_research.evaluation.rendered import RenderedStack
from dfs_research.evaluation.uncertainty import CALIBRATION_LEVELS, REMOVED, Sparsification
from dfs_ros.io.pictures import depth_range, metre_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL_IN = 2.6  # width of a picture on the page
_DPI = 100
_MOST_ERROR = 0.2


def comparison(rendered: RenderedStack, predictions: Mapping[str, Prediction]) -> Figure:
    """Methods side by side on one stack: depth, relative error, relative sigma.

    The first column has the nearest image, the sharp photo and the true depth. All depths share one scale, as do all
    errors.
    """
    figure = new_figure(_PANEL_IN * (1 + len(predictions)), 3.0 * _panel_height(rendered.depth_m.shape))
    panels = figure.subplots(3, 1 + len(predictions), squeeze=False)
    low, high = depth_range(rendered.depth_m)
    nearest = rendered.stack.images[int(np.argmax(rendered.stack.focus_diopters))]
    show_image(panels[0, 0], nearest, f"image focused at {1.0 / rendered.stack.focus_diopters.max():.2g} m")
    show_image(panels[1, 0], rendered.sharp, "without blur")
    show_depth(panels[2, 0], rendered.depth_m, low, high, "true depth")
    for column, (name, prediction) in zip(panels.T[1:], predictions.items(), strict=True):
        show_depth(column[0], prediction.depth_m, low, high, name)
        error = np.abs(prediction.depth_m - rendered.depth_m) / rendered.depth_m
        mean = float(np.nanmean(error)) if np.isfinite(error).any() else float("nan")
        show_share(column[1], error, _MOST_ERROR, f"relative error, mean {mean:.3f}")
        if prediction.sigma_m is None:
            column[2].axis("off")
            column[2].text(0.5, 0.5, "no sigma", ha="center", va="center", transform=column[2].transAxes)
        else:
            show_share(column[2], prediction.sigma_m / prediction.depth_m, _MOST_ERROR, "sigma / depth")
    figure.suptitle(f"camera {rendered.camera_name}, {rendered.name}")
    return figure


def sparsification_plot(curves: Mapping[str, Sparsification]) -> Figure:
    """Sparsification curves of every method with sigma, beside the oracle's."""
    figure = new_figure(6.0, 4.2)
    axes = figure.subplots()
    for name, curve in curves.items():
        (line,) = axes.plot(100 * REMOVED, curve.by_sigma, label=f"{name}, AUSE {curve.area:.3f}")
        axes.plot(100 * REMOVED, curve.oracle, "--", color=line.get_color(), linewidth=1)
    axes.set(xlabel="pixels taken away, least sure first [%] (dashed: worst first)", ylim=(0, None), xlim=(0, 95))
    axes.set_ylabel("mean relative error of the rest / of all")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def calibration_plot(curves: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Calibration curves: share of errors within the intervals of a Gaussian sigma."""
    figure = new_figure(4.8, 4.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="as promised")
    for name, held in curves.items():
        axes.plot(CALIBRATION_LEVELS, held, label=name)
    axes.axvline(0.683, color="0.8", linewidth=1)
    axes.set(xlabel="share promised (0.683: one sigma)", ylabel="share of errors within", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def bar_plot(values: Mapping[str, Mapping[str, float]], ylabel: str) -> Figure:
    """Bar plot: a group for each outer key, a bar for each method (inner key)."""
    figure = new_figure(7.5, 3.8)
    axes = figure.subplots()
    names = list(dict.fromkeys(name for group in values.values() for name in group))
    width = 0.8 / max(1, len(names))
    for i, name in enumerate(names):
        heights = [group.get(name, np.nan) for group in values.values()]
        axes.bar(np.arange(len(values)) + (i - (len(names) - 1) / 2) * width, heights, width, label=name)
    axes.set_xticks(np.arange(len(values)), list(values))
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize="small", ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))  # clear of the bars
    return figure


def new_figure(width_in: float, height_in: float) -> Figure:
    """Figure without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def show_image(axes: Axes, image: NDArray[np.uint8], title: str) -> None:
    """Show an image without axes."""
    axes.imshow(image, cmap="gray" if image.ndim == 2 else None)
    axes.set_title(title, fontsize="small")
    axes.axis("off")


def show_depth(axes: Axes, depth_m: NDArray[np.floating], low_m: float, high_m: float, title: str) -> None:
    """Show depth, coloured by inverse depth, with a scale in metres; grey is unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(depth_m > 0, 1.0 / depth_m, np.nan)
    ticks = metre_ticks(low_m, high_m, 200.0, 30.0)
    bar = _show(axes, inverse, "turbo", 1.0 / high_m, 1.0 / low_m, title)
    bar.set_ticks([1.0 / tick for tick in ticks], labels=[f"{tick:.3g} m" for tick in ticks])


def show_share(axes: Axes, values: NDArray[np.floating], most: float, title: str) -> None:
    """Show a share, with a scale from 0 to `most` in percent; grey is unknown."""
    bar = _show(axes, values, "magma", 0.0, most, title)
    ticks = np.linspace(0.0, most, 5)
    bar.set_ticks(list(ticks), labels=[f"{100 * tick:.3g} %" for tick in ticks])


def _show(axes: Axes, values: NDArray[np.floating], colours: str, low: float, high: float, title: str) -> Any:
    from matplotlib import colormaps

    colour_map = colormaps[colours].with_extremes(bad="0.75")
    shown = axes.imshow(np.ma.masked_invalid(values), cmap=colour_map, vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, fontsize="small")
    axes.axis("off")
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=6)
    return bar


def _panel_height(size: Sequence[int]) -> float:
    return _PANEL_IN * 0.8 * size[0] / size[1] + 0.35

"""Picture of a check: the board, its depth less its plane in millimetres, and the error in standard deviations."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.lens.model import Array

_SHOWN_SIGMAS = 4.0


def check_picture(
    image: NDArray[np.uint8],
    depth_m: NDArray[np.floating],
    sigma_m: NDArray[np.floating],
    plane_m: Array,
    inside: NDArray[np.bool_],
) -> bytes:
    """PNG of three figures, for an image (H, W, 3) or (H, W) and maps (H, W) of its view; `inside`: the board."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    shown, error, pulls = figure.subplots(1, 3)
    shown.imshow(image, cmap="gray")
    shown.contour(inside, [0.5], colors="tab:orange")
    shown.set_title("board")
    error_mm = np.where(inside, 1e3 * (depth_m - plane_m), np.nan)
    known = np.isfinite(error_mm) & np.isfinite(sigma_m)
    limit = float(np.percentile(np.abs(error_mm[known]), 98)) if known.any() else 1.0
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    drawn = error.imshow(error_mm[part], cmap="RdBu", vmin=-limit, vmax=limit)
    figure.colorbar(drawn, ax=error)
    error.set_title("depth less the board's plane [mm]")
    for axes in (shown, error):
        axes.set_xticks([])
        axes.set_yticks([])
    ends = np.linspace(-_SHOWN_SIGMAS, _SHOWN_SIGMAS, 41)
    within = np.clip(1e-3 * error_mm[known] / np.maximum(sigma_m[known], 1e-9), ends[0], ends[-1])
    if known.any():
        pulls.hist(within, ends, density=True, color="tab:blue")
    pulls.plot(ends, np.exp(-(ends**2) / 2) / np.sqrt(2 * np.pi), color="tab:orange")
    pulls.set_title("error in standard deviations, and a normal law")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return file.getvalue()

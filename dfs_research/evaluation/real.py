"""Evaluation on real stacks: pictures, and scores against a reference depth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_research.evaluation import figures
from dfs_research.evaluation.methods import CLASSICAL_METHODS, RAW_METHODS
from dfs_ros.alignment.align import align
from dfs_ros.config import Config
from dfs_ros.depth.scene_range import hypotheses_for
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.io.markdown import markdown_table
from dfs_ros.io.pictures import depth_range
from dfs_ros.scoring.difference import against_reference
from dfs_ros.types import FocalStack, reduced

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class RealResult:
    """Result of one method on a real stack.

    `depth_m` float32 (H, W), NaN = unknown; `seconds` includes alignment.
    """

    method: str
    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32] | None
    all_in_focus: NDArray[np.uint8] | None
    seconds: float


def estimate_stack(stack: FocalStack, methods: Sequence[str], config: Config) -> list[RealResult]:
    """Estimate depth of a camera's stack by every method, with alignment.

    Unknown depth is NaN. `methods`: laplacian, ring, none or light networks. Raises ValueError for a raw argmin, which
    does not work on real stacks, and FileNotFoundError for an unknown network.
    """
    raw = [name for name in methods if name in RAW_METHODS]
    if raw:
        raise ValueError(
            f"methods: {', '.join(raw)} cannot be used on real stacks; use none, a network, laplacian or ring"
        )
    return [_classical(stack, n, config) if n in CLASSICAL_METHODS else _estimated(stack, n, config) for n in methods]


def reference_rows(
    stack_name: str, results: Sequence[RealResult], reference_m: NDArray[np.floating] | None
) -> list[dict[str, object]]:
    """Rows of a table, one for each method: coverage and errors against the reference.

    Without a reference the errors are left out.
    """
    rows: list[dict[str, object]] = []
    for result in results:
        row: dict[str, object] = {"stack": stack_name, "method": result.method, "seconds": result.seconds}
        row["share_with_depth"] = float(np.isfinite(result.depth_m).mean())
        if reference_m is not None:
            row |= against_reference(result.depth_m, reference_m)
        rows.append(row)
    return rows


def reference_table(rows: Sequence[dict[str, object]]) -> str:
    """Markdown table of the rows."""
    columns = {
        "share_with_depth": "share with depth",
        "median_abs_rel": "median difference to the reference",
        "abs_rel": "mean difference",
        "coverage": "share of the reference with depth",
        "seconds": "time [s]",
    }
    cells = ([row["stack"], row["method"], *(row.get(key, "-") for key in columns)] for row in rows)
    return markdown_table(["stack", "method", *columns.values()], cells) + "\n"


def stack_picture(stack: FocalStack, results: Sequence[RealResult], title: str) -> Figure:
    """Figure: all-in-focus image, then depth and sigma of every method, on one scale."""
    sharp = next((r.all_in_focus for r in results if r.all_in_focus is not None), stack.images[len(stack) // 2])
    measured = [r.depth_m for r in results if r.sigma_m is not None] or [results[0].depth_m]
    low, high = depth_range(np.concatenate([depth.ravel() for depth in measured]))
    panels = 1 + sum(1 + (r.sigma_m is not None) for r in results)
    height, width = stack.size
    columns = panels if height > width else min(panels, 3)
    rows = -(-panels // columns)
    figure = figures.new_figure(3.6 * columns, (3.0 * height / width + 0.3) * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    figures.show_image(axes[0], sharp, "all in focus")
    used = 1
    for result in results:
        figures.show_depth(axes[used], result.depth_m, low, high, result.method)
        used += 1
        if result.sigma_m is not None:
            share = result.sigma_m / result.depth_m
            figures.show_share(axes[used], share, 0.2, f"{result.method}: sigma / depth")
            used += 1
    for unused in axes[used:]:
        unused.axis("off")
    figure.suptitle(title)
    return figure


def _estimated(stack: FocalStack, name: str, config: Config) -> RealResult:
    estimator = DepthEstimator(config.updated({"network": {"name": name}}))
    started = time.perf_counter()
    result = estimator.estimate(stack)
    return RealResult(name, result.depth_m, result.sigma_m, result.all_in_focus, time.perf_counter() - started)


def _classical(stack: FocalStack, name: str, config: Config) -> RealResult:
    started = time.perf_counter()
    aligned = align(reduced(stack, config.processing.max_megapixels), config.alignment)
    depths_m = hypotheses_for(stack, config)
    depth_m = CLASSICAL_METHODS[name](aligned.stack, float(depths_m.min()), float(depths_m.max()))
    depth_m = np.where(aligned.valid, depth_m, np.float32(np.nan))
    size = (stack.size[1], stack.size[0])
    enlarged = np.asarray(cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST), np.float32)
    return RealResult(name, enlarged, None, None, time.perf_counter() - started)

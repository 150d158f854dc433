"""Files of an estimate: depth, sigma, pictures, point cloud, report; all or none.

==================== ==========================================================================================
depth.npy            float32 (H, W), metres, NaN where unknown
sigma.npy            float32 (H, W), metres, one standard deviation
depth.png            depth in colour with a scale in metres, no finer than its noise; hatched where unknown
sigma.png            sigma in colour with a logarithmic scale
depth_mm.png         uint16 (H, W), millimetres, 0 where unknown or beyond 65.5 m
points.ply           binary point cloud in the optical frame (x right, y down, z forward, metres) with colours
all_in_focus.png     RGB
report.json          report as in docs/formats.md; written last, so it marks a complete set
==================== ==========================================================================================
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfs_ros.io.images import write_png
from dfs_ros.io.pictures import depth_picture, sigma_picture
from dfs_ros.io.report import report_of
from dfs_ros.io.strict_json import json_text
from dfs_ros.optics.pinhole import intrinsics, points_from_depth
from dfs_ros.system.atomic import staged
from dfs_ros.system.cache import save_array
from dfs_ros.types import DepthResult

REPORT_FILE = "report.json"


def write_result(
    result: DepthResult,
    folder: str | Path,
    *,
    dense: bool = False,
    min_m: float | None = None,
    max_m: float | None = None,
    title: str = "Depth",
) -> Path:
    """Write the files of the module's list to `folder`, replacing an earlier result.

    Parameters
    ----------
    dense
        The result must have depth at every pixel.
    min_m, max_m
        Range of the colours of depth.png; None = that of the depths.

    Returns
    -------
    The folder, created if missing. Raises ValueError if it cannot be written (call :func:`prepare_output` before long
    work) or if the result contradicts itself. After an interruption or a failure no file is half-written.
    """
    depth = np.ascontiguousarray(result.depth_m, np.float32)
    sigma = np.ascontiguousarray(result.sigma_m, np.float32)
    noise = sigma if result.local_sigma_m is None else result.local_sigma_m  # the lens' doubt is no relief
    _check(result, dense)
    millimetres, out_of_range = depth_millimetres(depth)
    points = points_from_depth(depth, intrinsics(result.camera, depth.shape))
    with staged(folder, last=REPORT_FILE) as staging:
        save_array(staging / "depth.npy", depth)
        save_array(staging / "sigma.npy", sigma)
        write_png(staging / "depth.png", depth_picture(depth, title, min_m, max_m, noise))
        write_png(staging / "sigma.png", sigma_picture(sigma, f"{title}: standard deviation"))
        write_png(staging / "depth_mm.png", millimetres)
        write_png(staging / "all_in_focus.png", result.all_in_focus)
        write_ply(staging / "points.ply", points, result.all_in_focus)
        report = report_of(result, out_of_range)
        (staging / REPORT_FILE).write_text(json_text(report, indent=2) + "\n", encoding="utf-8")
    return Path(folder)


def depth_millimetres(depth_m: NDArray[np.float32]) -> tuple[NDArray[np.uint16], int]:
    """Depth as uint16 millimetres, 0 = unknown (REP 118), and number of unfitting pixels."""
    known = np.isfinite(depth_m) & (depth_m > 0)
    millimetres = np.rint(np.where(known, depth_m, 0).astype(np.float64) * 1000)
    fits = (millimetres >= 1) & (millimetres <= 65535)
    return np.where(fits, millimetres, 0).astype(np.uint16), int((known & ~fits).sum())


def write_ply(path: Path, points_m: NDArray[np.float32], rgb: NDArray[np.uint8]) -> int:
    """Write coloured points as binary little-endian PLY; return their number.

    Points (..., 3) in metres, colours (..., 3); points with NaN are left out.
    """
    if points_m.shape != rgb.shape or points_m.shape[-1:] != (3,):
        raise ValueError(
            f"expected points and colours of one shape (..., 3), received {points_m.shape} and {rgb.shape}"
        )
    points, colours = points_m.reshape(-1, 3), rgb.reshape(-1, 3)
    valid = np.isfinite(points).all(axis=1)
    vertices = np.empty(int(valid.sum()), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices["xyz"], vertices["rgb"] = points[valid], colours[valid]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment metres; optical frame: x right, y down, z forward",
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
        "end_header",
    ]
    path.write_bytes("\n".join(header).encode() + b"\n" + vertices.tobytes())
    return len(vertices)


def _check(result: DepthResult, dense: bool) -> None:
    shape = result.depth_m.shape
    if len(shape) != 2 or result.sigma_m.shape != shape or result.all_in_focus.shape != (*shape, 3):
        raise ValueError(
            "result: expected depth and sigma of one shape (H, W) and all_in_focus (H, W, 3), "
            f"received {shape}, {result.sigma_m.shape} and {result.all_in_focus.shape}"
        )
    missing = int((~np.isfinite(result.depth_m)).sum())
    if dense and missing:
        raise ValueError(
            f"result: expected depth at every pixel (dense), received {missing} without; "
            "estimate with confidence.dense = true"
        )

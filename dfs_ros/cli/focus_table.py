"""Calibrate the focus of a V4L2 lens: one point of the table from focus_absolute to dioptres.

    dfs focus-table /dev/video0 --distance 0.25 --output lens.yaml
    dfs focus-table /dev/video0 --distance 0.5 --output lens.yaml      next distance; four or five suffice

Place a flat target with fine texture (print, cloth) upright before the lens so that it fills the middle of the image,
static and well lit, and measure its distance to the lens. The command sweeps the lens over its range, finds the
sharpest position and adds it to the file (lens-table/1), the input of `dfs camera --source v4l2 --calibration
lens.yaml`. For infinity, point the camera at something far away and give --distance inf.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dfs_ros.cli.participants import size_argument
from dfs_ros.config import CameraConfig, V4l2Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="device file of the camera, such as /dev/video0")
    parser.add_argument(
        "--distance", metavar="M", type=float, required=True, help="distance from target to lens [m], or inf"
    )
    parser.add_argument(
        "--output", metavar="FILE", required=True, help="lens table; the point is added to an existing one"
    )
    parser.add_argument(
        "--size", metavar="WxH", type=size_argument, default=(640, 480), help="image size (default: 640x480)"
    )
    parser.add_argument(
        "--pixel-format",
        metavar="CODE",
        default=V4l2Config.pixel_format,
        help="pixel format asked of the camera (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        metavar="HZ",
        type=float,
        default=CameraConfig.rate_hz,
        help="frame rate asked of the camera (default: %(default)g)",
    )
    parser.add_argument(
        "--settle",
        metavar="S",
        type=float,
        default=0.4,
        help="settling time of the lens after a command [s] (default: %(default)g)",
    )
    parser.add_argument(
        "--positions", metavar="N", type=int, default=26, help="lens positions tried per sweep (default: %(default)s)"
    )
    parser.add_argument("--repeats", metavar="N", type=int, default=3, help="number of sweeps (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    if not args.distance > 0:
        raise ValueError(f"--distance: expected metres over 0, or inf, received {args.distance:g}")
    for name, low in (("positions", 5), ("repeats", 1)):
        if getattr(args, name) < low:
            raise ValueError(f"--{name}: expected {low} or more, received {getattr(args, name)}")
    document = _document(Path(args.output))

    from tqdm import tqdm

    from dfs_ros.camera.sharpest import sharpest_position, spread
    from dfs_ros.camera.v4l2.scan import scan

    total = args.repeats * args.positions
    with tqdm(total=total, desc="sweeping the lens", leave=False, disable=None) as bar:

        def advance() -> None:
            bar.update(1)

        positions, step, rounds = scan(
            args.device,
            (args.size[1], args.size[0]),
            args.pixel_format,
            args.rate,
            settle_s=args.settle,
            count=args.positions,
            repeats=args.repeats,
            progress=advance,
        )
    peaks = [sharpest_position(np.array(positions, float), np.array(values)) for values in rounds]
    raw, sigma_raw = float(np.mean(peaks)), spread(peaks, step)
    focus = 0.0 if math.isinf(args.distance) else 1.0 / args.distance
    points = add_point(document, raw, focus, sigma_raw)
    from dfs_ros.system.atomic import write_atomically

    write_atomically(Path(args.output), yaml.safe_dump(document, sort_keys=False).encode())
    of = f"{points} points" if points > 1 else "the first point; one more at least, at another distance, makes a table"
    print(f"{args.output}: sharpest at {raw:.1f} +- {sigma_raw:.1f}: {focus:.3g} dioptres; {of}")
    return 0


def add_point(document: dict[str, Any], raw: float, focus_diopters: float, sigma_raw: float) -> int:
    """Add a point to a lens table, replacing one at the same focus; return their number.

    Raises ValueError if the table is then invalid. The point gets a standard deviation only beside another point, which
    gives the dioptres of a step.
    """
    from dfs_ros.lens.table import LensTable

    others = [p for p in document["points"] if abs(float(p["focus_diopters"]) - focus_diopters) > 1e-6]
    point: dict[str, Any] = {"raw": round(raw, 2), "focus_diopters": round(focus_diopters, 5)}
    if others:
        nearest = min(others, key=lambda p: abs(float(p["raw"]) - raw))
        steps = abs(float(nearest["raw"]) - raw)
        if steps > 0:
            slope = abs(float(nearest["focus_diopters"]) - focus_diopters) / steps
            point["sigma_diopters"] = round(max(sigma_raw * slope, 1e-4), 5)
    points = sorted([*others, point], key=lambda p: float(p["raw"]))
    if len(points) > 1:
        LensTable.from_document({**document, "points": points})
    document["points"] = points
    return len(points)


def _document(path: Path) -> dict[str, Any]:
    """Existing lens table, which may have one point, or an empty one."""
    from dfs_ros.lens.table import FORMAT, read_document

    if not path.exists():
        return {"format": FORMAT, "unit": "focus_absolute", "points": []}
    return read_document(path)

"""Picture of the maps that `python -m benchmarks.slam` has made: each from above and from the front, with the way.

python -m benchmarks.slam_picture DIR true images --output docs/images/slam.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from PIL import Image

from benchmarks.slam_room import room
from dfs_ros.simulation.surfaces import Cylinder, Rectangle, Sphere

_TITLES = {
    "true": "true depth",
    "tf": "our depth, poses of tf",
    "images": "our depth, motion by the images",
    "guess": "our depth and our velocity",
}
_WIDTH_M, _DEPTH_M, _HEIGHT_M = (-2.1, 2.3), (0.2, 3.3), (1.0, -1.6)
_COLORS = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the maps of some runs; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slam_picture", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the maps")
    parser.add_argument("runs", metavar="RUN", nargs="+", choices=list(_TITLES), help="true, tf, images, guess")
    parser.add_argument("--engine", choices=("rtabmap", "pnp"), default="rtabmap")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="PNG")
    args = parser.parse_args(argv)
    figure, axes = pyplot.subplots(2, len(args.runs), figsize=(4.4 * len(args.runs), 6.2), squeeze=False)
    for column, run in zip(axes.T, args.runs, strict=True):
        with np.load(args.folder / f"map_{args.engine}_{run}.npz", allow_pickle=False) as found:
            _draw(column, dict(found))
        column[0].set_title(_TITLES[run])
    figure.tight_layout()
    figure.savefig(args.output, dpi=90)
    pyplot.close(figure)
    Image.open(args.output).convert("RGB").quantize(_COLORS).save(args.output, optimize=True)
    return 0


def _draw(column: Any, found: dict[str, np.ndarray]) -> None:
    points, colours = found["points"], found["colours"] / 255.0
    above, front = column
    order = np.argsort(-points[:, 1])  # the highest on top; y points down
    above.scatter(points[order, 0], points[order, 2], s=0.3, c=colours[order], linewidths=0)
    order = np.argsort(-points[:, 2])
    front.scatter(points[order, 0], points[order, 1], s=0.3, c=colours[order], linewidths=0)
    for surface in room():
        for view, axis in ((above, 2), (front, 1)):
            outline = _outline(surface)
            view.plot(outline[:, 0], outline[:, axis], color="tab:red", linewidth=0.4)
    for view, axis in ((above, 2), (front, 1)):
        view.plot(found["true"][:, 0], found["true"][:, axis], color="black", linewidth=2.5, label="true way")
        view.plot(found["places"][:, 0], found["places"][:, axis], color="deepskyblue", linewidth=1, label="found")
        view.set_aspect("equal")
        view.set_xlim(*_WIDTH_M)
        view.set_xlabel("x [m]")
    above.set_ylim(*_DEPTH_M)
    above.set_ylabel("z [m]")
    front.set_ylim(*_HEIGHT_M)
    front.set_ylabel("y [m]")
    above.legend(loc="lower left", fontsize=7)


def _outline(surface: Rectangle | Sphere | Cylinder) -> np.ndarray:
    """Closed line (N, 3) around a surface, in metres."""
    centre = np.asarray(surface.centre)
    if isinstance(surface, Rectangle):
        right, down = np.asarray(surface.right), np.asarray(surface.down)
        return np.array([centre + a * right + b * down for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))])
    angle = np.linspace(0, 2 * np.pi, 33)
    height = 0.5 * surface.height_m if isinstance(surface, Cylinder) else surface.radius_m
    radius = surface.radius_m
    return centre + np.stack([radius * np.cos(angle), height * np.sin(angle), radius * np.sin(angle)], axis=-1)


if __name__ == "__main__":
    sys.exit(main())

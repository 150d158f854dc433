"""Calibrate a lens from images of a board at many focus positions.

    dfs calibrate board --output board.pdf
    dfs calibrate lens FOLDER --csv FOLDER/positions.csv --output lens.yaml

The CSV file has the columns `file` and `raw_position` (what the driver calls the lens position), and optionally
`stamp_ns` and `sweep`. Sweep the lens over its range, in 8 positions or more, best up and down, while camera and board
stand still; then move the board. Three sweeps suffice: near, in the middle and far, each time tilted by 20 to 30
degrees another way. What the images do not determine is named, and left at what lenses are like.

Found are intrinsics, distortion and their change with focus, the focus in dioptres of every raw position, the focal
surface over the field, aperture, vignetting and softness, each with its standard deviation (lens-calibration/1).
`dfs calibrate check` then compares the depth of a board with its pose.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_ros.cli.calibrate_board import add_board_argument
from dfs_ros.config import LimitsConfig

if TYPE_CHECKING:
    from dfs_ros.calibration.lens.fit import LensFit
    from dfs_ros.lens.calibration import LensCalibration

_NEAR_M, _FAR_RATIO = 0.3, 1.8
_HINTS = {
    "aperture_m": "show the board at another distance",
    "focus0": "show the board at another distance",
    "focus1": "show the board at another distance",
    "focus2": "show the board nearer and farther",
    "hysteresis": "sweep the lens downwards, too",
    "curvature": "show the board also in the corners of the image, tilted",
    "tilt_x": "tilt the board another way at another distance",
    "tilt_y": "tilt the board another way at another distance",
    "vignetting": "show the board also in the corners of the image",
    "fx_px": "tilt the board more",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="folder of the images")
    parser.add_argument("--csv", metavar="FILE", required=True, help="table of the lens position of each image")
    parser.add_argument("--output", metavar="FILE", required=True, help="calibration to write")
    add_board_argument(parser)
    parser.add_argument(
        "--unit",
        metavar="UNIT",
        default="raw",
        help="unit of the lens positions, such as focus_absolute (default: %(default)s)",
    )
    parser.add_argument("--note", metavar="TEXT", default="", help="text for the file")
    parser.add_argument("--report", metavar="DIR", help="folder for a report with figures, report.html and report.png")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--max-input-megapixels",
        metavar="MPX",
        type=float,
        default=LimitsConfig.image_megapixels,
        help="maximum size of an image; larger ones are refused (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dfs_ros.calibration.board import Board
    from dfs_ros.calibration.lens.folder import calibrate_folder
    from dfs_ros.system.atomic import write_atomically

    board = Board.parse(args.board)
    with tqdm(total=100, leave=False, unit="%", disable=None) as bar:

        def progress(stage: str, share: float) -> None:
            bar.set_description(stage)
            bar.update(round(100 * share) - bar.n)

        calibration, fit = calibrate_folder(
            Path(args.folder), Path(args.csv), board, args.unit, args.note, args.max_input_megapixels, progress
        )
    write_atomically(Path(args.output), calibration.yaml())
    if args.report:
        from dfs_ros.calibration.lens.report import write_report

        write_report(Path(args.report), calibration, fit, board)
    if args.json:
        print(json.dumps(calibration.document()))
    else:
        print("\n".join(_summary(calibration, fit, args.output)))
    return 0


def _summary(calibration: LensCalibration, fit: LensFit, output: str) -> list[str]:
    low, high = (calibration.raw_centre + side * calibration.raw_half_range for side in (-1, 1))
    near, far = fit.distances_m
    lines = [
        f"{fit.images} images, {len(fit.poses)} poses of the board, corners from {near:.2f} to {far:.2f} m",
        f"{calibration.unit:<16} focus [dioptres]",
    ]
    for i in range(5):
        raw = low + (high - low) * i / 4
        focus, sigma = calibration.focus_of(raw)
        lines.append(f"{raw:<16.4g} {'beyond infinity' if focus != focus else f'{focus:.3f} +- {sigma:.3f}'}")
    for name, unit, factor in (
        ("fx_px", "px", 1.0),
        ("aperture_m", "mm", 1e3),
        ("curvature", "dioptres in the corner", 1.0),
        ("vignetting", "of the aperture in the corner", 1.0),
    ):
        value, sigma = factor * calibration[name], factor * calibration.sigma(name)
        lines.append(f"{name.removesuffix('_px').removesuffix('_m'):<16} {value:.4g} +- {sigma:.2g} {unit}")
    for name in calibration.undetermined:
        hint = _HINTS.get(name)
        lines.append(f"not determined: {name}" + (f" ({hint})" if hint else ""))
    if near > _NEAR_M:
        lines.append(f"nothing nearer than {_NEAR_M:g} m yet: a sweep of a nearer board helps")
    if far < _FAR_RATIO * near:
        lines.append("all at much the same distance: a sweep at another distance helps most")
    lines.append(f"{output}: next: dfs import FOLDER --csv FILE --calibration {output}")
    return lines

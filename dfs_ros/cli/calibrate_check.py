"""Check a calibrated lens: depth of a board against its pose, in millimetres and in standard deviations.

    dfs calibrate check STACK --calibration lens.yaml
    dfs calibrate check FOLDER --csv FOLDER/positions.csv --calibration lens.yaml

Show the board, wholly seen and tilted a little, at a distance that the calibration has not seen, and sweep the focus
across it. The stack is one that `dfs import --calibration` or the depth node's ~/capture made with this calibration;
with --csv, a folder of images as `dfs import` takes it. Depth is estimated from the blur by the settings in use, the
pose from the board's geometry alone; the focal length scales both, and its doubt is no difference of them.

The check passes, exit status 0, if the median error is within the tolerance and within two standard deviations;
otherwise the exit status is 1. --picture draws the board, its errors in millimetres and in standard deviations.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_ros.cli.calibrate_board import add_board_argument
from dfs_ros.cli.common import add_config_arguments, config_from_arguments

if TYPE_CHECKING:
    from dfs_ros.calibration.lens.check import BoardView, CheckResult

_TOLERANCE = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stack", metavar="STACK", help="folder of the stack; with --csv, of images")
    parser.add_argument("--calibration", metavar="FILE", required=True, help="calibration of `dfs calibrate lens`")
    parser.add_argument("--csv", metavar="FILE", help="table of the lens position of each image")
    parser.add_argument(
        "--tolerance",
        metavar="SHARE",
        type=float,
        default=_TOLERANCE,
        help="largest median error, as a share of the distance (default: %(default)g)",
    )
    parser.add_argument("--picture", metavar="FILE", help="PNG file for the board and its errors")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_board_argument(parser, "the one of the calibration")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = config_from_arguments(args)
    if not 0 < args.tolerance < 1:
        raise ValueError(f"--tolerance: expected a share over 0 and below 1, received {args.tolerance:g}")

    from tqdm import tqdm

    from dfs_ros.calibration.board import Board
    from dfs_ros.calibration.lens.check import board_plane, check_depth, view_of
    from dfs_ros.calibration.lens.stack import beside_poses, calibrated_stack
    from dfs_ros.estimator.estimator import DepthEstimator
    from dfs_ros.lens.calibration import LensCalibration
    from dfs_ros.optics.pinhole import intrinsics

    lens = LensCalibration.load(args.calibration)
    board = Board.parse(args.board or lens.board or "charuco")
    estimator = DepthEstimator(config)
    with tqdm(total=100, leave=False, unit="%", disable=None) as bar:

        def progress(stage: str, share: float) -> None:
            bar.set_description(stage)
            bar.update(round(100 * share) - bar.n)

        csv = None if args.csv is None else Path(args.csv)
        stack, names = calibrated_stack(Path(args.stack), csv, lens, args.calibration, config)
        view = view_of(stack, names, lens, board)
        estimated = estimator.estimate(beside_poses(stack, lens), sharpen=False, progress=progress)
    pinhole = intrinsics(estimated.camera, stack.size)
    result = check_depth(estimated.depth_m, estimated.sigma_m, pinhole, lens, view, board, args.tolerance)
    if args.picture:
        from dfs_ros.calibration.lens.check_picture import check_picture
        from dfs_ros.system.atomic import write_atomically

        plane_m, inside = board_plane(stack.size, pinhole, lens, view, board)
        image = stack.images[len(stack) // 2]
        write_atomically(
            Path(args.picture), check_picture(image, estimated.depth_m, estimated.sigma_m, plane_m, inside)
        )
    if args.json:
        print(json.dumps(result.report()))
    else:
        print("\n".join(_lines(result, view, len(stack))))
        for warning in estimated.report["warnings"]:
            print(f"warning: {warning}")
    return 1 if result.fault else 0


def _lines(result: CheckResult, view: BoardView, images: int) -> list[str]:
    lines = [
        f"board in {view.images} of {images} images, its corners to {view.error_px:.2f} px",
        f"distance         {result.distance_m:.4f} m, by the pose of the board",
        f"with depth       {100 * result.share:.0f} % of the board's pixels",
    ]
    if result.known:
        lines += [
            f"median error     {1e3 * result.error_m:+.1f} mm ({100 * result.error_m / result.distance_m:+.2f} %), of "
            f"its size {1e3 * result.absolute_m:.1f} mm",
            f"in sigmas        {result.sigmas:+.2f}, {100 * result.within_one:.0f} % of the pixels within one",
        ]
        if result.slope == result.slope:
            lines.append(f"slope            {result.slope:.2f} of the board's")
    lines.append(f"FAIL: {result.fault}" if result.fault else f"PASS: within {100 * result.tolerance:g} % and 2 sigmas")
    return lines

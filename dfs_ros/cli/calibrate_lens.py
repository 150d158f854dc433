"""Calibrate a lens from images of a board at many focus positions.

    dfs calibrate board --output board.pdf
    dfs calibrate lens --source v4l2 /dev/video0 --output lens.yaml        webcam: sweeps its lens, says what to show
    dfs calibrate lens --source picamera2|oak --output lens.yaml           Raspberry Pi camera or OAK, likewise
    dfs calibrate lens --source topics --output lens.yaml --remap image:=/cam/image_raw --remap focus:=/cam/focus
    dfs calibrate lens --source bag BAG --output lens.yaml
    dfs calibrate lens FOLDER --csv FOLDER/positions.csv --output lens.yaml

From a camera: hold the board still until the command names the next pose, then move it. Ctrl-C ends the gathering, and
what is there is used; a later call with the same FOLDER adds to it. Topics: something else sweeps the lens up and down,
such as `ros2 run dfs_ros focus_sweeper`; with `ros2 run dfs_ros dfs calibrate lens` they are those of ROS 2.

The CSV file has the columns `file` and `raw_position` (what the driver calls the lens position), and optionally
`stamp_ns` and `sweep`. Sweep the lens over its range, in 8 positions or more, best up and down, while camera and board
stand still; then move the board. Three sweeps suffice: near, in the middle and far, each time tilted by 20 to 30
degrees another way. What the images do not determine is named, and left at what lenses are like.

Found are intrinsics, distortion and their change with focus, the focus in dioptres of every raw position, the focal
surface over the field, aperture, vignetting and softness, each with its standard deviation, latency and settling time
(lens-calibration/1). `dfs calibrate check` then compares the depth of a board with its pose.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_ros.cli.calibrate_board import add_board_argument
from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.participants import (
    SWEPT_CAMERAS,
    add_participant_arguments,
    participant,
    size_argument,
    swept_camera,
    swept_camera_settings,
)
from dfs_ros.cli.signals import interrupted_by_signals
from dfs_ros.config import CameraConfig, Config, LimitsConfig
from dfs_ros.transport.names import parse_remappings

if TYPE_CHECKING:
    from dfs_ros.calibration.board import Board
    from dfs_ros.calibration.lens.fit import LensFit
    from dfs_ros.calibration.lens.gathering import LensImage
    from dfs_ros.calibration.lens.response import Response
    from dfs_ros.camera.lens_camera import LensCamera
    from dfs_ros.lens.calibration import LensCalibration

_SETTLE_S = 0.4
_NOMINAL_FACTOR = 1.3  # by which nominal dioptres, good to tenths, are hardly off
_POSITIONS, _POSES = 13, 3
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
    "aberration": "sweep the lens well past the board on both sides",
    "fx_px": "tilt the board more",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        help="folder of the images; with --source, where they go (default: beside the output)",
    )
    parser.add_argument("--csv", metavar="FILE", help="table of the lens position of each image")
    parser.add_argument(
        "--source",
        metavar=("v4l2|picamera2|oak|topics|bag", "DEVICE|BAG"),
        nargs="+",
        help="camera: v4l2, picamera2 or oak [DEVICE], topics (of a camera that runs) or bag BAG",
    )
    parser.add_argument("--output", metavar="FILE", required=True, help="calibration to write")
    add_board_argument(parser)
    parser.add_argument(
        "--poses",
        metavar="N",
        type=int,
        default=_POSES,
        help="poses of the board, of a camera (default: %(default)s)",
    )
    parser.add_argument(
        "--positions",
        metavar="N",
        type=int,
        default=_POSITIONS,
        help="lens positions of a sweep of a camera, not of topics and bags (default: %(default)s)",
    )
    parser.add_argument(
        "--size", metavar="WxH", type=size_argument, default=(640, 480), help="image size of a camera (640x480)"
    )
    parser.add_argument(
        "--rate",
        metavar="HZ",
        type=float,
        default=CameraConfig.rate_hz,
        help="frame rate asked of a camera (default: %(default)g)",
    )
    parser.add_argument("--unit", metavar="UNIT", help="unit of the lens positions (default: the camera's, or raw)")
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
    add_participant_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if (args.source is None) == (args.csv is None) or (args.csv is not None and args.folder is None):
        raise ValueError("expected either FOLDER with --csv FILE, or --source v4l2|picamera2|oak|topics|bag")
    if args.poses < 1 or args.positions < 5:
        raise ValueError(
            f"expected --poses of 1 or more and --positions of 5 or more, received {args.poses} and {args.positions}"
        )
    config = config_from_arguments(args)

    from tqdm import tqdm

    from dfs_ros.calibration.board import Board
    from dfs_ros.calibration.lens.folder import calibrate_folder
    from dfs_ros.system.atomic import write_atomically

    board = Board.parse(args.board)
    if args.csv is None:
        folder, unit = _gathered(args, config, board)
        csv = folder / "positions.csv"
    else:
        folder, csv, unit = Path(args.folder), Path(args.csv), "raw"
    with tqdm(total=100, leave=False, unit="%", disable=None) as bar:

        def progress(stage: str, share: float) -> None:
            bar.set_description(stage)
            bar.update(round(100 * share) - bar.n)

        calibration, fit, response = calibrate_folder(
            folder, csv, board, args.unit or unit, args.note, args.max_input_megapixels, progress
        )
    write_atomically(Path(args.output), calibration.yaml())
    if args.report:
        from dfs_ros.calibration.lens.report import write_report

        write_report(Path(args.report), calibration, fit, board, response)
    if args.json:
        print(json.dumps(calibration.document()))
    else:
        print("\n".join(_summary(calibration, fit, response, args.output)))
    return 0


def _gathered(args: argparse.Namespace, config: Config, board: Board) -> tuple[Path, str]:
    """Gather images from the source; return their folder and the unit of the lens positions."""
    from dfs_ros.calibration.lens.gathering import Gathering, gather

    output = Path(args.output)
    folder = Path(args.folder) if args.folder else output.with_name(f"{output.stem}_images")
    gathering = Gathering(folder, board, args.poses, _tell)
    kind, *rest = args.source
    if not gathering.whole:
        _tell(f"{gathering.advice()}; Ctrl-C ends, and what is there is used")
    if kind in SWEPT_CAMERAS and len(rest) <= 1:
        with interrupted_by_signals(), closing(_swept_camera(args, config)) as camera:
            gather(_swept_images(camera, args, config), gathering)
            unit = camera.unit
    elif kind == "bag" and len(rest) == 1:
        from dfs_ros.calibration.lens.listening import bag_images

        units: list[str] = []
        with interrupted_by_signals():
            gather(bag_images(Path(rest[0]), config, parse_remappings(args.remap), units), gathering)
        unit = units[0] if units else "raw"
    elif kind == "topics" and not rest:
        from dfs_ros.calibration.lens.listening import NODE_NAME, LensListener, live_images

        with participant(args, NODE_NAME, config) as transport:
            listener = LensListener(transport)
            gather(live_images(transport, listener), gathering)
        unit = listener.unit
        if not gathering.poses:
            _tell(f"{listener.images} images and {listener.reports} lens positions came")
    else:
        raise ValueError(
            f"--source: expected v4l2, picamera2 or oak [DEVICE], topics or bag BAG, received {' '.join(args.source)!r}"
        )
    if not gathering.poses:
        raise ValueError(
            f"no pose of the board suffices: {gathering.advice()}, until its pose is told; the lens must sweep over "
            "five positions or more"
        )
    _tell(f"{folder}: images of {gathering.poses} poses, which later calls add to")
    return folder, unit


def _swept_camera(args: argparse.Namespace, config: Config) -> LensCamera:
    size = {"width": args.size[0], "height": args.size[1], "rate_hz": args.rate}
    return swept_camera(config.updated(swept_camera_settings(*args.source)).updated({"camera": size}))


def _swept_images(camera: LensCamera, args: argparse.Namespace, config: Config) -> Iterator[LensImage]:
    import cv2
    import numpy as np

    from dfs_ros.calibration.lens.gathering import LensImage
    from dfs_ros.camera.raw_sweep import RawSweep, both_ways

    settings = config.v4l2 if args.source[0] == "v4l2" else config.reporting
    swept = RawSweep(camera, settings.settle_s or _SETTLE_S, args.positions, both_ways)
    with closing(swept):
        for image, raw, start_ns, command_ns, moving, _ in swept.images():
            grey = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
            yield LensImage(grey, raw, start_ns, command_ns, moving)


def _tell(text: str) -> None:
    print(f"dfs calibrate lens: {text}", file=sys.stderr, flush=True)


def _summary(calibration: LensCalibration, fit: LensFit, response: Response | None, output: str) -> list[str]:
    from dfs_ros.calibration.lens.gathering import FAR_RATIO, NEAR_M

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
        ("aberration", "of the light of the blur, from its centre to its rim", 1.0),
    ):
        value, sigma = factor * calibration[name], factor * calibration.sigma(name)
        lines.append(f"{name.removesuffix('_px').removesuffix('_m'):<16} {value:.4g} +- {sigma:.2g} {unit}")
    for name, of, value, sigma in fit.processing:
        lines.append(f"{name:<16} {value:.3g} +- {sigma:.2g} {of}")
    if response is not None:
        lines.append(
            f"{'settling':<16} {response.settle_s:.3f} s after a command, latency {response.latency_s:.3f} s "
            f"({response.steps} steps)"
        )
    if calibration.unit == "LensPosition":
        lines += _against_nominal(calibration)
    for name in calibration.undetermined:
        hint = _HINTS.get(name)
        lines.append(f"not determined: {name}" + (f" ({hint})" if hint else ""))
    if near > NEAR_M:
        lines.append(f"nothing nearer than {NEAR_M:g} m yet: a sweep of a nearer board helps")
    if far < FAR_RATIO * near:
        lines.append("all at much the same distance: a sweep at another distance helps most")
    lines.append(f"{output}: next: dfs import FOLDER --csv FILE --calibration {output}")
    return lines


def _against_nominal(calibration: LensCalibration) -> list[str]:
    """Warning if the dioptres differ by a factor from libcamera's nominal ones, as those of a wrong square size do."""
    if "focus1" in calibration.undetermined:
        return []
    factor = calibration["focus1"] / calibration.raw_half_range
    if 1 / _NOMINAL_FACTOR < factor < _NOMINAL_FACTOR:
        return []
    return [
        f"warning: a dioptre of the camera measures {factor:.2f}: is square_m, as printed, right? (LensPosition of "
        "some modules is not in dioptres)"
    ]

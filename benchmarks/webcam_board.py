"""Calibration of a real webcam from one sweep over a tilted board, checked on images and corners that it has not seen.

    python -m benchmarks.webcam_board --data /data/calibration/webcam_charuco

The folder has images of a sweep of `focus_absolute` upwards, 10 + 5 i for image i. Every second image and half of the
board corners are fitted; the others make a focal stack, in which the depth of the board, estimated by the pipeline, is
compared with its pose. One pose alone leaves much of a lens open: this is named, and sigma must hold it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.check import check_depth, view_of
from dfs_ros.calibration.lens.fit import fit_lens
from dfs_ros.calibration.lens.folder import calibration_of
from dfs_ros.calibration.lens.stack import beside_poses, calibrated_stack
from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.io.images import ImageFile
from dfs_ros.optics.pinhole import intrinsics

BOARD = Board.parse("charuco,rows=8,columns=6,square_m=0.033,marker_m=0.023,legacy=true")
TOLERANCE = 0.08
WITHIN_ONE = (0.6, 0.8)


def raw_position(index: int) -> float:
    """`focus_absolute` of an image."""
    return 10.0 + 5.0 * index


def measured(folder: Path, csv: Path, config: Config) -> dict[str, Any]:
    """Calibrate with one half, and check with the other; `csv`: file to write for it."""
    files = sorted(folder.glob("image*.jpg"))
    if len(files) < 10:
        raise FileNotFoundError(f"{folder}: expected a sweep of image*.jpg, received {len(files)} images")
    fitted = []
    for path in files[::2]:
        with ImageFile(path) as file:
            fitted.append(file.pixels(colour=False))
    raws = [raw_position(i) for i in range(0, len(files), 2)]
    fit = fit_lens(
        fitted, [path.name for path in files[::2]], raws, [1] * len(raws), [0] * len(raws), BOARD,
        corners=range(0, len(BOARD.corners_m), 2),
    )  # fmt: skip
    lens = calibration_of(fit, BOARD, "focus_absolute")
    rows = [f"{path.name},{raw_position(i):g}" for i, path in enumerate(files) if i % 2]
    csv.write_text("file,raw_position\n" + "\n".join(rows) + "\n")
    stack, names = calibrated_stack(folder, csv, lens, "the calibration", config)
    view = view_of(stack, names, lens, BOARD)
    result = DepthEstimator(config).estimate(beside_poses(stack, lens), sharpen=False)
    pinhole = intrinsics(result.camera, stack.size)
    found = check_depth(result.depth_m, result.sigma_m, pinhole, lens, view, BOARD, TOLERANCE)
    positions = {raw: lens.focus_of(raw, 1) for raw in (100.0, 150.0, 200.0, 250.0)}
    return {
        **found.report(),
        "undetermined": list(lens.undetermined),
        "focus": {f"{raw:g}": [round(v, 3) for v in focus] for raw, focus in positions.items()},
        "images": len(stack),
        "warnings": result.report["warnings"],
        "median_relative": found.absolute_m / found.distance_m,
        "sigma": {name: result.report["sigma"][name] for name in ("local", "aperture", "gain", "offset")},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the sweep")
    parser.add_argument("--csv", default="webcam_board.csv", help="table to write (default: %(default)s)")
    args = parser.parse_args(arguments)
    config = Config.from_dict({"processing": {"threads": 1}})
    result = measured(Path(args.data), Path(args.csv), config)
    print(json.dumps(result, indent=2))
    if not result["share"]:
        return 1
    within = WITHIN_ONE[0] <= (result["within_one"] or 0.0) <= WITHIN_ONE[1]
    print(
        f"median error {100 * result['median_relative']:.1f} % (at most {100 * TOLERANCE:g} %), within one sigma "
        f"{100 * result['within_one']:.0f} % ({100 * WITHIN_ONE[0]:.0f} to {100 * WITHIN_ONE[1]:.0f} %)"
    )
    return 0 if result["median_relative"] <= TOLERANCE and within else 1


if __name__ == "__main__":
    sys.exit(main())

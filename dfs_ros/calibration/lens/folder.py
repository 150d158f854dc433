"""Calibration of a lens from a folder of images and a CSV file with the lens position of each.

The file has a line of names: `file`, `raw_position`, and optionally `stamp_ns` and `sweep`, a whole number that is the
same for all images between which neither camera nor board moved. Without `sweep` the images tell. The order, by
`stamp_ns` or of the lines, tells from which side the lens reached a position.

Of several images in turn at one position, with stamps, the last one counts, and all tell how the lens answers to steps
(:mod:`dfs_ros.calibration.lens.response`); as do the `steps.csv` of a gathering.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.fit import LensFit, Progress, fit_lens
from dfs_ros.calibration.lens.gathering import STEPS_FILE, read_steps
from dfs_ros.calibration.lens.model import INDEX, NAMES, PROCESSING
from dfs_ros.calibration.lens.patches import UNSHARP_PX
from dfs_ros.calibration.lens.response import Response, StepImage, response_of, step_shares
from dfs_ros.config import LimitsConfig
from dfs_ros.io.csv_table import read_table
from dfs_ros.io.images import ImageFile
from dfs_ros.io.photo_table import stamp_of
from dfs_ros.io.stack_description import check_file, collecting, combined, number
from dfs_ros.lens.calibration import PARAMETERS, LensCalibration
from dfs_ros.lens.positions import travel_directions

_COLUMNS = ("file", "raw_position", "stamp_ns", "sweep")
_MOST_IMAGES = 2000


@dataclass(frozen=True)
class _Row:
    file: str
    raw: float
    stamp_ns: int
    sweep: int | None


def calibrate_folder(
    folder: Path,
    csv: Path,
    board: Board,
    unit: str = "raw",
    note: str = "",
    max_megapixels: float = LimitsConfig.image_megapixels,
    progress: Progress = lambda stage, share: None,
) -> tuple[LensCalibration, LensFit, Response | None]:
    """Calibrate a lens; the response is None without images that tell it.

    Raises FileNotFoundError or ValueError, which says what is missing.
    """
    rows = _rows(folder, csv)
    images, errors = [], list[Exception]()
    for i, row in enumerate(rows):
        with collecting(errors), ImageFile(folder / row.file, max_megapixels) as file:
            images.append(file.pixels(colour=False))
        progress("reading images", (i + 1) / len(rows))
    if errors:
        raise combined(errors)
    response = response_of([*read_steps(csv.parent / STEPS_FILE), *_step_images(rows, images)])
    last = _last_of_positions(rows)
    rows, images = [rows[i] for i in last], [images[i] for i in last]
    raws = [row.raw for row in rows]
    fit = fit_lens(
        images, [row.file for row in rows], raws, travel_directions(raws), [row.sweep for row in rows], board, progress
    )
    calibration = calibration_of(fit, board, unit, note)
    if response is not None:
        rounded = [round(max(seconds, 0.001), 4) for seconds in (response.latency_s, response.settle_s)]
        calibration = dataclasses.replace(calibration, latency_s=rounded[0], settle_s=rounded[1])
    return calibration, fit, response


def _last_of_positions(rows: list[_Row]) -> list[int]:
    """Indices of the last images of each position; of all images without stamps."""
    following = [*rows[1:], None]
    return [
        i
        for i, (row, after) in enumerate(zip(rows, following, strict=True))
        if not row.stamp_ns or after is None or (row.raw, row.sweep) != (after.raw, after.sweep)
    ]


def _step_images(rows: list[_Row], images: list[NDArray[np.uint8]]) -> list[StepImage]:
    """Step images of positions with several images in turn, the first of which reports the step."""
    found: list[StepImage] = []
    start = 0
    for end in _last_of_positions(rows):
        before = start - 1
        if end > start and before >= 0 and rows[before].sweep == rows[start].sweep:
            shares = step_shares(images[before], images[start : end + 1])
            since_s = [(row.stamp_ns - rows[start].stamp_ns) * 1e-9 for row in rows[start : end + 1]]
            # Numbers below those of the other steps.
            found += [StepImage(-1 - start, s, share) for s, share in zip(since_s, shares, strict=False)]
        start = end + 1
    return found


def calibration_of(fit: LensFit, board: Board, unit: str, note: str = "") -> LensCalibration:
    """Calibration file of a fit: focal length and aperture instead of their logarithms.

    The softness is that of the images, which a camera's sharpening reduces.
    """
    by = np.eye(len(PARAMETERS), len(NAMES))
    for name in ("log_fx", "log_aperture"):
        by[INDEX[name], INDEX[name]] = np.exp(fit.lens[INDEX[name]])
    by[INDEX["softness_px2"], INDEX["sharpening"]] = -(UNSHARP_PX**2)
    values = by @ fit.lens
    for name in ("log_fx", "log_aperture"):
        values[INDEX[name]] = np.exp(fit.lens[INDEX[name]])
    renamed = {"log_fx": "fx_px", "log_aperture": "aperture_m"}
    return LensCalibration(
        size=fit.size,
        raw_centre=fit.raw.centre,
        raw_half_range=fit.raw.half_range,
        values=values,
        covariance=by @ fit.covariance @ by.T,
        undetermined=tuple(renamed.get(name, name) for name in fit.undetermined if name not in PROCESSING),
        unit=unit,
        note=note,
        board=board.description,
    )


def _rows(folder: Path, csv: Path) -> list[_Row]:
    """Images in the order in which they were taken."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with images of the board")
    columns, lines = read_table(csv, _COLUMNS)
    if not {"file", "raw_position"} <= set(columns):
        raise ValueError(
            f"{csv}: expected the columns file and raw_position, and perhaps stamp_ns and sweep, received "
            f"{', '.join(columns) or 'nothing'}"
        )
    rows, errors = [], list[Exception]()
    for name, row in lines:
        with collecting(errors):
            check_file(folder, row["file"], f"{name}: file")
            sweep = row.get("sweep") or None
            if sweep is not None and not sweep.isdecimal():
                raise ValueError(f"{name}: sweep: expected a whole number, received '{sweep}'")
            raw = number(row["raw_position"], f"{name}: raw_position")
            rows.append(_Row(row["file"], raw, stamp_of(row, name), None if sweep is None else int(sweep)))
    if errors:
        raise combined(errors)
    if not rows:
        raise ValueError(f"{csv}: expected a line for each image, received none below the column names")
    if len(rows) > _MOST_IMAGES:
        raise ValueError(f"{csv}: expected at most {_MOST_IMAGES} images, received {len(rows)}: leave some out")
    if len({row.file for row in rows}) < len(rows):
        raise ValueError(f"{csv}: expected each image once")
    if len({row.sweep is None for row in rows}) > 1:
        raise ValueError(f"{csv}: sweep: expected a number in every line, or in none")
    return sorted(rows, key=lambda row: row.stamp_ns) if all(row.stamp_ns for row in rows) else rows

"""CSV file with the focus of each photo, for the import of a stack; see :mod:`dfs_ros.io.importing`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from dfs_ros.io.csv_table import read_table
from dfs_ros.io.stack_description import FrameEntry, check_file, collecting, combined, number
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.lens.positions import focus_at
from dfs_ros.lens.table import LensTable

_SIGMA = "focus_sigma_diopters"
_FOCUS_COLUMNS = ("focus_diopters", "focus_distance_m", "raw_position")
_COLUMNS = ("file", *_FOCUS_COLUMNS, _SIGMA, "stamp_ns", "magnification")

Lens = LensTable | LensCalibration


@dataclass(frozen=True)
class PhotoTable:
    """Photos of a CSV file; `in_metres`: their focus was a distance; `unknown`: files left out, of unknown focus."""

    frames: list[FrameEntry]
    in_metres: bool
    unknown: tuple[str, ...] = ()


def read_photo_table(path: Path, folder: Path, lens: Lens | None, own_camera: bool = True) -> PhotoTable:
    """Read the file; raw positions are turned into focus by `lens`. Raises FileNotFoundError or ValueError.

    `own_camera`: the stack's camera is that of a calibration, and has its focal surface.
    """
    columns, lines = read_table(path, _COLUMNS)
    focus_columns = [name for name in columns if name in _FOCUS_COLUMNS]
    if "file" not in columns or len(focus_columns) != 1:
        raise ValueError(
            f"{path}: expected the column file and either focus_diopters or focus_distance_m or, with a calibration, "
            f"raw_position, received {', '.join(columns) or 'nothing'}"
        )
    if (focus_columns[0] == "raw_position") != (lens is not None):
        raise ValueError(
            f"{path}: expected a column raw_position together with the calibration of the lens (--calibration), "
            f"received {focus_columns[0]} and {'no' if lens is None else 'a'} calibration"
        )
    frames, errors = [], list[Exception]()
    for name, row in lines:
        with collecting(errors):
            frames.append(_frame(row, name, folder))
    if errors:
        raise combined(errors)
    if not frames:
        raise ValueError(f"{path}: expected a line for each photo, received none below the column names")
    if lens is None:
        return PhotoTable(frames, "focus_distance_m" in columns)
    known = _by_lens(frames, [number(row["raw_position"], f"{n}: raw_position") for n, row in lines], lens, own_camera)
    if len(known) < 2:
        raise ValueError(
            f"{path}: expected two photos or more at lens positions that the calibration covers, received "
            f"{len(known)}; is it of this lens?"
        )
    files = {frame.file for frame in known}
    return PhotoTable(known, False, tuple(frame.file for frame in frames if frame.file not in files))


def _by_lens(frames: list[FrameEntry], raws: list[float], lens: Lens, own_camera: bool) -> list[FrameEntry]:
    """Frames with focus, doubt and scale by a calibration; without those whose focus it does not know."""
    found = focus_at(lens, raws, [frame.stamp_ns for frame in frames], own_camera)
    known = []
    for frame, (focus, sigma, scale) in zip(frames, found, strict=True):
        if math.isnan(focus):
            continue
        told, doubt = frame.magnification, frame.focus_sigma_diopters
        scale = scale if math.isnan(told) else told
        sigma = sigma if math.isnan(doubt) else doubt
        known.append(FrameEntry(frame.file, focus, frame.stamp_ns, scale, focus_sigma_diopters=sigma))
    return known


def _frame(row: dict[str, str], name: str, folder: Path) -> FrameEntry:
    file = row["file"]
    if Path(file).name != file:
        raise ValueError(f"{name}: file: expected the name of a photo in {folder}, received '{file}'")
    check_file(folder, file, f"{name}: file")
    focus = math.nan
    if "focus_diopters" in row:
        focus = number(row["focus_diopters"], f"{name}: focus_diopters")
    elif "focus_distance_m" in row:
        focus = diopters(row["focus_distance_m"], f"{name}: focus_distance_m")
    else:
        number(row["raw_position"], f"{name}: raw_position")
    stamp = stamp_of(row, name)
    magnification, sigma = (
        number(row[key], f"{name}: {key}") if row.get(key) else math.nan for key in ("magnification", _SIGMA)
    )
    return FrameEntry(file, focus, stamp, magnification, focus_sigma_diopters=sigma)


def stamp_of(row: dict[str, str], name: str) -> int:
    """Column stamp_ns; 0 without it."""
    stamp = row.get("stamp_ns") or "0"
    if not stamp.isdecimal():
        raise ValueError(f"{name}: stamp_ns: expected whole nanoseconds, received '{stamp}'")
    return int(stamp)


def diopters(distance: str | float, name: str) -> float:
    """Dioptres of a distance in metres; `inf` is 0. Raises ValueError, with `name`."""
    try:
        metres = float(distance)
    except ValueError:
        metres = math.nan
    if not metres > 0:
        raise ValueError(f"{name}: expected metres over 0, or inf, received '{distance}'")
    return 1.0 / metres

"""Focus of photos without a table: from EXIF, XMP, the camera's maker notes, or their names.

The first source that knows all photos counts: EXIF SubjectDistance, XMP ApproximateFocusDistance (Adobe's, in metres),
then the maker notes of Canon, Nikon, Sony and others, read by exiftool where it is installed: FocusDistance, or the
middle of FocusDistanceLower and FocusDistanceUpper, whose difference is the doubt.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dfs_ros.io.exif import PhotoExif
from dfs_ros.io.photo_table import diopters
from dfs_ros.io.stack_description import FrameEntry, collecting, combined, number

_UNITS = {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "D": 0.0}
_EXIFTOOL_S = 60.0
_MAKER_TAGS = ("FocusDistance", "FocusDistance2", "FocusDistanceLower", "FocusDistanceUpper")
_LENGTH = re.compile(r"(inf|infinity|[\d.]+)(?: ?(m|cm|mm))?", re.IGNORECASE)


def frames_from_tags(exif: Mapping[str, PhotoExif], folder: Path, focus_unit: str) -> tuple[list[FrameEntry], str]:
    """Frames of photos by the first source that knows the focus of all, and its name. Raises ValueError."""
    if focus_unit == "metres" and any(not tags.subject_distance > 0 for tags in exif.values()):
        others: tuple[tuple[str, Callable[[], dict[str, FrameEntry]]], ...] = (
            ("XMP ApproximateFocusDistance", lambda: _from_xmp(exif)),
            ("maker notes, by exiftool", lambda: _from_maker_notes(folder, list(exif))),
        )
        for name, read in others:
            if len(found := read()) == len(exif):
                return list(found.values()), name
    frames, errors = [], list[Exception]()
    for file, tags in exif.items():
        name = f"{folder / file}: EXIF SubjectDistance"
        with collecting(errors):
            if math.isnan(tags.subject_distance):
                hint = "" if shutil.which("exiftool") else "; with exiftool installed, maker notes are read, too"
                raise ValueError(
                    f"{name}: missing; give the focus of each photo in a CSV file (--csv) or by its name "
                    f"(--focus-from-name){hint}"
                )
            if focus_unit == "diopters":
                frames.append(FrameEntry(file, number(tags.subject_distance, name)))
            elif tags.subject_distance == 0:
                raise ValueError(
                    f"{name}: 0 metres means unknown; give a CSV file, or the focus unit diopters if it is that"
                )
            else:
                frames.append(FrameEntry(file, diopters(tags.subject_distance, name)))
    if errors:
        raise combined(errors)
    return frames, f"EXIF SubjectDistance in {focus_unit}"


def frames_from_names(files: list[str], folder: Path, pattern: str) -> tuple[list[FrameEntry], bool]:
    r"""Frames by a regular expression with one group for the number, and True if it is a distance.

    The unit follows the group in the pattern: mm, cm, m, or D for dioptres, as in ``(\d+)cm``. Raises ValueError.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--focus-from-name: expected a regular expression, received {pattern!r}: {error}") from None
    unit = re.search(r"\)(?:\\s\*|[ _-]\??)?(mm|cm|m|D)", pattern)
    if expression.groups != 1 or unit is None:
        raise ValueError(
            "--focus-from-name: expected one group of digits, followed by mm, cm, m or D, such as '(\\d+)cm', "
            f"received {pattern!r}"
        )
    frames, errors = [], list[Exception]()
    for file in files:
        with collecting(errors):
            found = expression.search(file)
            if found is None:
                raise ValueError(
                    f"{folder / file}: expected a name with {pattern}; leave the photo out, or mend its name"
                )
            name = f"{folder / file}: focus in its name"
            value = number(found[1].replace(",", "."), name) if found[1].lower() != "inf" else math.inf
            metres = _UNITS[unit[1]]
            frames.append(FrameEntry(file, diopters(value * metres, name) if metres else value))
    if errors:
        raise combined(errors)
    return frames, unit[1] != "D"


def _from_xmp(exif: Mapping[str, PhotoExif]) -> dict[str, FrameEntry]:
    known = {file: tags.approximate_distance_m for file, tags in exif.items() if tags.approximate_distance_m > 0}
    return {file: FrameEntry(file, 1.0 / metres) for file, metres in known.items()}


def _from_maker_notes(folder: Path, files: list[str]) -> dict[str, FrameEntry]:
    """Frames of the photos whose maker notes tell the focus; none without exiftool."""
    exiftool = shutil.which("exiftool")
    if exiftool is None:
        return {}
    paths = [str((folder / file).absolute()) for file in files]
    tags = [f"-{tag}" for tag in _MAKER_TAGS]
    done = subprocess.run(
        [exiftool, "-json", *tags, "--", *paths], capture_output=True, check=False, timeout=_EXIFTOOL_S
    )
    try:
        rows = json.loads(done.stdout or b"[]")
        by_path = {str(Path(row["SourceFile"])): row for row in rows}
    except (ValueError, KeyError, TypeError):
        return {}
    focus = {file: _maker_focus(by_path.get(path, {})) for file, path in zip(files, paths, strict=True)}
    return {
        file: FrameEntry(file, round(each[0], 6), focus_sigma_diopters=round(each[1], 6) or math.nan)
        for file, each in focus.items()
        if each is not None
    }


def _maker_focus(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """Focus in dioptres and its standard deviation, 0 = not told, of exiftool's words such as `0.45 m` or `inf`."""
    near, far = (_metres(row.get(tag)) for tag in ("FocusDistanceLower", "FocusDistanceUpper"))
    if near > 0 and far > 0:
        return (1 / near + 1 / far) / 2, abs(1 / near - 1 / far) / math.sqrt(12)
    metres = next((m for tag in _MAKER_TAGS[:2] if (m := _metres(row.get(tag))) > 0), math.nan)
    return None if math.isnan(metres) else (1 / metres, 0.0)


def _metres(words: object) -> float:
    found = _LENGTH.fullmatch(str(words).strip())
    if found is None:
        return math.nan
    if found[1].lower().startswith("inf"):
        return math.inf
    return float(found[1]) * _UNITS[(found[2] or "m").lower()]

"""EXIF values of a photo: lens, pixel pitch, focus distance.

Tags; the first one present and usable counts:

============== =================================================================================================
focal length   FocalLength (mm)
f-number       FNumber, then ApertureValue (APEX: ``N = 2^(A / 2)``)
pixel pitch    FocalPlaneXResolution with FocalPlaneResolutionUnit, corrected by PixelXDimension / width if the photo
               was resized; then FocalLengthIn35mmFilm by the diagonal, ``p = 43.27 mm f / f35 / diagonal``
               (f35 is a whole number: good to some percent). Unknown if the two contradict each other, or if the photo
               has another shape than PixelXDimension and PixelYDimension: it was cropped
focus          SubjectDistance: metres by the standard, 0 = unknown, 0xFFFFFFFF = infinity; some devices write dioptres;
               XMP ApproximateFocusDistance: metres, 0xFFFFFFFF = infinity
============== =================================================================================================
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags

from dfs_ros.io.images import ImageFile

_DIAGONAL_35MM_M = math.hypot(36e-3, 24e-3)
_SHAPES_WITHIN = 0.02
# Of two pixel pitches: 4 % between makers that compare diagonals and those that compare widths, and the rounding of
# FocalLengthIn35mmFilm, which is added.
_PITCHES_WITHIN = 0.10
# As attribute or as element.
_APPROXIMATE = re.compile(rb"ApproximateFocusDistance\s*(?:=\s*[\"']|>)\s*(\d{1,12})/(\d{1,12})")
_METRES_PER_UNIT = {2: 25.4e-3, 3: 1e-2, 4: 1e-3, 5: 1e-6}  # FocalPlaneResolutionUnit; inches where it is absent


@dataclass(frozen=True)
class PhotoExif:
    """EXIF values of a photo, NaN = unknown.

    `subject_distance` is the tag's number, or infinity for its mark of infinity; `pixel_pitch_tag`: source of the pixel
    pitch; `pixel_pitch_doubt`: reason for which tags of the pixel pitch are not believed; `approximate_distance_m`:
    focus of XMP.
    """

    focal_length_m: float = math.nan
    f_number: float = math.nan
    pixel_pitch_m: float = math.nan
    pixel_pitch_tag: str = ""
    pixel_pitch_doubt: str = ""
    subject_distance: float = math.nan
    approximate_distance_m: float = math.nan


def read_exif(path: Path, max_megapixels: float) -> PhotoExif:
    """EXIF values of an image file; errors as `dfs_ros.io.images.ImageFile`."""
    with ImageFile(path, max_megapixels) as file:
        tags, width_px, height_px = file.exif(), file.header.width_px, file.header.height_px
        approximate = _APPROXIMATE.search(file.xmp())
    focal_length_m = _rational(tags, ExifTags.Base.FocalLength) * 1e-3
    f_number = _rational(tags, ExifTags.Base.FNumber)
    if math.isnan(f_number):
        f_number = 2 ** (_rational(tags, ExifTags.Base.ApertureValue) / 2)
    pitch_m, tag, doubt = _pixel_pitch(tags, width_px, height_px, focal_length_m)
    approximate_m = math.nan
    if approximate is not None and float(approximate[2]) > 0:
        mark = approximate[1] == b"4294967295"
        approximate_m = math.inf if mark else float(approximate[1]) / float(approximate[2])
    return PhotoExif(focal_length_m, f_number, pitch_m, tag, doubt, _subject_distance(tags), approximate_m)


def _pixel_pitch(tags: dict[int, Any], width_px: int, height_px: int, focal_length_m: float) -> tuple[float, str, str]:
    """Pixel pitch in metres, its tag, and the doubt for which neither is known."""
    taken_width = _rational(tags, ExifTags.Base.ExifImageWidth)
    taken_height = _rational(tags, ExifTags.Base.ExifImageHeight)
    if (taken_width, taken_height) == (height_px, width_px):  # turned, with the tags as they were
        taken_width, taken_height = taken_height, taken_width
    reduction = 1.0
    if not (math.isnan(taken_width) or math.isnan(taken_height)):
        reduction = taken_width / width_px
        if abs(taken_width / taken_height / (width_px / height_px) - 1) > _SHAPES_WITHIN:
            doubt = (
                f"EXIF is of {taken_width:.0f} x {taken_height:.0f} pixels, the photo has {width_px} x {height_px}: it "
                "was cropped"
            )
            return math.nan, "", doubt
    unit_m = _METRES_PER_UNIT.get(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2), math.nan)
    by_plane_m = unit_m / _rational(tags, ExifTags.Base.FocalPlaneXResolution) * reduction
    equivalent_mm = _rational(tags, ExifTags.Base.FocalLengthIn35mmFilm)
    by_film_m = _DIAGONAL_35MM_M * focal_length_m / (equivalent_mm * 1e-3) / math.hypot(width_px, height_px)
    within = _PITCHES_WITHIN + 0.5 / equivalent_mm
    if abs(math.log(by_plane_m / by_film_m)) > within:
        doubt = (
            f"EXIF contradicts itself: {by_plane_m * 1e6:.4g} um by FocalPlaneXResolution, {by_film_m * 1e6:.4g} um by "
            "FocalLengthIn35mmFilm"
        )
        return math.nan, "", doubt
    if not math.isnan(by_plane_m):
        return by_plane_m, "FocalPlaneXResolution", ""
    return by_film_m, "" if math.isnan(by_film_m) else "FocalLengthIn35mmFilm", ""


def _subject_distance(tags: dict[int, Any]) -> float:
    value = tags.get(ExifTags.Base.SubjectDistance)
    if value is None:
        return math.nan
    if getattr(value, "numerator", None) == 0xFFFFFFFF:
        return math.inf
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return math.nan


def _rational(tags: dict[int, Any], tag: int) -> float:
    """Number of a tag from a billionth to a billion, else NaN."""
    try:
        value = float(tags[tag])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return math.nan
    return value if 1e-9 <= value <= 1e9 else math.nan

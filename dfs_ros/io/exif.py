"""EXIF values of a photo: lens, pixel pitch, focus distance.

Tags; the first one present and usable counts:

============== =================================================================================================
focal length   FocalLength (mm)
f-number       FNumber, then ApertureValue (APEX: ``N = 2^(A / 2)``)
pixel pitch    FocalPlaneXResolution with FocalPlaneResolutionUnit, corrected by PixelXDimension / width if the photo
               was resized; then FocalLengthIn35mmFilm by the diagonal, ``p = 43.27 mm f / f35 / diagonal``
               (f35 is a whole number: good to some percent)
focus          SubjectDistance: metres by the standard, 0 = unknown, 0xFFFFFFFF = infinity; some devices write dioptres
============== =================================================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags

from dfs_ros.io.images import ImageFile

_DIAGONAL_35MM_M = math.hypot(36e-3, 24e-3)
_METRES_PER_UNIT = {2: 25.4e-3, 3: 1e-2, 4: 1e-3, 5: 1e-6}  # FocalPlaneResolutionUnit; inches where it is absent


@dataclass(frozen=True)
class PhotoExif:
    """EXIF values of a photo, NaN = unknown.

    `subject_distance` is the tag's number, or infinity for its mark of infinity; `pixel_pitch_tag`: source of the pixel
    pitch.
    """

    focal_length_m: float = math.nan
    f_number: float = math.nan
    pixel_pitch_m: float = math.nan
    pixel_pitch_tag: str = ""
    subject_distance: float = math.nan


def read_exif(path: Path, max_megapixels: float) -> PhotoExif:
    """EXIF values of an image file; errors as `dfs_ros.io.images.ImageFile`."""
    with ImageFile(path, max_megapixels) as file:
        tags, width_px, height_px = file.exif(), file.header.width_px, file.header.height_px
    focal_length_m = _rational(tags, ExifTags.Base.FocalLength) * 1e-3
    f_number = _rational(tags, ExifTags.Base.FNumber)
    if math.isnan(f_number):
        f_number = 2 ** (_rational(tags, ExifTags.Base.ApertureValue) / 2)
    pitch_m, tag = _focal_plane_pitch(tags, width_px, height_px), "FocalPlaneXResolution"
    if math.isnan(pitch_m):
        equivalent_m = _rational(tags, ExifTags.Base.FocalLengthIn35mmFilm) * 1e-3
        pitch_m = _DIAGONAL_35MM_M * focal_length_m / equivalent_m / math.hypot(width_px, height_px)
        tag = "FocalLengthIn35mmFilm"
    return PhotoExif(
        focal_length_m,
        f_number,
        pitch_m,
        "" if math.isnan(pitch_m) else tag,
        _subject_distance(tags),
    )


def _focal_plane_pitch(tags: dict[int, Any], width_px: int, height_px: int) -> float:
    per_unit = _rational(tags, ExifTags.Base.FocalPlaneXResolution)
    unit_m = _METRES_PER_UNIT.get(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2), math.nan)
    taken_width = _rational(tags, ExifTags.Base.ExifImageWidth)
    taken_height = _rational(tags, ExifTags.Base.ExifImageHeight)
    if math.isnan(taken_width) or math.isnan(taken_height):
        return unit_m / per_unit
    if abs(taken_width / taken_height / (width_px / height_px) - 1) > 0.02:
        return math.nan  # cropped or turned, so that the factor of any resizing is unknown
    return unit_m / per_unit * taken_width / width_px


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
    """Positive number of a tag, else NaN."""
    try:
        value = float(tags[tag])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return math.nan
    return value if math.isfinite(value) and value > 0 else math.nan

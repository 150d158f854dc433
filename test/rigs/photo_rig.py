"""Photos with EXIF on disk, for the tests of `dfs import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

LENS = {"focal_length_m": 0.004, "f_number": 2.0, "pixel_pitch_m": 4e-6}
TAGS = ExifTags.Base


def textured(seed: int, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_photo(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32), **tags: Any) -> None:
    exif = Image.Exif()
    block = exif.get_ifd(ExifTags.IFD.Exif)
    for name, value in tags.items():
        block[TAGS[name]] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(textured(seed, *size)).save(path, exif=exif, quality=95)


def photos(folder: Path, *distances: Any, **tags: Any) -> Path:
    """Photos img0.jpg, img1.jpg, ... with these subject distances (None: without) and common tags."""
    tags = {"FocalLength": 4.3, "FNumber": 1.9, "FocalLengthIn35mmFilm": 26, **tags}
    tags = {name: value for name, value in tags.items() if value is not None}
    for i, distance in enumerate(distances):
        one = tags if distance is None else {**tags, "SubjectDistance": distance}
        write_photo(folder / f"img{i}.jpg", i, **one)
    return folder

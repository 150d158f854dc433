"""Mobile Depth data: hand-held focus sweeps of phones, aligned, without true depth.

Suwajanakorn, Hernandez, Seitz, "Depth from Focus with Your Mobile Phone", CVPR 2015. Two archives, side by side:

    Aligned/SCENE/*.jpg                                        the images, in order of focus (depth_from_focus_data3)
    depth_from_focus_data2/calibration/SCENE/calibrated.txt    per image "focus_distance aperture", then "focal_length"

Four scenes have another name in the calibration (metals: metal; zeromotion, smallmotion, largemotion: GT, GTSmall,
GTLarge), and the images of `metals` are in reverse order; bucket and kitchen have no calibration. The authors estimated
the calibration from the photos, so its scale is not metric: focus distances are read as centimetres, apertures as
relative values.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.types import Camera, FocalStack

PHONE_CAMERA = Camera(3.7e-3, 2.6, 1.4e-6)
"""Lens of the paper's Samsung Galaxy S3, with the pixels of its photos, 3264 px wide."""

_PHOTO_WIDTH_PX = 3264
_UNIT_M = 0.01
_CALIBRATION_NAMES = {"metals": "metal", "zeromotion": "GT", "smallmotion": "GTSmall", "largemotion": "GTLarge"}
_REVERSED = ("metals",)
_SUFFIXES = (".jpg", ".jpeg", ".png")


def mobile_depth_scenes(folder: str | Path) -> list[str]:
    """Scenes with images and a calibration. Raises FileNotFoundError if there are none."""
    images, calibration = _folders(Path(folder))
    names = sorted(path.name for path in images.iterdir() if path.is_dir()) if images.is_dir() else []
    found = [name for name in names if _calibration_file(calibration, name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"{folder}: expected Aligned/SCENE/*.jpg and depth_from_focus_data2/calibration/SCENE/calibrated.txt, "
            "as the Mobile Depth archives unpack; found no scene with both"
        )
    return found


def load_mobile_depth(folder: str | Path, scene: str, camera: Camera = PHONE_CAMERA) -> FocalStack:
    """Load a scene. `camera`: the lens with the pixels of full photos, scaled for smaller ones.

    Apertures that differ between images become `blur_scale`, relative to their median. Raises FileNotFoundError or
    ValueError, with the file's name, for missing or unexpected files.
    """
    images_folder, calibration = _folders(Path(folder))
    files = sorted(p for p in (images_folder / scene).glob("*") if p.suffix.lower() in _SUFFIXES)
    if scene in _REVERSED:
        files.reverse()
    file = _calibration_file(calibration, scene)
    if not files or not file.is_file():
        missing = file if files else images_folder / scene
        raise FileNotFoundError(f"{missing}: no such scene; there are {', '.join(mobile_depth_scenes(folder))}")
    focus, apertures = read_calibration(file)
    if len(focus) != len(files):
        raise ValueError(f"{file}: {len(focus)} lines with focus, but {len(files)} images in {images_folder / scene}")
    photos = [_image(path) for path in files]
    for path, photo in zip(files, photos, strict=True):
        if photo.shape != photos[0].shape:
            raise ValueError(f"{path}: expected the size of {files[0].name}, {photos[0].shape}, got {photo.shape}")
    images = np.stack(photos)
    return FocalStack(
        images,
        1.0 / (_UNIT_M * focus),
        camera.scaled(images.shape[2] / _PHOTO_WIDTH_PX),
        blur_scale=apertures / np.median(apertures),
        magnification=np.ones(len(files)),
    )


def read_calibration(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Focus distances and apertures of a calibrated.txt, in its own units. Raises ValueError with file and line."""
    rows = [line.split() for line in file.read_text().splitlines() if line.strip()]
    problem = f"{file}: expected lines of focus distance and aperture, then one of focal length"
    try:
        numbers = [[float(value) for value in row] for row in rows]
    except ValueError as error:
        raise ValueError(f"{problem}: {error}") from error
    if len(numbers) < 3 or len(numbers[-1]) != 1:
        raise ValueError(f"{problem}; received {len(numbers)} lines")
    for line, row in enumerate(numbers[:-1], 1):
        if len(row) != 2 or min(row) <= 0:
            raise ValueError(f"{problem}; line {line} is {' '.join(rows[line - 1])!r}")
    values = np.array(numbers[:-1])
    return values[:, 0], values[:, 1]


def _folders(folder: Path) -> tuple[Path, Path]:
    return folder / "Aligned", folder / "depth_from_focus_data2" / "calibration"


def _calibration_file(calibration: Path, scene: str) -> Path:
    return calibration / _CALIBRATION_NAMES.get(scene, scene) / "calibrated.txt"


def _image(file: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{file}: not readable as an image")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)

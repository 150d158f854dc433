"""Camera calibration files (YAML) of ROS' camera_calibration and camera_info_manager."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dfs_ros.config import read_yaml
from dfs_ros.optics.pinhole import Intrinsics


class CameraFile(NamedTuple):
    """Content of a camera file: (height, width), pinhole, plumb_bob distortion (may be empty)."""

    size: tuple[int, int]
    intrinsics: Intrinsics
    distortion: tuple[float, ...]


def load_camera_file(path: str | Path) -> CameraFile:
    """Read a calibration. Raises FileNotFoundError or ValueError, which name file and entry."""
    document = read_yaml(Path(path), f"camera calibration {path}")
    try:
        return _camera(document)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        raise ValueError(
            f"camera calibration {path}: {problem}; expected image_width, image_height and camera_matrix, as "
            "camera_calibration writes them"
        ) from error


def _camera(document: Any) -> CameraFile:
    if not isinstance(document, Mapping):
        raise ValueError(f"expected a mapping, received {type(document).__name__}")
    size = (int(document["image_height"]), int(document["image_width"]))
    k = _data(document["camera_matrix"], "camera_matrix")
    if len(k) != 9 or not all(map(math.isfinite, k)) or k[0] <= 0 or k[4] <= 0 or min(size) < 1:
        raise ValueError(f"camera_matrix: expected 9 finite numbers with fx and fy over 0, received {k}")
    model = document.get("distortion_model", "plumb_bob")
    distortion = tuple(_data(document.get("distortion_coefficients", {"data": []}), "distortion_coefficients"))
    if any(distortion) and (model != "plumb_bob" or len(distortion) < 4):
        raise ValueError(f"distortion_model: expected plumb_bob, received {model!r}; rectify the images first")
    return CameraFile(size, Intrinsics(k[0], k[4], k[2], k[5]), distortion if any(distortion) else ())


def _data(matrix: Any, name: str) -> list[float]:
    if not isinstance(matrix, Mapping) or not isinstance(matrix.get("data"), list):
        raise ValueError(f"{name}: expected `data: [...]`")
    return [float(value) for value in matrix["data"]]

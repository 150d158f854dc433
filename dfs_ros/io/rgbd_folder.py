"""Folders of colour and registered depth: TUM RGB-D (rgb.txt, depth.txt) and ScanNet (color/, depth/).

TUM: lines `timestamp file`, and `timestamp tx ty tz qx qy qz qw` in groundtruth.txt; depth PNG of 5000 to the metre.
ScanNet: color/N.jpg, depth/N.png of 1000 to the metre, pose/N.txt (4 x 4), intrinsic/intrinsic_depth.txt (4 x 4). Poses
are of the optical frame in the world, and optional.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import LimitsConfig
from dfs_ros.image_size import resized
from dfs_ros.io.images import ImageFile
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.transforms.rigid import Transform, transform

_TUM_SIZE, _TUM_INTRINSICS = (480, 640), Intrinsics(525.0, 525.0, 319.5, 239.5)
_TUM_UNIT_M, _SCANNET_UNIT_M = 0.0002, 0.001


@dataclass(frozen=True, eq=False)
class RgbdView:
    """Colour uint8 (H, W, 3) and depth float32 (H, W) in metres, NaN = unknown, of one view.

    `number`: place in its recording. `pose`: optical frame in the world, None = unknown. `stamp_ns`, `frame_id`: of the
    source's header, if live.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    intrinsics: Intrinsics
    distortion: tuple[float, ...] = ()
    number: int = 0
    pose: Transform | None = None
    stamp_ns: int = 0
    frame_id: str = ""

    def reduced(self, size: tuple[int, int]) -> RgbdView:
        """View at `size` (height, width): colour as means over areas, depth of the nearest pixel."""
        height, width = self.depth_m.shape
        rgb = self.rgb if self.rgb.shape[:2] == size else resized(self.rgb, size)
        if size == (height, width):
            return replace(self, rgb=rgb)
        down, across = size[0] / height, size[1] / width
        fx, fy, cx, cy = self.intrinsics
        pinhole = Intrinsics(fx * across, fy * down, (cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5)
        depth = cv2.resize(self.depth_m, size[::-1], interpolation=cv2.INTER_NEAREST)
        return replace(self, rgb=rgb, depth_m=np.asarray(depth, np.float32), intrinsics=pinhole)


@dataclass(frozen=True)
class _Files:
    color: Path
    depth: Path
    pose: Transform | None


class RgbdFolder:
    """Views of a folder in order. Raises FileNotFoundError or ValueError for a folder of neither layout."""

    def __init__(
        self,
        folder: str | Path,
        calibration: tuple[tuple[int, int], Intrinsics, tuple[float, ...]] | None = None,
        depth_unit_m: float = 0.0,
        tolerance_s: float = 0.02,
        limits: LimitsConfig | None = None,
    ) -> None:
        self.path = Path(folder)
        self._limits = limits or LimitsConfig()
        self._calibration = calibration
        if (self.path / "rgb.txt").is_file() and (self.path / "depth.txt").is_file():
            self.layout, self._unit_m = "TUM", depth_unit_m or _TUM_UNIT_M
            self._files = _tum_files(self.path, tolerance_s)
        elif (self.path / "color").is_dir() and (self.path / "depth").is_dir():
            self.layout, self._unit_m = "ScanNet", depth_unit_m or _SCANNET_UNIT_M
            self._files = _scannet_files(self.path)
        else:
            raise ValueError(
                f"{folder}: expected a folder with rgb.txt and depth.txt (TUM RGB-D), with color/ and depth/ "
                "(ScanNet), or a bag"
            )
        if not self._files:
            raise ValueError(f"{folder}: no colour image has a depth image of its time or name")

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[RgbdView]:
        return (self.view(number) for number in range(len(self._files)))

    def view(self, number: int) -> RgbdView:
        """Read a view. Raises ValueError or OSError for unreadable images, and unknown intrinsics."""
        files, most = self._files[number], self._limits.image_megapixels
        with ImageFile(files.color, most) as file:
            rgb = file.pixels()
        with ImageFile(files.depth, most) as file:
            samples = file.sixteen_bit_grey()
        if samples is None:
            raise ValueError(f"{files.depth}: expected 16-bit grey depth")
        depth = np.where(samples > 0, samples * np.float32(self._unit_m), np.float32(np.nan)).astype(np.float32)
        intrinsics, distortion = self._pinhole((depth.shape[0], depth.shape[1]), rgb.shape[1] / rgb.shape[0])
        return RgbdView(rgb, depth, intrinsics, distortion, number, files.pose)

    def _pinhole(self, size: tuple[int, int], aspect: float) -> tuple[Intrinsics, tuple[float, ...]]:
        height, width = size
        if abs(aspect * height / width - 1) > 0.02:
            raise ValueError(f"{self.path}: expected depth of the same view as the colour, received other proportions")
        if self._calibration is not None:
            found, pinhole, distortion = self._calibration
            if found != size:
                raise ValueError(
                    f"rgbd.calibration: is of {found[1]} x {found[0]} pixels, the depth images have {width} x {height}"
                )
            return pinhole, distortion
        matrix = self.path / "intrinsic" / "intrinsic_depth.txt"
        if self.layout == "ScanNet" and matrix.is_file():
            k = _matrix(matrix)
            return Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2]), ()
        if self.layout == "TUM" and size == _TUM_SIZE:
            return _TUM_INTRINSICS, ()
        raise ValueError(f"{self.path}: says no intrinsics; set rgbd.calibration to a file of camera_calibration")


def _tum_files(folder: Path, tolerance_s: float) -> list[_Files]:
    depths, poses = _timed(folder / "depth.txt", 1), list[tuple[float, list[str]]]()
    if (folder / "groundtruth.txt").is_file():
        poses = _timed(folder / "groundtruth.txt", 7)
    found = []
    for time_s, (name,) in _timed(folder / "rgb.txt", 1):
        depth, pose = _nearest(depths, time_s, tolerance_s), _nearest(poses, time_s, tolerance_s)
        if depth is not None:
            numbers = None if pose is None else [float(word) for word in pose]
            moved = None if numbers is None else transform(numbers[:3], numbers[3:])
            found.append(_Files(_inside(folder, name), _inside(folder, depth[0]), moved))
    return found


def _scannet_files(folder: Path) -> list[_Files]:
    found = []
    for color in sorted((folder / "color").iterdir(), key=lambda path: (len(path.stem), path.stem)):
        depth, pose = folder / "depth" / f"{color.stem}.png", folder / "pose" / f"{color.stem}.txt"
        if depth.is_file():
            matrix = _matrix(pose, finite=False) if pose.is_file() else np.full((4, 4), math.nan)
            known = bool(np.isfinite(matrix).all())  # untracked frames have infinite poses
            found.append(_Files(color, depth, Transform(matrix[:3, :3], matrix[:3, 3]) if known else None))
    return found


def _timed(file: Path, values: int) -> list[tuple[float, list[str]]]:
    """Lines `timestamp value ...` by time, without comments."""
    lines = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if words and not line.startswith("#"):
            try:
                if len(words) != values + 1:
                    raise ValueError(f"{len(words)} words")
                lines.append((float(words[0]), words[1:]))
            except ValueError as error:
                raise ValueError(f"{file}: line {number}: expected a timestamp and {values} values: {error}") from error
    return sorted(lines)


def _nearest(lines: list[tuple[float, list[str]]], time_s: float, tolerance_s: float) -> list[str] | None:
    at = bisect.bisect_left(lines, (time_s, []))
    near = min(lines[max(at - 1, 0) : at + 1], key=lambda line: abs(line[0] - time_s), default=None)
    return near[1] if near is not None and abs(near[0] - time_s) <= tolerance_s else None


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: expected files inside the folder, received {name}")
    return path


def _matrix(file: Path, finite: bool = True) -> NDArray[np.float64]:
    try:
        matrix = np.array([float(word) for word in file.read_text(encoding="utf-8").split()]).reshape(4, 4)
    except ValueError as error:
        raise ValueError(f"{file}: expected 4 x 4 numbers: {error}") from error
    if finite and not np.isfinite(matrix).all():
        raise ValueError(f"{file}: expected finite numbers, received {matrix.tolist()}")
    return matrix

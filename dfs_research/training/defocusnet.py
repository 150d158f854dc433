"""DefocusNet data (FoD500): rendered stacks of five images with depth, 256 px wide.

Maximov, Galim, Leal-Taixe, "Focus on Defocus", CVPR 2020. A folder with, for every scene NNNNNN,

    NNNNNN_01All.tif ... NNNNNN_05All.tif     uint8 RGB, focused at 0.1, 0.15, 0.3, 0.7 and 1.5 m
    NNNNNNDpt.exr                             depth in metres, the same in every channel; over 3 m is background

The camera has f = 2.9 mm, f/1.0 and a sensor 3.1 mm wide. The first four fifths are for training (400 of 500).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_research.training.cameras import DEFOCUSNET_CAMERA
from dfs_research.training.lazy_stacks import LazyStacks
from dfs_research.training.stacks import TrainingStack
from dfs_ros.types import FocalStack

MAX_DEPTH_M = 3.0
_TRAINING_SHARE = 0.8
_IMAGES = len(DEFOCUSNET_CAMERA.focus_diopters)
_LAYOUT = "expected files NAMEDpt.exr with five images each, NAME*All.tif, as the DefocusNet data has them"


@dataclass(frozen=True)
class Scene:
    """Files of one scene; images in order of their names, near to far in focus."""

    depth: Path
    images: tuple[Path, ...]


@dataclass(frozen=True)
class DefocusNetData:
    """Part of the data; scenes are read on access. `kept`: indices of the focus distances."""

    folder: Path
    part: str
    scenes: tuple[Scene, ...]
    kept: tuple[int, ...]

    @classmethod
    def find(cls, folder: str | Path, part: str = "train", focus_distances_m: Sequence[float] = ()) -> DefocusNetData:
        """Find the scenes of a part, `train` or `validation`.

        `focus_distances_m` selects some of the five images. Raises FileNotFoundError for a folder without such data,
        ValueError for other focus distances.
        """
        folder = Path(folder)
        depths = sorted(folder.glob("*Dpt.exr")) if folder.is_dir() else []
        if not depths:
            raise FileNotFoundError(f"{folder}: {_LAYOUT}; found none")
        scenes = tuple(cls._scene(folder, depth) for depth in depths)
        first_validation = max(1, int(len(scenes) * _TRAINING_SHARE))
        chosen = scenes[:first_validation] if part == "train" else scenes[first_validation:]
        if not chosen:
            raise FileNotFoundError(f"{folder}: {len(scenes)} scenes are too few to keep some for {part}")
        return cls(folder, part, chosen, _positions(focus_distances_m))

    @staticmethod
    def _scene(folder: Path, depth: Path) -> Scene:
        name = depth.name.removesuffix("Dpt.exr")
        images = tuple(sorted(folder.glob(f"{name}*All.tif")))
        if len(images) != _IMAGES:
            raise FileNotFoundError(f"{depth}: {_LAYOUT}; found {len(images)} images")
        return Scene(depth, images)

    @property
    def count(self) -> int:
        return len(self.scenes)

    def prepare(self, processes: int) -> Iterator[int]:
        """Yield the number of scenes at once: no preparation is needed."""
        yield self.count

    def load(self) -> Sequence[TrainingStack]:
        return LazyStacks(self)

    def describe(self) -> str:
        focus = ", ".join(f"{1.0 / DEFOCUSNET_CAMERA.focus_diopters[i]:g}" for i in self.kept)
        return f"DefocusNet data, {self.count} stacks of the part {self.part}, focused at {focus} m"

    def read(self, index: int) -> TrainingStack:
        """Read a stack by number. Raises ValueError, with the file's name, for an unreadable file."""
        scene = self.scenes[index]
        images = np.stack([_rgb(scene.images[i]) for i in self.kept])
        depth_m = read_depth(scene.depth)
        if depth_m.shape != images.shape[1:3]:
            raise ValueError(f"{scene.depth}: expected {images.shape[1:3]} pixels as the images, got {depth_m.shape}")
        focus = np.array([DEFOCUSNET_CAMERA.focus_diopters[i] for i in self.kept])
        stack = FocalStack(images, focus, DEFOCUSNET_CAMERA.camera, magnification=np.ones(len(focus)))
        return TrainingStack(stack, depth_m)


def read_depth(file: Path) -> NDArray[np.float32]:
    """Depth in metres, float32 (H, W), from an OpenEXR file.

    0, background and non-finite values become NaN. Raises ValueError, with the file's name, for an unreadable file.
    """
    # OpenCV checks this when it reads the first EXR file of a process.
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    try:
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(
            f"{file}: OpenCV does not read OpenEXR here: {error.err}; set OPENCV_IO_ENABLE_OPENEXR=1"
        ) from error
    if image is None or not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"{file}: expected an OpenEXR image of depth in metres; not readable as one")
    depth = np.asarray(image if image.ndim == 2 else image[..., -1], np.float32)  # R, the last of BGR
    known = np.isfinite(depth) & (depth > 0) & (depth <= MAX_DEPTH_M)
    return np.where(known, depth, np.float32(np.nan))


def _rgb(file: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{file}: not readable as an image")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def _positions(focus_distances_m: Sequence[float]) -> tuple[int, ...]:
    """Indices of the images at these focus distances; all five for none."""
    distances = [1.0 / value for value in DEFOCUSNET_CAMERA.focus_diopters]
    if not focus_distances_m:
        return tuple(range(_IMAGES))
    kept = []
    for wanted in focus_distances_m:
        nearest = int(np.argmin([abs(wanted - distance) for distance in distances]))
        if abs(distances[nearest] - wanted) > 1e-3:
            have = ", ".join(f"{distance:g}" for distance in distances)
            raise ValueError(f"focus distance {wanted:g} m: the DefocusNet data has {have}")
        kept.append(nearest)
    if len(set(kept)) < 2:
        raise ValueError(f"focus distances: expected two or more different ones, received {list(focus_distances_m)}")
    return tuple(sorted(set(kept)))

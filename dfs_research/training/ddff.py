"""DDFF 12-scene data: stacks refocused from a light field camera, with registered depth.

Hazirbas et al., "Deep Depth From Focus", ACCV 2018. One HDF5 file, ddff-dataset-trainval.h5:

    stack_train, stack_val    uint8 (N, 10, H, W, 3) RGB, near to far in focus
    disp_train, disp_val      float32 (N, H, W), or (N, 1, H, W): disparity in pixels, 0 = unknown

A stack is a shift-and-add of 9 x 9 views `BASELINE_M` apart: disparity = FOCAL_PX BASELINE_M / depth. The ten images
are focused at even steps of disparity between those of 0.5 m and 7 m. A point out of focus is spread over 9 views,
9 |disparity - focused disparity| pixels: the blur of a thin lens with the aperture 9 BASELINE_M. The views fill a
square, and so does the blur; the disk of equal width is an approximation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfs_research.training.lazy_stacks import LazyStacks, open_hdf5
from dfs_research.training.stacks import TrainingStack
from dfs_ros.types import Camera, FocalStack

BASELINE_M = 1982.0250823695178 / 7317.020641763665 * 1e-3
"""Distance of neighbouring views, from the calibration that comes with the data (IntParamLF)."""
FOCAL_PX = 521.4052
VIEWS = 9
FOCUS_RANGE_M = (0.5, 7.0)

_PITCH_M = 20e-6  # of a pixel of a view: 14 sensor pixels of 1.4 um; only f / p and f / N enter the blur
_LAYOUT = "expected the datasets stack_train and disp_train, or stack_val and disp_val, of ddff-dataset-trainval.h5"
_KEYS = {"train": ("stack_train", "disp_train"), "validation": ("stack_val", "disp_val")}


def ddff_camera() -> Camera:
    """Thin lens with the blur of the refocused stacks."""
    focal_length_m = FOCAL_PX * _PITCH_M
    return Camera(focal_length_m, focal_length_m / (VIEWS * BASELINE_M), _PITCH_M)


@dataclass(frozen=True)
class DdffData:
    """Part of the file; stacks are read on access."""

    file: Path
    part: str
    count: int

    @classmethod
    def find(cls, file: str | Path, part: str = "train") -> DdffData:
        """Open the stacks of a part, `train` or `validation`.

        Raises FileNotFoundError for a missing file, ValueError for an unexpected one.
        """
        with open_hdf5(file) as opened:
            missing = [key for key in _KEYS[part] if key not in opened]
            if missing:
                raise ValueError(f"{file}: {_LAYOUT}; {missing[0]} is missing, it has {', '.join(opened) or 'none'}")
            stacks, disparity = (opened[key].shape for key in _KEYS[part])
            sizes_match = len(disparity) in (3, 4) and disparity[0] == stacks[0] and disparity[-2:] == stacks[2:4]
            if len(stacks) != 5 or stacks[4] != 3 or not sizes_match:
                raise ValueError(f"{file}: {_LAYOUT}, (N, F, H, W, 3) and (N, H, W); received {stacks} and {disparity}")
            return cls(Path(file), part, int(stacks[0]))

    def prepare(self, processes: int) -> Iterator[int]:
        """Yield the number of stacks at once: no preparation is needed."""
        yield self.count

    def load(self) -> Sequence[TrainingStack]:
        return LazyStacks(self)

    def describe(self) -> str:
        return f"DDFF 12-scene data, {self.count} stacks of the part {self.part}"

    def read(self, index: int) -> TrainingStack:
        """Read a stack by number."""
        stack_key, disparity_key = _KEYS[self.part]
        with open_hdf5(self.file) as opened:
            images = np.asarray(opened[stack_key][index], np.uint8)
            disparity = np.asarray(opened[disparity_key][index], np.float32).reshape(images.shape[1:3])
        known = np.isfinite(disparity) & (disparity > 0)
        depth_m = np.full(disparity.shape, np.nan, np.float32)
        depth_m[known] = FOCAL_PX * BASELINE_M / disparity[known]
        near, far = FOCUS_RANGE_M
        focus = np.linspace(1.0 / near, 1.0 / far, len(images))  # even in disparity is even in dioptres
        return TrainingStack(FocalStack(images, focus, ddff_camera(), magnification=np.ones(len(focus))), depth_m)

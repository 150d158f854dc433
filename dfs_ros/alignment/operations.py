"""Operations of alignment on images, on the host; those of a device stand beside them in *_torch.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment import registration, still
from dfs_ros.alignment.exposure import exposure_gains
from dfs_ros.alignment.matching import Registration
from dfs_ros.alignment.registration import Motion
from dfs_ros.alignment.resampling import equalized, resampled
from dfs_ros.alignment.still import Still
from dfs_ros.system.cores import for_each, threads_for


@dataclass(frozen=True, eq=False)
class Shot:
    """Frame to be resampled.

    `table` (256,): value of a pixel value, see :func:`.exposure.gain_table`. `still`: it does not move and is only
    filtered.
    """

    frame: int
    motion: Motion
    table: NDArray[np.float32] | None
    still: bool


Resample = Callable[[NDArray[np.uint8], Sequence[Shot]], tuple[NDArray[np.uint8], NDArray[np.bool_]]]
Gains = Callable[[NDArray[np.uint8], int, Mapping[int, Motion], str], Mapping[int, float]]


def resampled_frames(
    images: NDArray[np.uint8], shots: Sequence[Shot], *, threads: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Frames in the geometry of the reference, and pixels (H, W) that all cover.

    Gains are applied, frames resampled, or filtered only if they stand still, and rounded once.
    """
    out = np.empty((len(shots), *images.shape[1:]), np.uint8)
    covered = np.ones((len(shots), *images.shape[1:3]), np.bool_)

    def resample(i: int) -> None:
        shot = shots[i]
        (height, width), table = shot.motion.size, shot.table
        source = np.asarray(images[shot.frame] if table is None else cv2.LUT(images[shot.frame], table), np.float32)
        if shot.still:
            out[i] = rounded(equalized(source), out[i].shape)
            return
        map_x, map_y = shot.motion.maps(shot.motion.size)
        # A pixel extends half a pixel around its centre.
        covered[i] = (map_x >= -0.5) & (map_x <= width - 0.5) & (map_y >= -0.5) & (map_y <= height - 0.5)
        out[i] = rounded(resampled(source, map_x, map_y), out[i].shape)

    for_each(resample, len(shots), threads_for(images.shape[1] * images.shape[2], threads))
    return out, np.asarray(covered.all(axis=0))


@dataclass(frozen=True)
class Operations:
    """Operations of alignment on images, of the host by default."""

    registration: Registration = registration
    still: Still = still
    resample: Resample = resampled_frames
    gains: Gains = exposure_gains


def rounded(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    # Rounds and saturates in one pass; OpenCV's stubs lack scalars.
    pixels = cv2.add(values, (0.0, 0.0, 0.0, 0.0), dtype=cv2.CV_8U)  # type: ignore[call-overload]
    return np.asarray(pixels, np.uint8).reshape(shape)

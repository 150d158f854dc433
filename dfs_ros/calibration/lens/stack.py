"""Focal stack of a calibrated lens: described with the calibration before, or a folder of images with a CSV file."""

from __future__ import annotations

import math
from pathlib import Path

from dfs_ros.config import Config
from dfs_ros.io.photo_table import read_photo_table
from dfs_ros.io.stack_description import StackDescription, read_description
from dfs_ros.io.stack_folder import read_stack
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.types import FocalStack

_SAME = 1e-3  # relative


def calibrated_stack(
    folder: Path, csv: Path | None, lens: LensCalibration, calibration: str, config: Config
) -> tuple[FocalStack, tuple[str, ...]]:
    """Stack at its full size, with the image scale of each frame by the calibration, and the names of its images.

    `csv`: table of raw lens positions; None: `folder` is a stack that was described with this calibration. Raises
    FileNotFoundError or ValueError, also for a stack of another size or lens.
    """
    if csv is None:
        description = read_description(folder, config.lens)
    else:
        table = read_photo_table(csv, folder, lens)
        description = StackDescription(folder, lens.camera, tuple(table.frames))
    stack = read_stack(description, config.limits.image_megapixels)
    if stack.size != lens.size:
        raise ValueError(
            f"{folder}: expected {lens.size[1]} x {lens.size[0]} pixels, as {calibration} is of, received "
            f"{stack.size[1]} x {stack.size[0]}: is the calibration of this camera, at this size?"
        )
    for name in ("focal_length_m", "f_number", "fx_px", "cx_px", "cy_px"):
        told, own = getattr(stack.camera, name), getattr(lens.camera, name)
        if not math.isclose(told, own, rel_tol=_SAME):
            raise ValueError(
                f"{folder}: camera.{name}: expected {own:.6g} of {calibration}, received {told:.6g}: describe the "
                "stack with this calibration (dfs import --calibration), or give --csv with its lens positions"
            )
    return stack, tuple(frame.file for frame in description.frames)

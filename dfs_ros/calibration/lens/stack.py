"""Focal stack of a calibrated lens: described with the calibration before, or a folder of images with a CSV file."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import Config
from dfs_ros.io.photo_table import read_photo_table
from dfs_ros.io.stack_description import StackDescription, read_description
from dfs_ros.io.stack_folder import read_stack
from dfs_ros.lens.calibration import PARAMETERS, LensCalibration
from dfs_ros.lens_field import LensField, axes
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


def beside_poses(stack: FocalStack, lens: LensCalibration) -> FocalStack:
    """Stack of a calibration, with its doubt about depth beside that by the pose of a board.

    All distances of a calibration, those of depth and those by the poses of boards, are in proportion to its focal
    length, which one pose hardly tells: an error of it is no difference of the two.
    """
    scaled = np.eye(len(PARAMETERS))
    fx = PARAMETERS.index("fx_px")
    for name in ("focus0", "focus1", "focus2", "curvature", "tilt_x", "tilt_y"):  # in dioptres
        scaled[PARAMETERS.index(name), fx] = lens[name] / lens["fx_px"]
    scaled[PARAMETERS.index("aperture_m"), fx] = -lens["aperture_m"] / lens["fx_px"]  # in metres
    covariance = scaled @ lens.covariance @ scaled.T
    field = dataclasses.replace(lens, covariance=covariance).field
    variance = stack.focus_sigma_diopters**2 - _focus_variance(stack, lens.field) + _focus_variance(stack, field)
    return dataclasses.replace(
        stack,
        camera=dataclasses.replace(stack.camera, field=field),
        focus_sigma_diopters=np.sqrt(np.maximum(variance, 0.0)),
    )


def _focus_variance(stack: FocalStack, field: LensField) -> NDArray[np.float64]:
    """Variance (F,) of the focus of each image, the mean over the field, by the covariance of a calibration."""
    x, y = axes(stack.size, stack.camera.cx_px, stack.camera.cy_px)
    focus, one = stack.focus_diopters, np.ones(len(stack))
    tilts = float(x.mean()), float(y.mean())
    curvature = float(np.square(x).mean() + np.square(y).mean())
    by = np.stack([one, focus, focus**2, curvature * one, *(tilt * one for tilt in tilts), 0 * one, 0 * one], 1)
    return np.asarray(((by @ field.covariance_matrix) * by).sum(1))

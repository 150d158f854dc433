"""focal-stack/1: a folder with `stack.yaml` beside the images of one scene at different focus.

::

    format: focal-stack/1
    note: free text                    # optional
    camera:
      focal_length_m: 0.0043
      f_number: 1.9
      pixel_pitch_m: 5.46e-06          # of an image pixel; may be left out where fx_px is given
      fx_px: 787.5                     # optional, with fy_px, cx_px, cy_px: intrinsics at reference_focus_diopters
      reference_focus_diopters: 0.0    # optional
      aperture_sigma: 0.02             # optional: relative, of a calibrated aperture, which is not estimated again
      softness_px2: 0.25               # optional: variance of the blur of an object in focus, square pixels
      aberration: 0.1                  # optional: spherical aberration, -1 to 1, where it is known
      field: {curvature: 0.1, tilt_x: 0, tilt_y: 0, vignetting: 0.2}   # optional: of a calibrated lens, lens_field.py
    frames:
    - file: 000.jpg                    # inside this folder
      focus_diopters: 0.198            # 1 / metres, 0 = infinity
      focus_sigma_diopters: 0.02       # optional: its standard deviation, 0 = exact; without: nominal
      stamp_ns: 0                      # optional
      magnification: 1.0               # optional: image scale from the driver or a calibration
      blur_scale: 1.0                  # optional: enlargement of this image by alignment
      pose:                            # optional, for later use: from this camera to the reference
        translation_m: [0.01, 0.0, 0.0]
        rotation_xyzw: [0.0, 0.0, 0.0, 1.0]    # optional, as are the standard deviations
        sigma_m: 0.001
        sigma_rad: 0.002
    reference_depth: depth.npy         # optional: float metres (.npy) or uint16 millimetres (.png), 0 or NaN = unknown

:mod:`dfs_ros.io.images` has the rules for images (orientation, 16 bit, refused sizes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import LensConfig, LimitsConfig
from dfs_ros.image_size import resized, working_size
from dfs_ros.io.images import ImageFile, write_png
from dfs_ros.io.stack_description import (
    DESCRIPTION_FILE,
    FrameEntry,
    StackDescription,
    collecting,
    combined,
    read_description,
    stack_document,
    write_description,
)
from dfs_ros.pose import stack_poses
from dfs_ros.system.atomic import staged
from dfs_ros.system.cache import map_array, save_array
from dfs_ros.system.memory import check_memory
from dfs_ros.types import FocalStack

_WHILE_DECODED = 3
"""Copies of one image while it is decoded, turned upright and converted."""


def load_stack(
    path: str | Path,
    lens: LensConfig | None = None,
    max_megapixels: float = LimitsConfig.image_megapixels,
    working_megapixels: float = math.inf,
) -> FocalStack:
    """Read a focal-stack/1 folder.

    Parameters
    ----------
    path
        The folder or its `stack.yaml`.
    lens
        Values for the lens that the file lacks; the file has precedence.
    max_megapixels
        Largest image size; larger ones are refused before decoding.
    working_megapixels
        Size that larger images are reduced to, each when it is read, as by :func:`dfs_ros.types.reduced`; the stack's
        `original_size_px` tells theirs.

    Returns
    -------
    FocalStack
        Images in the order of the file, RGB, or grey if all are grey.

    Raises
    ------
    FileNotFoundError, ValueError
        With file and entry, expected and received value, and remedy; all problems of `stack.yaml` at once. For a stack
        that does not fit into memory, before decoding.
    """
    return read_stack(read_description(path, lens), max_megapixels, working_megapixels)


def read_stack(
    description: StackDescription,
    max_megapixels: float = LimitsConfig.image_megapixels,
    working_megapixels: float = math.inf,
) -> FocalStack:
    """Read the stack of a description; every image file is opened once. See :func:`load_stack`."""
    errors: list[Exception] = []
    images: NDArray[np.uint8] = np.empty((0, 0, 0), np.uint8)
    with ExitStack() as opened:
        files = _open_images(description, max_megapixels, opened, errors)
        if errors:
            raise combined(errors)
        colour = any(file.header.colour for file in files.values())
        width, height = (max(getattr(f.header, side) for f in files.values()) for side in ("width_px", "height_px"))
        kept_px = math.prod(working_size((height, width), working_megapixels))
        check_memory(
            (len(files) * kept_px + _WHILE_DECODED * width * height) * (3 if colour else 1),
            f"{description.folder}: {len(files)} images of {width} x {height} pixels",
        )
        size, original = (height, width), (0, 0)
        for i, file in files.items():
            pixels = file.pixels(colour)
            file.close()
            if i == 0:
                original = pixels.shape[:2]
                size = working_size(original, working_megapixels)
                images = np.empty((len(files), *size, *pixels.shape[2:]), np.uint8)
            _check_alike(description, file, pixels.shape, files[0].orientation, original)
            images[i] = pixels if size == original else resized(pixels, size)
    frames, camera = description.frames, description.camera
    return FocalStack(
        images=images,
        focus_diopters=np.array([f.focus_diopters for f in frames], np.float64),
        camera=camera if size == original else camera.scaled(size[1] / original[1]),
        stamp_ns=np.array([f.stamp_ns for f in frames], np.int64),
        blur_scale=np.array([f.blur_scale for f in frames], np.float64),
        magnification=np.array([f.magnification for f in frames], np.float64),
        focus_sigma_diopters=np.array([f.focus_sigma_diopters for f in frames], np.float64),
        poses=stack_poses([f.pose for f in frames]),
        original_size_px=(0, 0) if size == original else original,
    )


def check_images(description: StackDescription, max_megapixels: float, errors: list[Exception]) -> None:
    """Check all images of a stack, decoding one at a time; append errors."""
    first: tuple[int, tuple[int, ...]] | None = None
    with ExitStack() as opened:
        for file in _open_images(description, max_megapixels, opened, errors).values():
            with collecting(errors), file:
                shape = file.pixels().shape
                first = first or (file.orientation, shape)
                _check_alike(description, file, shape, *first)


def _open_images(
    description: StackDescription, max_megapixels: float, opened: ExitStack, errors: list[Exception]
) -> dict[int, ImageFile]:
    """Open the image files by index, without decoding; append errors to `errors`."""
    files = {}
    for i, frame in enumerate(description.frames):
        with collecting(errors):
            files[i] = opened.enter_context(ImageFile(description.path(frame.file), max_megapixels))
    return files


def read_reference_depth(description: StackDescription) -> NDArray[np.float32] | None:
    """Read the reference depth of a stack in metres; None without one.

    Returns float32 (h, w) of any size, NaN = unknown.
    """
    if not description.reference_depth:
        return None
    file = description.path(description.reference_depth)
    if file.suffix == ".npy":
        depth = np.array(map_array(file), np.float32)
    else:
        with ImageFile(file) as image:
            millimetres = image.sixteen_bit_grey()
        if millimetres is None:
            raise ValueError(f"{file}: expected a .npy file or a 16-bit PNG with millimetres")
        depth = millimetres.astype(np.float32) / np.float32(1000)
    if depth.ndim != 2:
        raise ValueError(f"{file}: expected depth of shape (height, width), received {depth.shape}")
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def save_stack(
    stack: FocalStack,
    path: str | Path,
    note: str = "",
    reference_depth_m: NDArray[np.float32] | None = None,
    reference_depth_file: str = "reference_depth.npy",
    pictures: Mapping[str, NDArray[Any]] | None = None,
) -> Path:
    """Write a stack as a focal-stack/1 folder with PNG images; return the folder.

    :func:`load_stack` gives back the same stack, bit for bit. `reference_depth_m` (H, W) metres, NaN = unknown, is
    saved as `reference_depth_file`. The folder appears complete or not at all. Raises ValueError if it cannot be
    written or is not empty.
    """
    folder = Path(path).absolute()
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: expected a new or empty folder to save a stack in, received one with files in it")
    frames = []
    with staged(folder, last=DESCRIPTION_FILE) as staging:
        for i, image in enumerate(stack.images):
            file = f"{i:03d}.png"
            write_png(staging / file, image)
            frames.append(
                FrameEntry(
                    file,
                    float(stack.focus_diopters[i]),
                    int(stack.stamp_ns[i]),
                    float(stack.magnification[i]),
                    float(stack.blur_scale[i]),
                    float(stack.focus_sigma_diopters[i]),
                    stack.poses[i] if stack.poses else None,
                )
            )
        document = stack_document(stack.camera, frames, note)
        if reference_depth_m is not None:
            save_array(staging / reference_depth_file, np.asarray(reference_depth_m, np.float32))
            document["reference_depth"] = reference_depth_file
        for file, picture in (pictures or {}).items():
            write_png(staging / file, picture)
        write_description(document, staging / DESCRIPTION_FILE)
    return folder


def _check_alike(
    description: StackDescription,
    file: ImageFile,
    shape: tuple[int, ...],
    orientation: int,
    expected: tuple[int, ...],
) -> None:
    """Raise ValueError for a small image, another orientation or another size than the first."""
    first = description.frames[0].file
    if file.orientation != orientation:
        raise ValueError(
            f"{file.path}: expected the EXIF orientation of {first}, {orientation}, received {file.orientation}: the "
            "camera changed its mind about which way is up; give all images the same orientation tag"
        )
    if shape[:2] != expected[:2]:
        raise ValueError(
            f"{file.path}: expected {expected[1]} x {expected[0]} pixels as in {first}, "
            f"received {shape[1]} x {shape[0]}; images of a stack must have one size"
        )
    if min(shape[:2]) < 16:
        raise ValueError(f"{file.path}: expected at least 16 x 16 pixels, received {shape[1]} x {shape[0]}")

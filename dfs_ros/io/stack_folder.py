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
    frames:
    - file: 000.jpg                    # inside this folder
      focus_diopters: 0.198            # 1 / metres, 0 = infinity
      stamp_ns: 0                      # optional
      magnification: 1.0               # optional: image scale as the driver or a calibration knows it
      blur_scale: 1.0                  # optional: how much alignment has enlarged this image
    reference_depth: depth.npy         # optional: float metres (.npy) or uint16 millimetres (.png), 0 or NaN = unknown

How images are read (orientation, 16 bit, sizes refused) is said in :mod:`dfs_ros.io.images`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import LensConfig, ProcessingConfig
from dfs_ros.io.images import ImageHeader, read_header, read_image
from dfs_ros.io.stack_description import (
    DESCRIPTION_FILE,
    FrameEntry,
    StackDescription,
    collect_description,
    collecting,
    combined,
    read_description,
    stack_document,
    write_description,
)
from dfs_ros.system.atomic import staged
from dfs_ros.types import FocalStack


@dataclass(frozen=True)
class StackCheck:
    """What :func:`validate_stack` found: each problem in words (none: the stack loads), and what there is."""

    problems: tuple[str, ...]
    summary: str


def load_stack(
    path: str | Path,
    lens: LensConfig | None = None,
    max_megapixels: float = ProcessingConfig.max_input_megapixels,
) -> FocalStack:
    """Read a focal-stack/1 folder.

    Parameters
    ----------
    path
        The folder or its `stack.yaml`.
    lens
        Fills what the file does not say of the lens; what the file says wins.
    max_megapixels
        Larger images are refused before they are decoded.

    Returns
    -------
    FocalStack
        Images in the order of the file, RGB, or grey where all are grey.

    Raises
    ------
    FileNotFoundError, ValueError
        Names file and entry, what was expected and received, and how to mend it; all problems of `stack.yaml` at once.
    """
    description = read_description(path, lens)
    errors: list[Exception] = []
    headers = _check_headers(description, max_megapixels, errors)
    if errors:
        raise combined(errors)
    colour = any(h.colour for h in headers.values())
    images: NDArray[np.uint8] = np.empty((0, 0, 0), np.uint8)
    for i, frame in enumerate(description.frames):
        pixels = read_image(description.path(frame.file), colour, max_megapixels)
        if i == 0:
            images = np.empty((len(description.frames), *pixels.shape), np.uint8)
        _check_size(description, i, pixels.shape, images.shape[1:])
        images[i] = pixels
    frames = description.frames
    return FocalStack(
        images=images,
        focus_diopters=np.array([f.focus_diopters for f in frames], np.float64),
        camera=description.camera,
        stamp_ns=np.array([f.stamp_ns for f in frames], np.int64),
        blur_scale=np.array([f.blur_scale for f in frames], np.float64),
        magnification=np.array([f.magnification for f in frames], np.float64),
    )


def validate_stack(
    path: str | Path,
    lens: LensConfig | None = None,
    max_megapixels: float = ProcessingConfig.max_input_megapixels,
) -> StackCheck:
    """Check all that :func:`load_stack` checks, images included, and report every problem instead of raising."""
    errors: list[Exception] = []
    summary = f"{path}: not a usable focal stack"
    description = collect_description(path, lens, errors)
    if description is not None:
        shape = check_images(description, max_megapixels, errors)
        if shape is not None:
            summary = _summary(description, shape)
    return StackCheck(tuple(map(str, errors)), summary)


def check_images(
    description: StackDescription, max_megapixels: float, errors: list[Exception]
) -> tuple[int, ...] | None:
    """Check all images of a stack, decoding one at a time; errors are appended.

    Returns the shape of the first sound one.
    """
    headers = _check_headers(description, max_megapixels, errors)
    shape: tuple[int, ...] | None = None
    for i in headers:
        with collecting(errors):
            pixels = read_image(description.path(description.frames[i].file), True, max_megapixels)
            shape = shape or pixels.shape
            _check_size(description, i, pixels.shape, shape)
    return shape


def _check_headers(
    description: StackDescription, max_megapixels: float, errors: list[Exception]
) -> dict[int, ImageHeader]:
    """Check all images without decoding them: present, not too large, of one EXIF orientation; by index."""
    headers = {}
    for i, frame in enumerate(description.frames):
        with collecting(errors):
            headers[i] = read_header(description.path(frame.file), max_megapixels)
    orientations = sorted({h.orientation for h in headers.values()})
    if len(orientations) > 1:
        errors.append(
            ValueError(
                f"{description.folder}: expected images of one EXIF orientation, received {orientations}: the camera "
                "changed its mind about which way is up; give all of them the same orientation tag"
            )
        )
    return headers


def load_reference_depth(path: str | Path) -> NDArray[np.float32] | None:
    """The reference depth of a stack in metres, float32 (h, w) of any size, NaN = unknown; None where it has none."""
    description = read_description(path)
    if not description.reference_depth:
        return None
    file = description.path(description.reference_depth)
    if file.suffix == ".npy":
        try:
            # Mapped first: a header that promises more than the file holds is an error, not an allocation.
            depth = np.array(np.load(file, mmap_mode="r", allow_pickle=False), np.float32)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{file}: expected a whole .npy file of numbers ({error})") from error
    else:
        read_header(file)
        millimetres = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if millimetres is None or millimetres.dtype != np.uint16:
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
) -> Path:
    """Write a stack as a focal-stack/1 folder with PNG images; :func:`load_stack` gives back the same, bit for bit.

    `reference_depth_m` (H, W) metres, NaN = unknown, goes with it as `reference_depth_file`.

    The folder appears complete or not at all. Returns it. Raises ValueError where it cannot be written or is there
    already with something in it.
    """
    folder = Path(path).absolute()
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: expected a new or empty folder to save a stack in, received one with files in it")
    frames = []
    with staged(folder, last=DESCRIPTION_FILE) as staging:
        for i, image in enumerate(stack.images):
            file = f"{i:03d}.png"
            # Not cv2.imwrite, which returns False for a full disk and does not say why.
            _, data = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])
            (staging / file).write_bytes(data.tobytes())
            focus, stamp = float(stack.focus_diopters[i]), int(stack.stamp_ns[i])
            frames.append(FrameEntry(file, focus, stamp, float(stack.magnification[i]), float(stack.blur_scale[i])))
        document = stack_document(stack.camera, frames, note)
        if reference_depth_m is not None:
            np.save(staging / reference_depth_file, np.asarray(reference_depth_m, np.float32), allow_pickle=False)
            document["reference_depth"] = reference_depth_file
        write_description(document, staging / DESCRIPTION_FILE)
    return folder


def _check_size(description: StackDescription, i: int, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape[:2] != expected[:2]:
        raise ValueError(
            f"{description.path(description.frames[i].file)}: expected {expected[1]} x {expected[0]} pixels as in "
            f"{description.frames[0].file}, received {shape[1]} x {shape[0]}; images of a stack must have one size"
        )
    if min(shape[:2]) < 16:
        raise ValueError(
            f"{description.path(description.frames[i].file)}: expected at least 16 x 16 pixels, "
            f"received {shape[1]} x {shape[0]}"
        )


def _summary(description: StackDescription, shape: tuple[int, ...]) -> str:
    focus = sorted(f.focus_diopters for f in description.frames)
    camera = description.camera
    far = "infinity" if focus[0] == 0 else f"{1 / focus[0]:.3g} m"
    return (
        f"{len(focus)} images of {shape[1]} x {shape[0]}, focus {focus[0]:.3g} to {focus[-1]:.3g} dioptres "
        f"({far} to {1 / focus[-1]:.3g} m), lens {camera.focal_length_m * 1e3:.4g} mm f/{camera.f_number:g}, "
        f"pixel {camera.pixel_pitch_m * 1e6:.3g} um"
    )

"""Types of the package's data: Camera, FocusMetadata, Frame, FocalStack, DepthResult.

All are frozen, and validated on creation, so that later code need not check again. Depth is in metres, focus and
inverse depth in dioptres (1/m, 0 = infinity), blur in pixels, time in integer nanoseconds; unknown = NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfs_ros.image_size import check_image, resized, working_size
from dfs_ros.lens_field import LensField
from dfs_ros.pose import Pose, stack_poses

MAX_FRAMES = 64

Progress = Callable[[str, float], None]
"""Function of the name of what begins or is prepared, and its completed share."""


def _positive(value: float, name: str, unit: str) -> float:
    value = float(value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a finite number over 0 [{unit}], received {value}")
    return value


@dataclass(frozen=True)
class Camera:
    """Thin lens and sensor, with pinhole intrinsics.

    Parameters
    ----------
    focal_length_m, f_number, pixel_pitch_m
        Lens, and size of one image pixel on the sensor. Only their combination enters the blur, in pixels:
        ``c = f^2 |D_f - D| / (N (1 - f D_f) p)``.
    fx_px, fy_px, cx_px, cy_px
        Intrinsics at `reference_focus_diopters`; NaN (the default) = derived: ``fx = fy = f / ((1 - f D_ref) p)``,
        centre of the image.
    reference_focus_diopters
        Focus of the intrinsics, which change with focus as the lens breathes.
    aperture_sigma
        Standard deviation of the logarithm of a calibrated aperture, which is not estimated again; NaN = nominal.
    softness_px2
        Variance of the lens' blur of an object in focus, without the pixel's own; NaN = unknown.
    aberration
        Spherical aberration, -1 to 1; 0 = none, or unknown: light over the radius r of the blur (1 = rim) is
        ``1 + aberration (2 r^2 - 1)`` on the near side of the focus, with the opposite sign on the far side.
    field
        Focal surface and vignetting, of a calibrated lens: focus and f-number are then means over the image.
    """

    focal_length_m: float
    f_number: float
    pixel_pitch_m: float
    fx_px: float = math.nan
    fy_px: float = math.nan
    cx_px: float = math.nan
    cy_px: float = math.nan
    reference_focus_diopters: float = 0.0
    aperture_sigma: float = math.nan
    softness_px2: float = math.nan
    aberration: float = 0.0
    field: LensField | None = None

    def __post_init__(self) -> None:
        for name in ("fx_px", "fy_px", "cx_px", "cy_px", "aperture_sigma", "softness_px2"):
            if math.isnan(getattr(self, name)):
                object.__setattr__(self, name, math.nan)  # one object: cameras with the same unknowns are equal
        _positive(self.focal_length_m, "camera.focal_length_m", "m")
        _positive(self.f_number, "camera.f_number", "1")
        _positive(self.pixel_pitch_m, "camera.pixel_pitch_m", "m")
        for name in ("aperture_sigma", "softness_px2"):
            if getattr(self, name) < 0:
                raise ValueError(f"camera.{name}: expected 0 (exact) or more, received {getattr(self, name):g}")
        object.__setattr__(self, "aberration", self.aberration + 0.0)  # no -0
        if not -1.0 <= self.aberration <= 1.0:
            raise ValueError(f"camera.aberration: expected -1 to 1, received {self.aberration:g}")
        if self.focal_length_m > 2.0:
            raise ValueError(
                f"camera.focal_length_m: expected metres (0.0043 for a phone), received {self.focal_length_m}; "
                "divide millimetres by 1000"
            )
        if self.pixel_pitch_m > 1e-3:
            wrong = f"expected metres (3.9e-06 for 3.9 um), received {self.pixel_pitch_m}; divide micrometres by 1e6"
            raise ValueError(f"camera.pixel_pitch_m: {wrong}")
        check_focus(self.reference_focus_diopters, self.focal_length_m, "camera.reference_focus_diopters")

    def __reduce__(self) -> tuple[type[Camera], tuple[Any, ...]]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # equal after pickling, too

    def scaled(self, factor: float) -> Camera:
        """Camera of images resized by `factor` (0.5: half the pixels each way)."""
        _positive(factor, "factor", "1")
        return replace(
            self,
            pixel_pitch_m=self.pixel_pitch_m / factor,
            fx_px=self.fx_px * factor,
            fy_px=self.fy_px * factor,
            cx_px=(self.cx_px + 0.5) * factor - 0.5,
            cy_px=(self.cy_px + 0.5) * factor - 0.5,
            softness_px2=self.softness_px2 * factor**2,
        )


def check_focus(focus_diopters: float, focal_length_m: float, name: str = "focus_diopters") -> None:
    """Raise ValueError for a focus inside the focal length, beyond infinity or not finite."""
    if not math.isfinite(focus_diopters):
        raise ValueError(f"{name}: expected finite dioptres (0 = infinity), received {focus_diopters}")
    if focus_diopters < 0:
        raise ValueError(
            f"{name}: expected dioptres of 0 (infinity) or more, received {focus_diopters}; "
            "nothing lies beyond infinity, so check the lens calibration"
        )
    if focus_diopters * focal_length_m >= 1:
        raise ValueError(
            f"{name}: {focus_diopters} dioptres is {1 / focus_diopters:.4g} m, inside the focal length "
            f"{focal_length_m} m, where no lens can focus; check the units (dioptres = 1 / metres)"
        )


class LensState(IntEnum):
    """State of the lens, by its number in FrameFocus.msg; any other reads as UNKNOWN."""

    STATIONARY = 0
    MOVING = 1
    UNKNOWN = 2

    @classmethod
    def _missing_(cls, value: object) -> LensState:
        return cls.UNKNOWN


@dataclass(frozen=True)
class FocusMetadata:
    """Metadata of one exposure from a camera driver: fields of FrameFocus.msg, validated by the stack assembler.

    Parameters
    ----------
    stamp_ns
        Stamp of the image.
    focus_diopters, focus_start_diopters, focus_end_diopters, focus_sigma_diopters
        Focus in the middle, at the start and at the end of the exposure, standard deviation (0 = exact); NaN = unknown.
    focal_length_m, f_number, magnification
        Lens, and image scale relative to the reference focus of camera_info; NaN or 0 = unknown.
    sweep_id, index, count
        Position in a sweep: number of the sweep, of the image within it (any order, each once), and of its images;
        `count` 0 = unknown.
    raw_position, raw_unit
        Lens position in the driver's unit, for a calibration to turn into focus; NaN = unknown, or done already.
    """

    stamp_ns: int
    focus_diopters: float
    focus_start_diopters: float = math.nan
    focus_end_diopters: float = math.nan
    focus_sigma_diopters: float = math.nan
    lens_state: LensState = LensState.UNKNOWN
    focal_length_m: float = math.nan
    f_number: float = math.nan
    magnification: float = math.nan
    exposure_ns: int = 0
    sweep_id: int = 0
    index: int = 0
    count: int = 0
    raw_position: float = math.nan
    raw_unit: str = ""


@dataclass(frozen=True, eq=False)
class Frame:
    """Image with its focus and its lens.

    Parameters
    ----------
    image
        uint8 (H, W, 3) RGB or (H, W).
    focus_diopters, focus_sigma_diopters
        Focus in the middle of the exposure and its standard deviation (0 = exact); NaN = unknown.
    sweep_id, index, count
        Place in the driver's sweep, as in FocusMetadata; None = unknown.
    lens_moving
        The lens had not settled during the exposure.
    magnification, focal_length_m, f_number
        As in FocusMetadata; NaN = unknown.
    original_size_px
        (height, width) of the image as the camera sent it, which camera_info describes; (0, 0) = that of `image`.
    pose
        From this camera to a frame that all images share; None = unknown.
    """

    image: NDArray[np.uint8]
    focus_diopters: float
    stamp_ns: int = 0
    sweep_id: int | None = None
    index: int | None = None
    count: int | None = None
    lens_moving: bool = False
    magnification: float = math.nan
    focal_length_m: float = math.nan
    f_number: float = math.nan
    focus_sigma_diopters: float = math.nan
    original_size_px: tuple[int, int] = (0, 0)
    pose: Pose | None = None

    def __post_init__(self) -> None:
        check_image(self.image, "frame.image")
        if self.original_size_px == (0, 0):
            object.__setattr__(self, "original_size_px", self.image.shape[:2])

    @property
    def scale(self) -> float:
        """Pixels of `image` per pixel of the original, each way."""
        return float(self.image.shape[1] / self.original_size_px[1])


@dataclass(frozen=True, eq=False)
class FocalStack:
    """Images of one scene at different focus, in any order.

    Parameters
    ----------
    images
        uint8 (F, H, W, 3) RGB or (F, H, W) grey, F from 2 to 64.
    focus_diopters
        float64 (F,), at least two of them different.
    camera
        The lens.
    stamp_ns
        int64 (F,), 0 where unknown.
    blur_scale
        float64 (F,): enlargement of each image, and of its blur, by alignment (1 = none).
    magnification
        float64 (F,): image scale of each frame from the driver or a calibration; NaN = that of a thin lens.
    focus_sigma_diopters
        float64 (F,): standard deviation of each focus; 0 = exact, NaN = not stated.
    poses
        From each camera (optical frame: x right, y down, z forward) to one frame that all share, None = unknown; empty
        = none known. Their standard deviations are those of motion within the stack.
    original_size_px
        (height, width) of images that were reduced when read, and of the depth that is estimated from them; (0, 0) =
        that of `images`.
    """

    images: NDArray[np.uint8]
    focus_diopters: NDArray[np.float64]
    camera: Camera
    stamp_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    blur_scale: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    magnification: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    focus_sigma_diopters: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    poses: tuple[Pose | None, ...] = ()
    original_size_px: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        images = self.images
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            received = getattr(images, "dtype", type(images).__name__)
            raise TypeError(f"images: expected a uint8 array, received {received}")
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
            raise ValueError(f"images: expected shape (F, H, W, 3) RGB or (F, H, W), received {images.shape}")
        count = images.shape[0]
        if count < 2:
            raise ValueError(f"a focal stack needs at least 2 images at different focus, received {count}")
        if count > MAX_FRAMES:
            raise ValueError(f"a focal stack holds at most {MAX_FRAMES} images, received {count}; leave some out")
        check_image(images[0], "images")
        focus = np.asarray(self.focus_diopters, np.float64)
        if focus.shape != (count,):
            raise ValueError(f"focus_diopters: expected shape ({count},) to go with the images, received {focus.shape}")
        for i, value in enumerate(focus):
            check_focus(float(value), self.camera.focal_length_m, f"focus_diopters[{i}]")
        if np.ptp(focus) < 1e-6:
            raise ValueError(f"focus_diopters: all {count} images are at {focus[0]:g} dioptres; depth needs two")
        object.__setattr__(self, "focus_diopters", focus)
        self._fill("stamp_ns", np.int64, 0)
        self._fill("blur_scale", np.float64, 1.0)
        self._fill("magnification", np.float64, math.nan)
        self._fill("focus_sigma_diopters", np.float64, math.nan)
        if not (np.isfinite(self.blur_scale).all() and (self.blur_scale > 0).all()):
            raise ValueError(f"blur_scale: expected finite numbers over 0, received {self.blur_scale}")
        sigma = self.focus_sigma_diopters
        if (sigma < 0).any() or np.isinf(sigma).any():
            raise ValueError(f"focus_sigma_diopters: expected 0 (exact) or more, or NaN (not stated), received {sigma}")
        if len(self.poses) not in (0, count):
            raise ValueError(f"poses: expected none or {count}, received {len(self.poses)}")

    def _fill(self, name: str, dtype: Any, default: float) -> None:
        value = np.asarray(getattr(self, name), dtype)
        if value.size == 0:
            value = np.full(len(self.images), default, dtype)
        if value.shape != (len(self.images),):
            raise ValueError(f"{name}: expected shape ({len(self.images)},), received {value.shape}")
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the depth that is estimated from these images."""
        return self.size if self.original_size_px == (0, 0) else self.original_size_px

    @classmethod
    def from_frames(cls, frames: list[Frame], camera: Camera) -> FocalStack:
        """Stack of frames of one size; `camera` is that of the original images."""
        for shapes in ({f.image.shape for f in frames}, {f.original_size_px for f in frames}):
            if len(shapes) > 1:
                raise ValueError(f"images of a stack must have one size, received {sorted(shapes)}")
        scale = frames[0].scale if frames else 1.0
        return cls(
            images=np.stack([f.image for f in frames]) if frames else np.zeros((0, 16, 16), np.uint8),
            focus_diopters=np.array([f.focus_diopters for f in frames], np.float64),
            camera=camera if scale == 1.0 else camera.scaled(scale),
            stamp_ns=np.array([f.stamp_ns for f in frames], np.int64),
            magnification=np.array([f.magnification for f in frames], np.float64),
            focus_sigma_diopters=np.array([f.focus_sigma_diopters for f in frames], np.float64),
            poses=stack_poses([f.pose for f in frames]),
        )


def reduced(stack: FocalStack, max_megapixels: float) -> FocalStack:
    """Reduce a stack to its working size by area; a smaller one stays the same object."""
    size = working_size(stack.size, max_megapixels)
    if size == stack.size:
        return stack
    images = np.stack([resized(image, size) for image in stack.images])
    return replace(stack, images=images, camera=stack.camera.scaled(size[1] / stack.size[1]))


def reduced_frame(frame: Frame, max_megapixels: float) -> Frame:
    """Reduce a frame to its working size, as :func:`reduced`."""
    size = working_size(frame.image.shape[:2], max_megapixels)
    return frame if size == frame.image.shape[:2] else replace(frame, image=resized(frame.image, size))


def opened(stack: FocalStack, aperture_scale: float, aberration: float = 0.0) -> FocalStack:
    """Divide the f-number of a stack: its described blur is `aperture_scale` times as wide; add an aberration."""
    if aperture_scale == 1.0 and aberration == 0.0:
        return stack
    lens = stack.camera
    lens = replace(lens, f_number=lens.f_number / aperture_scale, aberration=lens.aberration + aberration)
    return replace(stack, camera=lens)


@dataclass(frozen=True, eq=False)
class DepthResult:
    """Depth of a focal stack, in the geometry of its reference image.

    Parameters
    ----------
    depth_m, sigma_m
        float32 (H, W), NaN for pixels without reliable depth; sigma is one standard deviation.
    confidence
        float32 (H, W) in [0, 1].
    all_in_focus
        uint8 (H, W, 3) RGB.
    camera
        Camera with the intrinsics of these images.
    stamp_ns
        Stamp of the reference frame.
    alignment
        Alignment of each frame, an initial value for the next stack of the sweep.
    report
        Report of docs/formats.md: estimates, dropped frames, seconds of each step.
    dense_depth_m, dense_sigma_m
        Estimates at every pixel, reliable or not; None for a result that was not estimated here.
    local_sigma_m
        Part of sigma that varies from pixel to pixel, without the doubt about the lens; None as above.
    """

    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32]
    confidence: NDArray[np.float32]
    all_in_focus: NDArray[np.uint8]
    camera: Camera
    stamp_ns: int = 0
    alignment: tuple[Any, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)
    dense_depth_m: NDArray[np.float32] | None = None
    dense_sigma_m: NDArray[np.float32] | None = None
    local_sigma_m: NDArray[np.float32] | None = None

    @property
    def coverage(self) -> float:
        """Share of pixels that have depth."""
        return float(np.isfinite(self.depth_m).mean())

"""What a node knows of the camera: from its settings, from the focus messages, and from camera_info."""

from __future__ import annotations

import math

from dfs_ros.config import LensConfig
from dfs_ros.messages.convert import CameraInfo
from dfs_ros.optics.pinhole import Intrinsics, pixel_pitch_from_intrinsics
from dfs_ros.types import Camera, FocusMetadata

_UNKNOWN = Intrinsics(math.nan, math.nan, math.nan, math.nan)


class LensError(ValueError):
    """No depth can be computed for want of a lens; `cause` is a name to count it by."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class LensTracker:
    """The newest knowledge of lens and pinhole; settings over focus messages over camera_info."""

    def __init__(self, settings: LensConfig) -> None:
        self._settings = settings
        self._focal_length_m = settings.focal_length_m
        self._f_number = settings.f_number
        self._info: CameraInfo | None = None
        self._why_no_info = "no camera_info has come"

    def add_focus(self, focus: FocusMetadata) -> None:
        """Take the lens from a focus message, where it knows it and the settings do not."""
        if not self._settings.focal_length_m and focus.focal_length_m > 0:
            self._focal_length_m = focus.focal_length_m
        if not self._settings.f_number and focus.f_number > 0:
            self._f_number = focus.f_number

    def add_info(self, info: CameraInfo) -> None:
        """Take the pinhole from a camera_info."""
        self._info = info

    def refuse_info(self, reason: str) -> None:
        """A camera_info came that makes no sense: what was known before holds no more."""
        self._info, self._why_no_info = None, reason

    @property
    def distortion(self) -> tuple[float, ...]:
        """Lens distortion of the images, as camera_info has it; empty where there is none."""
        return self._info.distortion if self._info is not None and any(self._info.distortion) else ()

    @property
    def distortion_model(self) -> str:
        return self._info.distortion_model if self._info is not None else ""

    def camera(self, size: tuple[int, int]) -> Camera:
        """The camera of images of `size` (height, width), as they came in.

        Raises LensError where the lens is unknown or camera_info is about images of another size.
        """
        if self._info is not None and self._info.size != size:
            (height, width), (info_height, info_width) = size, self._info.size
            raise LensError(
                "wrong_camera_info",
                f"camera_info is of {info_width} x {info_height} pixels, the images have {width} x {height}: "
                "publish the camera_info of these very images (image_proc resizes both together)",
            )
        if not self._focal_length_m:
            raise LensError("no_lens", _unknown("focal_length_m"))
        if not self._f_number:
            raise LensError("no_lens", _unknown("f_number"))
        pinhole = self._info.intrinsics if self._info is not None else _UNKNOWN
        try:
            return Camera(
                self._focal_length_m,
                self._f_number,
                self._settings.pixel_pitch_m or self._pitch(pinhole),
                *pinhole,
                reference_focus_diopters=self._settings.reference_focus_diopters,
            )
        except LensError:
            raise
        except ValueError as error:
            raise LensError("no_lens", str(error)) from error

    def _pitch(self, pinhole: Intrinsics) -> float:
        if self._info is None:
            raise LensError(
                "no_lens",
                f"the size of a pixel is unknown: {self._why_no_info}; publish camera_info or set lens.pixel_pitch_m",
            )
        return pixel_pitch_from_intrinsics(pinhole.fx, self._focal_length_m, self._settings.reference_focus_diopters)


def _unknown(name: str) -> str:
    what = {"focal_length_m": "focal length", "f_number": "f-number"}[name]
    return f"the {what} of the lens is unknown: have the focus messages say it ({name}) or set lens.{name}"

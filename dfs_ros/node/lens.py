"""Camera of a stack: from the calibration, else the lens from settings or frames, and the pinhole from camera_info."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from dfs_ros.config import LensConfig, ScheduleConfig
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.lens.reading import load_lens
from dfs_ros.messages.convert import CameraInfo
from dfs_ros.optics.pinhole import Intrinsics, pixel_pitch_from_intrinsics
from dfs_ros.types import Camera, FocusMetadata, Frame

_UNKNOWN = Intrinsics(math.nan, math.nan, math.nan, math.nan)
_INFOS_KEPT = 8


class LensError(ValueError):
    """Missing or contradictory description of the lens; `cause` is its counter."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class LensTracker:
    """Tracker of the lens: its settings and calibration, and recent changes of camera_info.

    Raises FileNotFoundError or ValueError for a calibration that cannot be read.
    """

    def __init__(self, settings: LensConfig) -> None:
        self._settings = settings
        self._calibration = load_lens(settings.calibration) if settings.calibration else None
        self._direction, self._last_raw = 0, math.nan  # of the lens: a calibration knows its hysteresis
        self.rectified = False
        """Whether the images are rectified: their pinhole is that of camera_info."""
        self._infos: deque[CameraInfo] = deque(maxlen=_INFOS_KEPT)
        self._why_no_info = "no camera_info has come"

    def calibrated(self, focus: FocusMetadata | None) -> FocusMetadata | None:
        """Replace the focus by that of the raw lens position, where there is one and a calibration.

        NaN for a position beyond the calibration. Raises ValueError for positions in another unit.
        """
        lens = self._calibration
        if focus is None or lens is None or math.isnan(focus.raw_position):
            return focus
        raw = focus.raw_position
        if lens.unit not in ("raw", focus.raw_unit):
            raise ValueError(
                f"focus: expected lens positions in {lens.unit}, as {self._settings.calibration} is of, received "
                f"{focus.raw_unit}: is the calibration of this camera?"
            )
        self._direction = (raw > self._last_raw) - (raw < self._last_raw) or self._direction
        self._last_raw = raw
        diopters, sigma = lens.focus_of(raw, self._direction)
        scale = focus.magnification
        if isinstance(lens, LensCalibration):
            scale = lens.magnification_of(raw, self._direction)
            if not self.rectified:  # else the camera is that of camera_info, without the focal surface
                diopters, sigma = lens.mean_focus_of(raw, self._direction)
        return replace(
            focus,
            focus_diopters=diopters,
            focus_start_diopters=math.nan,
            focus_end_diopters=math.nan,
            focus_sigma_diopters=sigma,
            magnification=scale,
        )

    def scheduled(self, settings: ScheduleConfig) -> ScheduleConfig:
        """Settings with the settling time of the calibration, where they have none."""
        settle_s = math.nan if self._calibration is None else self._calibration.settle_s
        return settings if settings.settle_s or math.isnan(settle_s) else replace(settings, settle_s=settle_s)

    def described(self, focus: FocusMetadata) -> FocusMetadata:
        """Replace the lens in `focus` by that of the calibration or of the settings, where set."""
        if isinstance(self._calibration, LensCalibration):
            camera = self._calibration.camera
            return replace(focus, focal_length_m=camera.focal_length_m, f_number=camera.f_number)
        return replace(
            focus,
            focal_length_m=self._settings.focal_length_m or focus.focal_length_m,
            f_number=self._settings.f_number or focus.f_number,
        )

    def add_info(self, info: CameraInfo) -> None:
        """Add a camera_info, if it differs from the last."""
        if not self._infos or info._replace(stamp_ns=self._infos[-1].stamp_ns) != self._infos[-1]:
            self._infos.append(info)

    def refuse_info(self, reason: str) -> None:
        """Drop all camera_info after an invalid one."""
        self._infos.clear()
        self._why_no_info = reason

    @property
    def frame_id(self) -> str:
        """Frame of the newest camera_info; empty without one."""
        return self._infos[-1].frame_id if self._infos else ""

    def info_at(self, stamp_ns: int) -> CameraInfo | None:
        """Last camera_info up to the stamp of an image, else the newest; None without any."""
        infos = [info for info in self._infos if info.stamp_ns <= stamp_ns] or self._infos
        return infos[-1] if infos else None

    def plumb_bob(self, stamp_ns: int, log: Callable[..., None]) -> tuple[float, ...]:
        """Distortion of the images at a time, empty for none and another model; a warning is logged for any."""
        info, lens = self.info_at(stamp_ns), self._calibration
        if isinstance(lens, LensCalibration) and not self.rectified:
            return lens["k1"], lens["k2"], 0.0, 0.0, 0.0
        if info is None or not any(info.distortion):
            return ()
        log(
            "warning",
            "camera_info says that the images are distorted: points lie off towards the corners; rectify the "
            "images first (image_proc), or set node.image_geometry=rectified if they are",
            key="distortion",
            every_s=60.0,
        )
        return info.distortion[:5] if info.distortion_model == "plumb_bob" else ()

    def camera_of(self, frames: Sequence[Frame]) -> Camera:
        """Camera of the original images of one stack's frames, oldest first; as :meth:`camera`."""

        def middle(values: Sequence[float]) -> float:
            known = [value for value in values if not math.isnan(value)]
            return statistics.median(known) if known else math.nan

        return self.camera(
            frames[-1].original_size_px,
            middle([frame.focal_length_m for frame in frames]),
            middle([frame.f_number for frame in frames]),
            self.info_at(frames[-1].stamp_ns),
        )

    def camera(self, size: tuple[int, int], focal_length_m: float, f_number: float, info: CameraInfo | None) -> Camera:
        """Make the camera of original images of `size` (height, width); NaN and None = unknown.

        Raises LensError for an unknown lens, and a calibration or camera_info of another image size.
        """
        lens = self._calibration
        if isinstance(lens, LensCalibration) and not self.rectified:
            if lens.size != size:
                raise LensError(
                    "no_lens",
                    f"{self._settings.calibration} is of {lens.size[1]} x {lens.size[0]} pixels, the images have "
                    f"{size[1]} x {size[0]}: is the calibration of this camera, at this size?",
                )
            return lens.camera
        if info is not None and info.size != size:
            (height, width), (info_height, info_width) = size, info.size
            raise LensError(
                "wrong_camera_info",
                f"camera_info is of {info_width} x {info_height} pixels, the images have {width} x {height}: "
                "publish the camera_info of these very images (image_proc resizes both together)",
            )
        if not focal_length_m > 0:
            raise LensError("no_lens", _unknown("focal_length_m"))
        if not f_number > 0:
            raise LensError("no_lens", _unknown("f_number"))
        pinhole = info.intrinsics if info is not None else _UNKNOWN
        try:
            return Camera(
                focal_length_m,
                f_number,
                self._settings.pixel_pitch_m or self._pitch(info, focal_length_m),
                *pinhole,
                reference_focus_diopters=self._settings.reference_focus_diopters,
            )
        except LensError:
            raise
        except ValueError as error:
            raise LensError("no_lens", str(error)) from error

    def _pitch(self, info: CameraInfo | None, focal_length_m: float) -> float:
        if info is None:
            raise LensError(
                "no_lens",
                f"the size of a pixel is unknown: {self._why_no_info}; publish camera_info or set lens.pixel_pitch_m",
            )
        return pixel_pitch_from_intrinsics(info.intrinsics.fx, focal_length_m, self._settings.reference_focus_diopters)


def rectified(topic: str, geometry: str) -> bool:
    """True if images of a topic are rectified, by setting `node.image_geometry`."""
    if geometry != "auto":
        return geometry == "rectified"
    return topic.removesuffix("/compressed").rpartition("/")[2].startswith("image_rect")


def _unknown(name: str) -> str:
    what = {"focal_length_m": "focal length", "f_number": "f-number"}[name]
    return f"the {what} of the lens is unknown: have the focus messages say it ({name}) or set lens.{name}"

"""V4L2 camera (UVC: most webcams) with a focus sweep by `focus_absolute`.

The cycle is command, settle, capture. Continuous autofocus is switched off; it and all other changed controls are
restored at the end. The lens does not report its position: the focus of an image is the commanded one, by a calibration
of this lens (:mod:`dfs_ros.lens.table`), after a settling time of `settle_s`. Images exposed before that are sent as
MOVING.

A driver stamps an image at the arrival of its first or its last bytes: the exposure lies before that, the last rows of
a rolling shutter up to a period after. The whole interval counts, so that no partly exposed image is accepted.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from functools import partial

from dfs_ros.camera.lens_camera import CameraFrame
from dfs_ros.camera.swept import SweptSource, without_calibration
from dfs_ros.camera.v4l2.device import (
    AUTO_EXPOSURE_OFF,
    EXPOSURE_ABSOLUTE,
    EXPOSURE_AUTO,
    FOCUS_ABSOLUTE,
    FOCUS_AUTO,
    RawFrame,
    V4l2Device,
    decoded,
)
from dfs_ros.config import CameraConfig, LensConfig, V4l2Config

_LOG = logging.getLogger(__name__)


class V4l2Camera:
    """V4L2 camera as a :class:`dfs_ros.camera.lens_camera.LensCamera`; its clock is the system's monotonic one.

    Raises FileNotFoundError, PermissionError, ValueError and OSError, with the facts or a remedy.
    """

    unit = "focus_absolute"
    tolerance = math.nan
    raw_is_diopters = False
    delay_frames = 0

    def __init__(self, settings: V4l2Config, camera: CameraConfig) -> None:
        self._settings = settings
        self._period_s = 1.0 / camera.rate_hz
        self._size = (camera.height, camera.width)
        self._device = V4l2Device(settings.device, self._size, settings.pixel_format, camera.rate_hz)
        self.name = f"{self._device.name} at {settings.device} ({settings.pixel_format})"
        try:
            self.lens_range: tuple[float, float, float] = self._device.control_range(
                FOCUS_ABSOLUTE, "focus that can be set (focus_absolute)"
            )
        except BaseException:
            self._device.close()
            raise

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def move(self, raw: float) -> tuple[int, int]:
        return self._device.set(FOCUS_ABSOLUTE, round(raw))

    def frames(self, timeout_s: float) -> Generator[CameraFrame, None, None]:
        self._prepare()
        exposure_s = self._settings.exposure_s
        for frame in self._device.frames(timeout_s):
            start_ns, end_ns = exposed(frame, exposure_s or self._period_s, self._period_s)
            image = None
            try:
                if frame.damaged:
                    raise ValueError("the driver says it is damaged")
                image = decoded(frame, self._size, self._settings.pixel_format)
            except ValueError as error:
                _LOG.debug("image left out", exc_info=error)
            yield CameraFrame(image, start_ns, end_ns, sequence=frame.sequence, exposure_ns=round(exposure_s * 1e9))

    def close(self) -> None:
        self._device.close()

    def _prepare(self) -> None:
        device = self._device
        if device.has(FOCUS_AUTO):
            device.set(FOCUS_AUTO, 0)
        if self._settings.exposure_s:
            low, high, step = device.control_range(EXPOSURE_ABSOLUTE, "exposure that can be set (exposure_absolute)")
            value = round(self._settings.exposure_s * 1e4)
            if not low <= value <= high:
                raise ValueError(
                    f"v4l2.exposure_s: expected {low * 1e-4:g} to {high * 1e-4:g} s, received "
                    f"{self._settings.exposure_s:g}"
                )
            if device.has(EXPOSURE_AUTO):
                device.set(EXPOSURE_AUTO, AUTO_EXPOSURE_OFF)
            device.set(EXPOSURE_ABSOLUTE, low + round((value - low) / step) * step)


class V4l2Source(SweptSource):
    """V4L2 source, see the head of this module.

    Raises FileNotFoundError, ValueError or OSError for invalid settings and an unusable camera.
    """

    def __init__(self, settings: V4l2Config, camera: CameraConfig, lens: LensConfig) -> None:
        calibration = lens.calibration or settings.calibration
        if not calibration:
            raise without_calibration(V4l2Camera.unit)
        super().__init__(partial(V4l2Camera, settings, camera), "v4l2", settings, camera, lens, calibration)


def exposed(frame: RawFrame, exposure_s: float, readout_s: float) -> tuple[int, int]:
    """Earliest start and latest end of an image's exposure, on the system's monotonic clock."""
    readout_ns = round(readout_s * 1e9)
    first_row_ns = frame.time_ns if frame.at_start else frame.time_ns - readout_ns
    return first_row_ns - round(exposure_s * 1e9), first_row_ns + readout_ns

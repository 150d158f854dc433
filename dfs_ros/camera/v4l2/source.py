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
from collections.abc import Generator, Mapping

import numpy as np

from dfs_ros.camera.camera_file import load_camera_file
from dfs_ros.camera.focus_sweep import FocusSweep, LensPath
from dfs_ros.camera.source import SourceFrame, sweep_order
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
from dfs_ros.config import CameraConfig, LensConfig, V4l2Config, numbers
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.lens.reading import load_lens
from dfs_ros.lens.table import LensTable
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.transport.base import Transport
from dfs_ros.types import FocusMetadata, LensState

_LOG = logging.getLogger(__name__)
_SETTLE_S = 0.3  # default without settings and calibration
_MOST_POSITIONS = 64


class V4l2Source:
    """V4L2 source, see the head of this module.

    The device is checked at once, and opened by :meth:`frames`. Raises FileNotFoundError, ValueError or OSError for
    invalid settings and an unusable camera.
    """

    paced = True

    def __init__(self, settings: V4l2Config, camera: CameraConfig, lens: LensConfig) -> None:
        self._settings, self._camera, self._lens = settings, camera, lens
        self._calibration = lens.calibration or settings.calibration
        if not self._calibration:
            raise ValueError(
                "lens.calibration: expected a file that says which focus_absolute is which dioptres "
                "(lens-calibration/1 or lens-table/1); `dfs calibrate lens --help` and `dfs focus-table "
                "--help` say how to make one"
            )
        self._table = load_lens(self._calibration)
        self._direction, self._last_raw = 0, math.nan  # of the lens: a calibration knows its hysteresis
        self._positions = _positions(settings, self._table)
        self._settle_s = settings.settle_s or (_SETTLE_S if math.isnan(self._table.settle_s) else self._table.settle_s)
        self.size = (camera.height, camera.width)
        self.intrinsics, self.distortion = _pinhole(settings, lens, self._table, self.size)
        self.frames_per_sweep = len(self._positions) * (2 + math.ceil(self._settle_s * camera.rate_hz))
        self._counts = {"lost": 0, "damaged": 0}
        self.counts: Mapping[str, int] = self._counts
        """Counts of images that were numbered by the driver but missing, and of incomplete ones."""
        self._device: V4l2Device | None = None
        with self._open() as device:
            self._raw = self._raw_positions(device)
            name = device.name
        low, high = min(self._positions), max(self._positions)
        self.description = (
            f"{name} at {settings.device}, {camera.width} x {camera.height} {settings.pixel_format}, "
            f"{len(self._positions)} focus positions from {low:.3g} to {high:.3g} dioptres, each settles for "
            f"{self._settle_s:g} s"
        )

    def connect(self, transport: Transport) -> None:
        """Do nothing: there are no topics."""

    def frames(self) -> Generator[SourceFrame, None, None]:
        """Yield frames, sweep after sweep, at the camera's pace."""
        with self._open() as device:
            self._device = device
            self._prepare(device)
            sweep = FocusSweep(sweep_order(len(self._positions), self._camera.sweep), self._settle_s)
            self._command(device, sweep)
            last: int | None = None
            for frame in device.frames(self._settings.timeout_s):
                self._counts["lost"] += max(0, frame.sequence - last - 1) if last is not None else 0
                last = frame.sequence
                taken = self._taken(frame, sweep)
                self._command(device, sweep)
                if taken is not None:
                    yield taken

    def close(self) -> None:
        """Stop, and restore the camera's controls."""
        if self._device is not None:
            self._device.close()

    def _open(self) -> V4l2Device:
        settings = self._settings
        return V4l2Device(settings.device, self.size, settings.pixel_format, self._camera.rate_hz)

    def _raw_positions(self, device: V4l2Device) -> list[int]:
        low, high, step = device.control_range(FOCUS_ABSOLUTE, "focus that can be set (focus_absolute)")
        found = []
        for focus in self._positions:
            raw = self._table.raw_of(focus)
            if not low - step / 2 <= raw <= high + step / 2:
                raise ValueError(
                    f"{self._calibration}: {focus:g} dioptres is {self._table.unit} {raw:g}, the camera takes "
                    f"{low} to {high}; is the calibration of this lens?"
                )
            found.append(min(max(low + round((raw - low) / step) * step, low), high))
        if len(set(found)) < len(found):
            raise ValueError(
                f"v4l2: expected focus positions that differ for the lens, received focus_absolute {found} in steps of "
                f"{step}; ask for fewer"
            )
        return found

    def _prepare(self, device: V4l2Device) -> None:
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

    def _command(self, device: V4l2Device, sweep: FocusSweep) -> None:
        wanted = sweep.wanted
        if wanted is not None:
            raw = self._raw[wanted]
            self._direction = (raw > self._last_raw) - (raw < self._last_raw) or self._direction
            self._last_raw = raw
            sweep.commanded(*device.set(FOCUS_ABSOLUTE, raw))

    def _taken(self, frame: RawFrame, sweep: FocusSweep) -> SourceFrame | None:
        """Frame to send; None for an incomplete or unneeded image."""
        try:
            if frame.damaged:
                raise ValueError("the driver says it is damaged")
            image = decoded(frame, self.size, self._settings.pixel_format)
        except ValueError as error:
            self._counts["damaged"] += 1
            _LOG.debug("image left out", exc_info=error)
            return None
        period_s = 1.0 / self._camera.rate_hz
        start_ns, end_ns = exposed(frame, self._settings.exposure_s or period_s, period_s)
        path = sweep.exposed(start_ns, end_ns)
        if path is None or (path.place is None and not path.moving):
            return None
        focus, interpolated = self._focus(path, start_ns + time.time_ns() - time.monotonic_ns())
        return SourceFrame(
            image,
            focus,
            stamped=True,
            source="INTERPOLATED" if interpolated else "COMMANDED",
            raw_position=float(self._raw[path.position]),
            raw_unit=self._table.unit,
        )

    def _focus(self, path: LensPath, stamp_ns: int) -> tuple[FocusMetadata, bool]:
        """Focus of an exposure, and True if it is interpolated between two positions."""
        raw = self._raw[path.position]
        there, sigma = self._table.focus_of(raw, self._direction)
        start = self._table.focus_of(self._raw[path.origin])[0] if path.moving else there
        focal_length_m, f_number, magnification = self._lens.focal_length_m, self._lens.f_number, math.nan
        if isinstance(self._table, LensCalibration):
            camera = self._table.camera
            focal_length_m, f_number = camera.focal_length_m, camera.f_number
            magnification = self._table.magnification_of(raw, self._direction)
        sweep_id, index, count = path.place or (0, 0, 0)
        focus = FocusMetadata(
            stamp_ns=stamp_ns,
            focus_diopters=(start + there) / 2,
            focus_start_diopters=start,
            focus_end_diopters=there,
            focus_sigma_diopters=abs(there - start) / 2 if path.moving else sigma,
            lens_state=LensState.MOVING if path.moving else LensState.STATIONARY,
            focal_length_m=focal_length_m or math.nan,
            f_number=f_number or math.nan,
            magnification=magnification,
            exposure_ns=round(self._settings.exposure_s * 1e9),
            sweep_id=sweep_id,
            index=index,
            count=count,
        )
        return focus, path.moving


def exposed(frame: RawFrame, exposure_s: float, readout_s: float) -> tuple[int, int]:
    """Earliest start and latest end of an image's exposure, on the system's monotonic clock."""
    readout_ns = round(readout_s * 1e9)
    first_row_ns = frame.time_ns if frame.at_start else frame.time_ns - readout_ns
    return first_row_ns - round(exposure_s * 1e9), first_row_ns + readout_ns


def _positions(settings: V4l2Config, table: LensTable | LensCalibration) -> list[float]:
    """Focus positions of a sweep in dioptres.

    Those of the settings, or `positions` ones uniform over the lens table, near to far.
    """
    if not settings.focus_diopters.strip():
        low, high = table.range_diopters
        return [float(focus) for focus in np.linspace(high, low, settings.positions)]
    positions = list(numbers(settings.focus_diopters, "v4l2.focus_diopters"))
    if not 2 <= len(positions) <= _MOST_POSITIONS:
        raise ValueError(f"v4l2.focus_diopters: expected 2 to {_MOST_POSITIONS} positions, received {len(positions)}")
    for focus in positions:
        table.raw_of(focus)
    return positions


def _pinhole(
    settings: V4l2Config, lens: LensConfig, table: LensTable | LensCalibration, size: tuple[int, int]
) -> tuple[Intrinsics, tuple[float, ...]]:
    """Intrinsics and distortion from the camera's calibration file, else from that of the lens, else from `lens`."""
    if settings.camera_info:
        found = load_camera_file(settings.camera_info)
        if found.size != size:
            raise ValueError(
                f"{settings.camera_info}: is of {found.size[1]} x {found.size[0]} pixels, the images have {size[1]} x "
                f"{size[0]}: calibrate at that size, or set camera.width and camera.height"
            )
        return found.intrinsics, found.distortion
    if isinstance(table, LensCalibration):
        if table.size != size:
            raise ValueError(
                f"{lens.calibration or settings.calibration}: is of {table.size[1]} x {table.size[0]} pixels, the "
                f"images have {size[1]} x {size[0]}: calibrate at that size, or set camera.width and camera.height"
            )
        camera = table.camera
        distortion = (table["k1"], table["k2"], 0.0, 0.0, 0.0)
        return Intrinsics(camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px), distortion
    if not (lens.focal_length_m and lens.pixel_pitch_m):
        raise ValueError(
            "v4l2.camera_info: expected a camera calibration (of camera_calibration), or lens.focal_length_m and "
            "lens.pixel_pitch_m"
        )
    fx = lens.focal_length_m / lens.pixel_pitch_m
    return Intrinsics(fx, fx, (size[1] - 1) / 2, (size[0] - 1) / 2), ()

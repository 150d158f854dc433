"""Source of frames from a camera whose lens sweeps, with the focus by a calibration of the lens.

Each image has the focus of the position at which the lens had settled (:mod:`dfs_ros.camera.lens_camera`); images
exposed while it moves are sent as MOVING.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping

import numpy as np
from numpy.typing import NDArray

from dfs_ros.camera.camera_file import load_camera_file
from dfs_ros.camera.focus_sweep import LensPath
from dfs_ros.camera.lens_camera import CameraFrame, LensCamera, steps_of_lens, swept_frames
from dfs_ros.camera.source import SourceFrame, sweep_order
from dfs_ros.config import CameraConfig, LensConfig, SweptCameraConfig, numbers
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.lens.reading import load_lens
from dfs_ros.lens.table import LensTable
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.transport.base import Transport
from dfs_ros.types import FocusMetadata, LensState

_SETTLE_S = 0.3  # default without settings and calibration
_MOST_POSITIONS = 64


class SweptSource:
    """Source of a camera that `opened` opens, see the head of this module.

    `section`: name of the section of `settings`, for messages; `calibration`: file, empty = the camera's own dioptres.
    The camera is opened at once, to check it, and again by :meth:`frames`. Raises FileNotFoundError, ValueError or
    OSError for invalid settings and an unusable camera.
    """

    paced = True

    def __init__(
        self,
        opened: Callable[[], LensCamera],
        section: str,
        settings: SweptCameraConfig,
        camera: CameraConfig,
        lens: LensConfig,
        calibration: str,
    ) -> None:
        self._opened, self._section, self._settings, self._config, self._lens = opened, section, settings, camera, lens
        self._calibration = calibration
        table = load_lens(calibration) if calibration else None
        self._direction, self._last_raw = 0, math.nan  # of the lens: a calibration knows its hysteresis
        self.size = (camera.height, camera.width)
        self._counts = {"lost": 0, "damaged": 0}
        self.counts: Mapping[str, int] = self._counts
        """Counts of images that were numbered by the driver but missing, and of incomplete ones."""
        if table is not None:  # what needs no camera is checked before it is opened
            self.intrinsics, self.distortion = self._pinhole(table)
        self._device: LensCamera | None = None
        device = self._device = opened()
        try:
            self._table = table or self._own_table(device)
            self.intrinsics, self.distortion = self._pinhole(self._table)
            self._positions = self._wanted()
            self._raw = self._raw_positions(device)
            settle_s = _SETTLE_S if math.isnan(self._table.settle_s) else self._table.settle_s
            self._settle_s = settings.settle_s or settle_s
            a_position = 2 + device.delay_frames + math.ceil(self._settle_s * camera.rate_hz)
            self.frames_per_sweep = len(self._positions) * a_position
            name = device.name
        finally:
            self.close()
        low, high = min(self._positions), max(self._positions)
        self.description = (
            f"{name}, {camera.width} x {camera.height}, {len(self._positions)} focus positions from {low:.3g} to "
            f"{high:.3g} dioptres, each settles for {self._settle_s:g} s"
        )

    def connect(self, transport: Transport) -> None:
        """Do nothing: there are no topics."""

    def frames(self) -> Generator[SourceFrame, None, None]:
        """Yield frames, sweep after sweep, at the camera's pace."""
        device = self._device = self._opened()
        try:
            last: int | None = None
            orders = sweep_order(len(self._positions), self._config.sweep)
            for frame, path, _ in swept_frames(device, self._raw, orders, self._settle_s, self._settings.timeout_s):
                if frame.sequence is not None:
                    self._counts["lost"] += max(0, frame.sequence - last - 1) if last is not None else 0
                    last = frame.sequence
                self._counts["damaged"] += frame.image is None
                if frame.image is not None and path is not None and (path.place is not None or path.moving):
                    yield self._taken(frame.image, frame, path, clock_offset_ns(device.now_ns))
        finally:
            device.close()

    def close(self) -> None:
        """Stop, and release the camera."""
        if self._device is not None:
            self._device.close()

    def _own_table(self, device: LensCamera) -> LensTable:
        """Lens table of a camera whose raw positions are nominal dioptres."""
        if not device.raw_is_diopters:
            raise without_calibration(device.unit)
        ends = np.array(device.lens_range[:2], np.float64)
        return LensTable(ends, ends, np.full(2, math.nan), device.unit)

    def _raw_positions(self, device: LensCamera) -> list[float]:
        low, high, step = device.lens_range
        if self._table.unit not in ("", "raw", device.unit):
            raise ValueError(
                f"{self._calibration}: is of lens positions in {self._table.unit}, {device.name} has {device.unit}: is "
                "the calibration of this camera?"
            )
        raws = [self._table.raw_of(focus) for focus in self._positions]
        for focus, raw in zip(self._positions, raws, strict=True):
            if not low - step / 2 <= raw <= high + step / 2:
                raise ValueError(
                    f"{self._calibration}: {focus:g} dioptres is {self._table.unit} {raw:g}, the camera takes "
                    f"{low} to {high}; is the calibration of this lens?"
                )
        found = steps_of_lens(raws, device.lens_range)
        if len(set(found)) < len(found):
            raise ValueError(
                f"{self._section}: expected focus positions that differ for the lens, received {device.unit} {found} "
                f"in steps of {step}; ask for fewer"
            )
        return found

    def _taken(self, image: NDArray[np.uint8], frame: CameraFrame, path: LensPath, to_wall_ns: int) -> SourceFrame:
        raw = self._raw[path.position]
        self._direction = (raw > self._last_raw) - (raw < self._last_raw) or self._direction
        self._last_raw = raw
        return SourceFrame(
            image,
            self._focus(path, frame.start_ns + to_wall_ns, frame.exposure_ns),
            stamped=True,
            source="INTERPOLATED" if path.moving else "COMMANDED" if math.isnan(frame.raw) else "REPORTED",
            raw_position=float(raw),
            raw_unit=self._table.unit,
            calibration="CALIBRATED" if self._calibration else "APPROXIMATE",
        )

    def _focus(self, path: LensPath, stamp_ns: int, exposure_ns: int) -> FocusMetadata:
        """Focus of an exposure; of a moving lens it is interpolated between two positions."""
        raw = self._raw[path.position]
        there, sigma = self._table.focus_of(raw, self._direction)
        start = self._table.focus_of(self._raw[path.origin])[0] if path.moving else there
        focal_length_m, f_number, magnification = self._lens.focal_length_m, self._lens.f_number, math.nan
        if isinstance(self._table, LensCalibration):
            camera = self._table.camera
            focal_length_m, f_number = camera.focal_length_m, camera.f_number
            magnification = self._table.magnification_of(raw, self._direction)
        sweep_id, index, count = path.place or (0, 0, 0)
        return FocusMetadata(
            stamp_ns=stamp_ns,
            focus_diopters=(start + there) / 2,
            focus_start_diopters=start,
            focus_end_diopters=there,
            focus_sigma_diopters=abs(there - start) / 2 if path.moving else sigma,
            lens_state=LensState.MOVING if path.moving else LensState.STATIONARY,
            focal_length_m=focal_length_m or math.nan,
            f_number=f_number or math.nan,
            magnification=magnification,
            exposure_ns=exposure_ns,
            sweep_id=sweep_id,
            index=index,
            count=count,
        )

    def _wanted(self) -> list[float]:
        """Focus positions of a sweep in dioptres: those of the settings, or uniform ones, near to far."""
        settings, table = self._settings, self._table
        if not settings.focus_diopters.strip():
            low, high = table.range_diopters
            return [float(focus) for focus in np.linspace(high, low, settings.positions)]
        name = f"{self._section}.focus_diopters"
        positions = list(numbers(settings.focus_diopters, name))
        if not 2 <= len(positions) <= _MOST_POSITIONS:
            raise ValueError(f"{name}: expected 2 to {_MOST_POSITIONS} positions, received {len(positions)}")
        for focus in positions:
            table.raw_of(focus)
        return positions

    def _pinhole(self, table: LensTable | LensCalibration) -> tuple[Intrinsics, tuple[float, ...]]:
        """Intrinsics and distortion by the file of the camera, else the calibration of the lens, else `lens`."""
        size, lens = self.size, self._lens
        if self._settings.camera_info:
            found = load_camera_file(self._settings.camera_info)
            if found.size != size:
                raise ValueError(
                    f"{self._settings.camera_info}: is of {found.size[1]} x {found.size[0]} pixels, the images have "
                    f"{size[1]} x {size[0]}: calibrate at that size, or set camera.width and camera.height"
                )
            return found.intrinsics, found.distortion
        if isinstance(table, LensCalibration):
            if table.size != size:
                raise ValueError(
                    f"{self._calibration}: is of {table.size[1]} x {table.size[0]} pixels, the images have {size[1]} x "
                    f"{size[0]}: calibrate at that size, or set camera.width and camera.height"
                )
            camera = table.camera
            distortion = (table["k1"], table["k2"], 0.0, 0.0, 0.0)
            return Intrinsics(camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px), distortion
        if not (lens.focal_length_m and lens.pixel_pitch_m):
            raise ValueError(
                f"{self._section}.camera_info: expected a camera calibration (of camera_calibration), or "
                "lens.focal_length_m and lens.pixel_pitch_m"
            )
        fx = lens.focal_length_m / lens.pixel_pitch_m
        return Intrinsics(fx, fx, (size[1] - 1) / 2, (size[0] - 1) / 2), ()


def clock_offset_ns(now_ns: Callable[[], int]) -> int:
    """Offset of the wall clock from another clock, in ns.

    Of three attempts, that with the least time between the two clocks: a thread that loses its core between them would
    make the stamps jump.
    """
    attempts = []
    for _ in range(3):
        before_ns, wall_ns = now_ns(), time.time_ns()
        attempts.append((now_ns() - before_ns, wall_ns - before_ns))
    return min(attempts)[1]


def without_calibration(unit: str) -> ValueError:
    """Error for a lens whose positions only a calibration relates to dioptres."""
    return ValueError(
        f"lens.calibration: expected a file that says which {unit} is which dioptres (lens-calibration/1 or "
        "lens-table/1); `dfs calibrate lens --help` and `dfs focus-table --help` say how to make one"
    )

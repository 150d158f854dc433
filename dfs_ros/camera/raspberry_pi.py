"""Camera of a Raspberry Pi by picamera2: LensPosition in dioptres, set and reported with each image.

The autofocus is manual. LensPosition in the metadata of an image is what the lens was told when the image was
processed; it moves there afterwards. A nominal dioptre is off by tenths, and by more in a module that hangs or is warm:
calibrate it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError  # of its own before Python 3.11
from typing import Any

import numpy as np

from dfs_ros.camera.lens_camera import CameraFrame
from dfs_ros.config import CameraConfig, ReportingConfig

_AF_MANUAL = 0  # AfModeEnum.Manual of libcamera
_FORMAT = "BGR888"  # libcamera's name for bytes in the order R, G, B
_BUFFERS = 4
_STEP_DIOPTERS = 0.01
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # of SensorTimestamp


class Picamera2Camera:
    """Raspberry Pi camera as a :class:`dfs_ros.camera.lens_camera.LensCamera`.

    Raises ImportError without picamera2, ValueError for a camera that there is not, that has no focus motor or no
    images of the wanted size, and OSError for one in use.
    """

    unit = "LensPosition"
    tolerance = _STEP_DIOPTERS
    raw_is_diopters = True
    delay_frames = _BUFFERS + 2  # a control waits until the requests before it are through

    def __init__(self, settings: ReportingConfig, camera: CameraConfig) -> None:
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise ImportError(
                f"Raspberry Pi cameras need picamera2 ({error}): sudo apt install python3-picamera2, and a virtual "
                "environment made with --system-site-packages"
            ) from error
        number, found = settings.device or "0", Picamera2.global_camera_info()
        if not number.isdecimal() or int(number) >= len(found):
            names = ", ".join(f"{i}: {each.get('Model', '?')}" for i, each in enumerate(found)) or "none"
            raise ValueError(
                f"reporting.device: expected the number of a camera, received {number!r}; there is {names}"
            )
        self.name = f"{found[int(number)].get('Model', 'camera')} (camera {number})"
        try:
            self._camera: Any = Picamera2(int(number))
        except RuntimeError as error:
            raise OSError(f"{self.name}: does not open; does another program use it? ({error})") from error
        try:
            self._configure(settings, camera)
        except BaseException:
            self.close()
            raise

    def _configure(self, settings: ReportingConfig, camera: CameraConfig) -> None:
        if "LensPosition" not in self._camera.camera_controls:
            raise ValueError(f"{self.name}: has no focus that can be set (LensPosition): a module with a fixed lens?")
        low, high, _ = self._camera.camera_controls["LensPosition"]
        self.lens_range = (float(low), float(high), _STEP_DIOPTERS)
        period_us = round(1e6 / camera.rate_hz)
        controls: dict[str, Any] = {"AfMode": _AF_MANUAL, "FrameDurationLimits": (period_us, period_us)}
        if settings.exposure_s:
            controls["ExposureTime"] = round(1e6 * settings.exposure_s)
        size = (camera.width, camera.height)
        configuration = self._camera.create_video_configuration(
            main={"format": _FORMAT, "size": size}, buffer_count=_BUFFERS, controls=controls
        )
        self._camera.configure(configuration)
        got = self._camera.camera_configuration()["main"]
        if tuple(got["size"]) != size or got["format"] != _FORMAT:
            raise ValueError(
                f"{self.name}: expected {size[0]} x {size[1]} {_FORMAT}, the camera offers {got['size'][0]} x "
                f"{got['size'][1]} {got['format']}; set camera.width and camera.height"
            )

    def now_ns(self) -> int:
        return time.clock_gettime_ns(_BOOT_CLOCK)

    def move(self, raw: float) -> tuple[int, int]:
        asked_ns = self.now_ns()
        self._camera.set_controls({"AfMode": _AF_MANUAL, "LensPosition": float(raw)})
        return asked_ns, self.now_ns()

    def frames(self, timeout_s: float) -> Generator[CameraFrame, None, None]:
        self._camera.start()
        while True:
            try:
                request = self._camera.wait(self._camera.capture_request(wait=False), timeout=timeout_s)
            except (TimeoutError, FutureTimeoutError):
                raise TimeoutError(f"{self.name}: no image for {timeout_s:g} s") from None
            try:
                image, metadata = request.make_array("main"), request.get_metadata()
            finally:
                request.release()
            yield frame_of(np.asarray(image, np.uint8), metadata)

    def close(self) -> None:
        self._camera.close()


def frame_of(image: np.ndarray[Any, np.dtype[np.uint8]], metadata: Mapping[str, Any]) -> CameraFrame:
    """Frame of an image with its libcamera metadata; times in ns there, ExposureTime and FrameDuration in us.

    SensorTimestamp is the start of the readout; the last row is read out within a FrameDuration.
    """
    read_ns, exposure_ns = int(metadata["SensorTimestamp"]), 1000 * int(metadata["ExposureTime"])
    return CameraFrame(
        image,
        read_ns - exposure_ns,
        read_ns + 1000 * int(metadata.get("FrameDuration", 0)),
        float(metadata.get("LensPosition", np.nan)),
        exposure_ns=exposure_ns,
    )

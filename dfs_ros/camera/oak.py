"""OAK camera (Luxonis) by depthai 3: manual focus from 0 (far) to 255 (near), reported with each image."""

from __future__ import annotations

import math
from collections.abc import Generator
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from dfs_ros.camera.lens_camera import CameraFrame
from dfs_ros.config import CameraConfig, ReportingConfig

if TYPE_CHECKING:
    import depthai as dai

_US = timedelta(microseconds=1)
_QUEUE = 4


class OakCamera:
    """OAK camera as a :class:`dfs_ros.camera.lens_camera.LensCamera`: the first of its sensors with a focus motor.

    Raises ImportError without depthai 3, ValueError for an OAK without a focus motor, OSError if none is found.
    """

    unit = "lens_position"
    lens_range = (0.0, 255.0, 1.0)
    tolerance = 0.5
    raw_is_diopters = False
    delay_frames = _QUEUE + 1

    def __init__(self, settings: ReportingConfig, camera: CameraConfig) -> None:
        try:
            import depthai as dai
        except ImportError as error:
            raise ImportError(f"OAK cameras need depthai 3 ({error}): pip install 'depthai>=3'") from error
        if int(dai.__version__.partition(".")[0]) < 3:
            raise ImportError(f"OAK cameras need depthai 3, there is {dai.__version__}: pip install 'depthai>=3'")
        self._dai, self._period_ns = dai, round(1e9 / camera.rate_hz)
        try:
            self._device = dai.Device(settings.device) if settings.device else dai.Device()
        except RuntimeError as error:
            raise OSError(f"no OAK camera{' ' + settings.device if settings.device else ''}: {error}") from error
        try:
            self._build(settings, camera)
        except BaseException:
            self._device.close()
            raise

    def _build(self, settings: ReportingConfig, camera: CameraConfig) -> None:
        dai, device = self._dai, self._device
        self.name = f"OAK {device.getProductName() or device.getDeviceName()} {device.getDeviceId()}"
        features = device.getConnectedCameraFeatures()
        movable = [each for each in features if each.hasAutofocus]
        if not movable:
            names = ", ".join(f"{each.sensorName} at {each.socket.name}" for each in features) or "none"
            raise ValueError(f"{self.name}: none of its cameras has a focus motor: {names}; an AF model has")
        self._pipeline = dai.Pipeline(device)
        node = self._pipeline.create(dai.node.Camera).build(movable[0].socket, sensorFps=camera.rate_hz)
        node.initialControl.setAutoFocusMode(dai.CameraControl.AutoFocusMode.OFF)
        if settings.exposure_s:  # a fixed exposure needs a fixed gain; a limit leaves it to the camera
            node.initialControl.setAutoExposureLimit(round(1e6 * settings.exposure_s))
        output = node.requestOutput(
            (camera.width, camera.height), dai.ImgFrame.Type.NV12, fps=camera.rate_hz, enableUndistortion=False
        )
        self._images = output.createOutputQueue(maxSize=_QUEUE, blocking=False)
        self._control = node.inputControl.createInputQueue()

    def now_ns(self) -> int:
        return _ns(self._dai.Clock.now())

    def move(self, raw: float) -> tuple[int, int]:
        command = self._dai.CameraControl()
        command.setManualFocus(round(raw))
        asked_ns = self.now_ns()
        self._control.send(command)
        return asked_ns, self.now_ns()

    def frames(self, timeout_s: float) -> Generator[CameraFrame, None, None]:
        try:
            self._pipeline.start()
            while True:
                image = self._images.get(timedelta(seconds=timeout_s))
                if not isinstance(image, self._dai.ImgFrame):
                    raise TimeoutError(f"{self.name}: no image for {timeout_s:g} s")
                yield self.frame_of(image)
        except RuntimeError as error:  # of its queues and links
            raise OSError(f"{self.name}: the camera is gone ({error})") from error

    def frame_of(self, image: dai.ImgFrame) -> CameraFrame:
        """Frame of a message; its rows are read out within a frame period."""
        offset = self._dai.CameraExposureOffset
        raw = image.getLensPosition()
        return CameraFrame(
            np.ascontiguousarray(image.getCvFrame()[..., ::-1]),
            _ns(image.getTimestamp(offset.START)),
            _ns(image.getTimestamp(offset.END)) + self._period_ns,
            float(raw) if raw >= 0 else math.nan,
            image.getSequenceNum(),
            1000 * (image.getExposureTime() // _US),
        )

    def close(self) -> None:
        if self._pipeline.isRunning():
            self._pipeline.stop()
        self._device.close()


def _ns(time: timedelta) -> int:
    return 1000 * (time // _US)

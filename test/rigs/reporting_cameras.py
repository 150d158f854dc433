"""Cameras that report their lens position, for tests: the libraries' side of them, everything above is real.

A sensor on a clock of its own sees nothing but its lens: all pixels of an image have the value of the lens position,
averaged over the exposure. A command is reported some images later, as libcamera and OAK do; only then the lens moves.
"""

from __future__ import annotations

import datetime
import sys
from collections import deque
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

MS = 10**6


class Sensor:
    """Sensor of 30 images a second with a lens; `now_ns` is its clock."""

    period_ns, exposure_ns, readout_ns = 33 * MS, 10 * MS, 20 * MS
    delay, latency_ns, travel_ns = 3, 15 * MS, 60 * MS

    def __init__(self, position: float, level: float) -> None:
        self.now_ns, self.number, self.commands = 10**9, -1, list[float]()
        self.reported, self._level = position, level
        self._queue: deque[tuple[int, float]] = deque()
        self._moves = [(0, position, position)]
        self.deaf = False

    def command(self, raw: float) -> None:
        self.commands.append(raw)
        if not self.deaf:
            self._queue.append((self.number + self.delay, raw))

    def lens_at(self, time_ns: float) -> float:
        start_ns, origin, target = next(move for move in reversed(self._moves) if move[0] <= time_ns)
        return origin + (target - origin) * min(1.0, (time_ns - start_ns) / self.travel_ns)

    def expose(self) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], int]:
        """Next image, (32, 36, 3), and the start of its exposure."""
        self.number += 1
        start_ns = 10**9 + self.number * self.period_ns
        positions = [self.lens_at(time) for time in np.linspace(start_ns, start_ns + self.exposure_ns, 11)]
        self.now_ns = start_ns + self.exposure_ns + self.readout_ns
        while self._queue and self._queue[0][0] <= self.number:  # at the processing of this image
            self.reported = self._queue.popleft()[1]
            moves_ns = self.now_ns + self.latency_ns
            self._moves.append((moves_ns, self.lens_at(moves_ns), self.reported))
        return np.full((32, 36, 3), round(self._level * float(np.mean(positions))), np.uint8), start_ns


def plug_in_raspberry_pi(monkeypatch: pytest.MonkeyPatch, fixed_lens: bool = False) -> Sensor:
    """Put a module picamera2 there, with one camera of 0 to 10 dioptres whose pixels have 20 times the dioptres."""
    sensor = Sensor(position=1.0, level=20.0)

    class Picamera2:
        camera_controls: ClassVar = {"AfMode": (0, 2, 0), "LensPosition": (0.0, 10.0, 1.0)}

        @staticmethod
        def global_camera_info() -> list[dict[str, object]]:
            return [{"Model": "imx708", "Id": "/base/soc/i2c0mux/i2c@1/imx708@1a", "Num": 0}]

        def __init__(self, camera_num: int) -> None:
            if fixed_lens:
                self.camera_controls = {}

        def create_video_configuration(self, main: dict[str, Any], **others: Any) -> dict[str, Any]:
            return {"main": main, **others}

        def configure(self, configuration: dict[str, Any]) -> None:
            self._configuration = configuration

        def camera_configuration(self) -> dict[str, Any]:
            main = self._configuration["main"]
            return {"main": {**main, "size": (main["size"][0] // 4 * 4, main["size"][1])}}

        def start(self) -> None:
            assert self._configuration["controls"]["AfMode"] == 0

        def set_controls(self, controls: dict[str, float]) -> None:
            assert controls["AfMode"] == 0
            sensor.command(controls["LensPosition"])

        def capture_request(self, wait: bool) -> object:
            assert wait is False
            return object()

        def wait(self, job: object, timeout: float) -> SimpleNamespace:
            image, start_ns = sensor.expose()
            metadata = {
                "SensorTimestamp": start_ns + sensor.exposure_ns,
                "ExposureTime": sensor.exposure_ns // 1000,
                "FrameDuration": sensor.period_ns // 1000,
                "LensPosition": float(np.float32(sensor.reported)),
                "FocusFoM": 4711,
                "AfState": 0,
            }
            return SimpleNamespace(make_array=lambda name: image, get_metadata=lambda: metadata, release=lambda: None)

        def close(self) -> None:
            pass

    module: Any = ModuleType("picamera2")
    module.Picamera2 = Picamera2
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setattr("dfs_ros.camera.raspberry_pi.time.clock_gettime_ns", lambda clock: sensor.now_ns)
    return sensor


def plug_in_oak(monkeypatch: pytest.MonkeyPatch, fixed_lens: bool = False) -> Sensor:
    """Put a module depthai there, with one OAK whose pixels have the value of the lens position."""
    sensor = Sensor(position=40.0, level=1.0)

    class CameraControl:
        AutoFocusMode = SimpleNamespace(OFF="OFF")
        raw: int | None = None

        def setManualFocus(self, raw: int) -> None:
            assert isinstance(raw, int) and 0 <= raw <= 255
            self.raw = raw

        def setAutoFocusMode(self, mode: str) -> None:
            assert mode == "OFF"

    class ImgFrame:
        Type = SimpleNamespace(NV12="NV12")

        def __init__(self) -> None:
            self.image, self.start_ns = sensor.expose()
            self.number, self.raw = sensor.number, round(sensor.reported)

        def getCvFrame(self) -> Any:
            return self.image

        def getLensPosition(self) -> int:
            return self.raw

        def getSequenceNum(self) -> int:
            return self.number

        def getExposureTime(self) -> datetime.timedelta:
            return datetime.timedelta(microseconds=sensor.exposure_ns // 1000)

        def getTimestamp(self, offset: int) -> datetime.timedelta:
            return datetime.timedelta(microseconds=(self.start_ns + offset * sensor.exposure_ns) // 1000)

    class Camera:
        initialControl = CameraControl()
        inputControl = SimpleNamespace(
            createInputQueue=lambda: SimpleNamespace(send=lambda control: sensor.command(float(control.raw)))
        )

        def build(self, socket: object, sensorFps: float) -> Camera:
            return self

        def requestOutput(self, size: tuple[int, int], kind: str, **options: Any) -> SimpleNamespace:
            assert kind == "NV12" and options["enableUndistortion"] is False
            queue = SimpleNamespace(get=lambda timeout: ImgFrame())
            return SimpleNamespace(createOutputQueue=lambda maxSize, blocking: queue)

    class Device:
        def __init__(self, name: str = "") -> None:
            if name == "absent":
                raise RuntimeError("Cannot find any device with given deviceInfo")

        getProductName = getDeviceName = staticmethod(lambda: "OAK-1-AF")
        getDeviceId = staticmethod(lambda: "14442C10")
        close = staticmethod(lambda: None)

        def getConnectedCameraFeatures(self) -> list[SimpleNamespace]:
            socket = SimpleNamespace(name="CAM_A")
            return [SimpleNamespace(hasAutofocus=not fixed_lens, sensorName="IMX378", socket=socket)]

    class Pipeline:
        def __init__(self, device: Device) -> None:
            self.running = False

        def create(self, kind: type[Camera]) -> Camera:
            return kind()

        def start(self) -> None:
            self.running = True

        def stop(self) -> None:
            self.running = False

        def isRunning(self) -> bool:
            return self.running

    module: Any = ModuleType("depthai")
    module.__version__ = "3.12.0"
    module.Device, module.Pipeline, module.CameraControl, module.ImgFrame = Device, Pipeline, CameraControl, ImgFrame
    module.node = SimpleNamespace(Camera=Camera)
    module.CameraExposureOffset = SimpleNamespace(START=0, END=1)
    module.Clock = SimpleNamespace(now=lambda: datetime.timedelta(microseconds=sensor.now_ns // 1000))
    monkeypatch.setitem(sys.modules, "depthai", module)
    return sensor

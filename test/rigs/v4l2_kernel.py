"""The kernel's side of a V4L2 camera, for tests: answers the ioctls that linuxpy makes, everything above is real.

The camera sees nothing but its lens: all pixels of an image have the grey value of the raw focus position, averaged
over the exposure, so that a test knows where the lens really was.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import time
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from linuxpy.video import raw

FOCUS, FOCUS_AUTO, EXPOSURE_AUTO, EXPOSURE = 0x009A090A, 0x009A090C, 0x009A0901, 0x009A0902
INTEGER, BOOLEAN, MENU = 1, 2, 3


@dataclass
class Control:
    id: int
    name: str
    type: int
    minimum: int
    maximum: int
    value: int
    step: int = 1
    default: int = 0


def webcam_controls() -> list[Control]:
    return [
        Control(EXPOSURE_AUTO, "Auto Exposure", INTEGER, 0, 3, 3),
        Control(EXPOSURE, "Exposure Time, Absolute", INTEGER, 3, 2047, 250),
        Control(FOCUS, "Focus, Absolute", INTEGER, 0, 250, 40, step=5),
        Control(FOCUS_AUTO, "Focus, Automatic Continuous", BOOLEAN, 0, 1, 1),
    ]


@dataclass
class FakeCamera:
    """A camera behind a file at `path`. `refuse`: errno by name of an ioctl, which then fails with it."""

    path: Path
    rate_hz: float = 100.0
    travel_s: float = 0.02
    """How long the lens takes to any other position; it moves evenly."""
    width: int = 64
    height: int = 48
    codes: tuple[str, ...] = ("GREY", "YUYV", "MJPG")
    start_of_exposure: bool = True
    controls: list[Control] = field(default_factory=webcam_controls)
    refuse: dict[str, int] = field(default_factory=dict)
    lose: Container[int] = ()
    damage: Container[int] = ()
    stops_after: int | None = None
    streaming: bool = False
    sequence: int = -1
    log: list[tuple[int, int]] = field(default_factory=list)
    """(control, value) of all that was set."""

    def __post_init__(self) -> None:
        self.code = self.codes[0]
        self._moves: list[tuple[int, float, float]] = []  # at ns, from, to
        self._length = -(-self.width * self.height * 3 // 4096) * 4096
        self._queue: list[int] = []
        self._due_ns = 0
        self.path.write_bytes(bytes(self._length * 8))

    def control(self, number: int) -> Control:
        return next(c for c in self.controls if c.id == number)

    def lens_at(self, time_ns: int) -> float:
        """The true raw position of the lens."""
        position = float(self.control(FOCUS).value) if not self._moves else self._moves[0][1]
        for at_ns, start, target in self._moves:
            if at_ns <= time_ns:
                share = min(1.0, (time_ns - at_ns) * 1e-9 / self.travel_s)
                position = start + (target - start) * share
        return position

    def ioctl(self, fd: Any, request: Any, argument: Any = 0) -> int:
        name = raw.IOC(request).name
        if name in self.refuse:
            raise OSError(self.refuse[name], name)
        handler = getattr(self, f"_{name.lower()}", None)
        if handler is None:
            raise OSError(errno.ENOTTY, name)
        handler(argument)
        return 0

    def _querycap(self, caps: Any) -> None:
        caps.driver, caps.card, caps.bus_info = b"uvcvideo", b"Fake Webcam", b"usb-1"
        caps.capabilities = caps.device_caps = int(raw.Capability.VIDEO_CAPTURE | raw.Capability.STREAMING)

    def _query_ext_ctrl(self, query: Any) -> None:
        wanted = query.id & 0x0FFFFFFF
        later = [c for c in sorted(self.controls, key=lambda c: c.id) if c.id > wanted]
        if not later:
            raise OSError(errno.EINVAL, "no more controls")
        c = later[0]
        query.id, query.type, query.name = c.id, c.type, c.name.encode()
        query.minimum, query.maximum, query.step, query.default_value = c.minimum, c.maximum, c.step, c.default
        query.flags, query.elems, query.elem_size, query.nr_of_dims = 0, 1, 4, 0

    def _g_ext_ctrls(self, controls: Any) -> None:
        for i in range(controls.count):
            controls.controls[i].value = self.control(controls.controls[i].id).value

    def _s_ext_ctrls(self, controls: Any) -> None:
        for i in range(controls.count):
            control, value = self.control(controls.controls[i].id), int(controls.controls[i].value)
            if control.id == FOCUS:
                if any(c.id == FOCUS_AUTO and c.value for c in self.controls):
                    raise OSError(errno.EACCES, "focus is automatic")
                assert (value - control.minimum) % control.step == 0
                now = time.monotonic_ns()
                self._moves.append((now, self.lens_at(now), float(value)))
            control.value = value
            self.log.append((control.id, value))

    def _s_fmt(self, fmt: Any) -> None:
        wanted = "".join(chr(fmt.fmt.pix.pixelformat >> s & 255) for s in (0, 8, 16, 24))
        self.code = wanted if wanted in self.codes else self.codes[0]
        self._g_fmt(fmt)

    def _g_fmt(self, fmt: Any) -> None:
        pix = fmt.fmt.pix
        pix.width, pix.height = self.width, self.height
        pix.pixelformat = raw.v4l2_fourcc(*self.code)
        pix.sizeimage = self._length

    def _enum_fmt(self, fmt: Any) -> None:
        if fmt.index >= len(self.codes):
            raise OSError(errno.EINVAL, "no more formats")
        fmt.pixelformat = raw.v4l2_fourcc(*self.codes[fmt.index])

    def _enum_framesizes(self, size: Any) -> None:
        if size.index:
            raise OSError(errno.EINVAL, "no more sizes")
        size.type = 1
        size.m1.discrete.width, size.m1.discrete.height = self.width, self.height

    def _s_parm(self, parameters: Any) -> None:
        pass

    def _g_parm(self, parameters: Any) -> None:
        parameters.parm.capture.timeperframe.numerator = 1
        parameters.parm.capture.timeperframe.denominator = round(self.rate_hz)

    def _reqbufs(self, request: Any) -> None:
        self._queue.clear()

    def _querybuf(self, buffer: Any) -> None:
        buffer.length, buffer.m.offset = self._length, buffer.index * self._length

    def _qbuf(self, buffer: Any) -> None:
        self._queue.append(int(buffer.index))

    def _streamon(self, kind: Any) -> None:
        self.streaming, self._due_ns = True, time.monotonic_ns()

    def _streamoff(self, kind: Any) -> None:
        self.streaming = False

    def _dqbuf(self, buffer: Any) -> None:
        """The next image, when its time has come; images for which no buffer was free in time are lost."""
        if self.stops_after is not None and self.sequence >= self.stops_after:
            raise OSError(errno.ENODEV, "unplugged")
        period_ns = round(1e9 / self.rate_hz)
        self._due_ns += period_ns
        self.sequence += 1
        while self.sequence in self.lose or self._due_ns + 4 * period_ns < time.monotonic_ns():
            self._due_ns += period_ns
            self.sequence += 1
        time.sleep(max(0, self._due_ns - time.monotonic_ns()) * 1e-9)
        # Exposed until its first bytes arrive (start of exposure, to the driver), or a period before its last.
        end_ns = self._due_ns if self.start_of_exposure else self._due_ns - period_ns
        times = np.linspace(end_ns - period_ns, end_ns, 9)
        data = self._pixels(float(np.mean([self.lens_at(int(t)) for t in times])))
        index = self._queue.pop(0)
        if self.sequence in self.damage:
            data = data[: len(data) // 2]
        with self.path.open("rb+") as file:
            file.seek(index * self._length)
            file.write(data)
        buffer.index, buffer.bytesused, buffer.sequence = index, len(data), self.sequence
        buffer.flags = 0x2000 | (0x10000 if self.start_of_exposure else 0)
        buffer.timestamp.secs, rest = divmod(self._due_ns, 10**9)
        buffer.timestamp.usecs = rest // 1000

    def _pixels(self, level: float) -> bytes:
        grey = np.full((self.height, self.width), round(level), np.uint8)
        if self.code == "GREY":
            return grey.tobytes()
        if self.code == "MJPG":
            import cv2

            return bytes(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 100])[1])
        packed = np.full((self.height, self.width, 2), 128, np.uint8)
        packed[..., 0] = grey
        return packed.tobytes()


def plugged_in(monkeypatch: Any, *cameras: FakeCamera) -> None:
    """Have linuxpy's ioctls on the files of these cameras answered by them."""
    by_file = {(camera.path.stat().st_dev, camera.path.stat().st_ino): camera for camera in cameras}

    def ioctl(fd: Any, request: Any, *arguments: Any) -> int:
        import os

        stat = os.fstat(fd if isinstance(fd, int) else fd.fileno())
        camera = by_file.get((stat.st_dev, stat.st_ino))
        if camera is None:
            return int(fcntl.ioctl(fd, request, *arguments))
        return camera.ioctl(fd, request, *arguments)

    monkeypatch.setattr("linuxpy.ioctl.fcntl", SimpleNamespace(ioctl=ioctl))


__all__ = ["Control", "FakeCamera", "ctypes", "plugged_in", "webcam_controls"]

"""V4L2 camera by linuxpy: controls, format, images; the system's refusals in plain words.

linuxpy (`pip install dfs_ros[v4l2]`) is imported when a device is opened. Changed controls of the device are restored
when it is closed.
"""

from __future__ import annotations

import contextlib
import errno
import select
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dfs_ros.messages.compressed import image_from_compressed
from dfs_ros.messages.convert import image_from_message, image_message, message

# Control ids of linux/v4l2-controls.h
FOCUS_ABSOLUTE = 0x009A090A
FOCUS_AUTO = 0x009A090C
EXPOSURE_AUTO = 0x009A0901
EXPOSURE_ABSOLUTE = 0x009A0902  # in 100 us
AUTO_EXPOSURE_OFF = 1
PIXEL_FORMATS = {"MJPG": "jpeg", "YUYV": "yuv422_yuy2", "UYVY": "yuv422", "GREY": "mono8"}
_BUFFERS = 4
_PATIENCE_NS, _RETRY_S = 10**9, 0.02
_CONTROL_REFUSED = dict.fromkeys(
    (errno.EACCES, errno.EBUSY),
    "the camera refused it for a second: an automatic (autofocus, auto exposure) or another program still holds it",
)
_Self = TypeVar("_Self", bound="V4l2Controls")
_ERROR_FLAG = 0x40
_SOURCE_MASK, _START_OF_EXPOSURE = 0x00070000, 0x00010000


class RawFrame(NamedTuple):
    """Raw image: bytes, the driver's count, time of exposure start or transfer end."""

    data: bytes
    sequence: int
    time_ns: int
    """Time on the system's monotonic clock."""
    at_start: bool
    damaged: bool


class V4l2Controls:
    """Controls of the camera at `path`, which another program may stream from; changed ones are restored at the end.

    Raises FileNotFoundError, PermissionError, ValueError and OSError, with the facts or a remedy.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._before: dict[int, int] = {}
        self._device = open_device(path)

    @property
    def name(self) -> str:
        """Name that the camera reports."""
        return str(self._device.info.card)

    def control_range(self, control: int, purpose: str) -> tuple[int, int, int]:
        """(lowest, highest, step) of a control. Raises ValueError, with a list of the controls."""
        found = self._controls().get(control)
        if found is None:
            raise ValueError(f"{self.path} ({self.name}): has no {purpose}; its controls: {control_list(self._device)}")
        return int(found.minimum), int(found.maximum), max(1, int(found.step))

    def has(self, control: int) -> bool:
        """True if the device has the control."""
        return control in self._controls()

    def set(self, control: int, value: int) -> tuple[int, int]:
        """Set a control; return the monotonic times before and after the driver's acceptance.

        A camera may refuse a control for a while after its automatic is turned off: refusals are repeated for a second.
        """
        found = self._controls()[control]
        patient_until_ns = time.monotonic_ns() + _PATIENCE_NS
        with self._words(f"control {found.config_name} = {value}", _CONTROL_REFUSED):
            if control not in self._before:
                self._before[control] = int(found.value)
            while True:
                asked_ns = time.monotonic_ns()
                try:
                    found.value = value
                    return asked_ns, time.monotonic_ns()
                except AttributeError as error:  # linuxpy's error of read-only controls
                    raise OSError(errno.EACCES, str(error)) from error
                except OSError as error:
                    if error.errno not in _CONTROL_REFUSED or time.monotonic_ns() > patient_until_ns:
                        raise
                time.sleep(_RETRY_S)

    def close(self) -> None:
        """Restore the controls. May be repeated."""
        if self._device.closed:
            return
        for control, value in reversed(self._before.items()):
            with contextlib.suppress(OSError, AttributeError):
                self._controls()[control].value = value
        self._before.clear()
        self._device.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _controls(self) -> dict[int, Any]:
        return dict(self._device.controls.items())

    @contextmanager
    def _words(self, what: str, hints: Mapping[int, str] | None = None) -> Iterator[None]:
        """Add the attempted action and a remedy to errors of the system."""
        try:
            yield
        except TimeoutError:
            raise
        except OSError as error:
            raise _explained(error, f"{self.path}: {what}", hints or {}) from error


class V4l2Device(V4l2Controls):
    """Camera at `path`, of `size` (height, width) and a format of :data:`PIXEL_FORMATS`.

    Raises FileNotFoundError, PermissionError, ValueError and OSError, with the facts or a remedy.
    """

    def __init__(self, path: str, size: tuple[int, int], pixel_format: str, rate_hz: float) -> None:
        super().__init__(path)
        self.size = size
        self.pixel_format = pixel_format
        try:
            self._capture = _video(self._device).VideoCapture(self._device, _BUFFERS)
            self._check_capture()
            self._set_format(rate_hz)
        except BaseException:
            self._device.close()
            raise
        self._streaming = False

    @property
    def rate_hz(self) -> float:
        """Frame rate in Hz, as the driver reports it."""
        with contextlib.suppress(OSError, ZeroDivisionError):
            return float(self._capture.get_fps())
        return 0.0

    def frames(self, timeout_s: float) -> Iterator[RawFrame]:
        """Yield images. Raises TimeoutError without one in time, OSError for a lost device."""
        with self._words("capture"):
            self._capture.open()
            self._streaming = True
        while True:
            with self._words("capture"):
                ready, _, _ = select.select([self._device], [], [], timeout_s)
                if not ready:
                    raise TimeoutError(f"{self.path} ({self.name}): no image for {timeout_s:g} s")
                frame = self._capture.buffer.raw_read()
            flags = int(frame.buff.flags)
            yield RawFrame(
                bytes(frame.data),
                int(frame.frame_nb),
                int(frame.buff.timestamp.secs) * 10**9 + int(frame.buff.timestamp.usecs) * 1000,
                flags & _SOURCE_MASK == _START_OF_EXPOSURE,
                bool(flags & _ERROR_FLAG),
            )

    def close(self) -> None:
        """Stop, and restore the controls. May be repeated."""
        if self._streaming and not self._device.closed:
            self._streaming = False
            with contextlib.suppress(OSError):
                self._capture.close()
        super().close()

    def _check_capture(self) -> None:
        capabilities = _video(self._device).Capability
        has = self._device.info.device_capabilities
        if capabilities.VIDEO_CAPTURE not in has or capabilities.STREAMING not in has:
            raise ValueError(f"{self.path} ({self.name}): captures no video; its other device file may")

    def _set_format(self, rate_hz: float) -> None:
        height, width = self.size
        with self._words(f"format {width} x {height} {self.pixel_format}"):
            self._capture.set_format(width, height, self.pixel_format)
            got = self._capture.get_format()
        code = _video(self._device).human_pixel_format(int(got.pixel_format))
        if (got.height, got.width, code) != (height, width, self.pixel_format):
            raise ValueError(
                f"{self.path} ({self.name}): expected {width} x {height} {self.pixel_format}, the device offers "
                f"{got.width} x {got.height} {code}; it has {format_list(self._device)}"
            )
        with contextlib.suppress(OSError):  # not every driver supports rates
            self._capture.set_fps(rate_hz)


def decoded(frame: RawFrame, size: tuple[int, int], pixel_format: str) -> NDArray[np.uint8]:
    """Decode a raw image to RGB (H, W, 3) or mono (H, W).

    Raises ValueError for an incomplete image.
    """
    height, width = size
    if pixel_format == "MJPG":
        image = image_from_compressed(
            message("sensor_msgs/msg/CompressedImage", format="jpeg", data=np.frombuffer(frame.data, np.uint8))
        )
    else:
        channels = 1 if pixel_format == "GREY" else 2
        data = np.frombuffer(frame.data, np.uint8)
        if data.size < height * width * channels:
            raise ValueError(f"expected {height * width * channels} bytes of {pixel_format}, received {data.size}")
        pixels = data[: height * width * channels].reshape(height, width, channels)
        image = image_from_message(
            image_message(pixels[..., 0] if channels == 1 else pixels, 0, "", PIXEL_FORMATS[pixel_format])
        )
    if image.shape[:2] != size:
        raise ValueError(f"expected {width} x {height} pixels, received {image.shape[1]} x {image.shape[0]}")
    return image


def open_device(path: str) -> Any:
    """Open a linuxpy device.

    Raises FileNotFoundError, PermissionError, OSError, or ImportError without linuxpy.
    """
    try:
        from linuxpy.video.device import Device
    except ImportError as error:
        raise ImportError(f"V4L2 cameras need linuxpy ({error}): pip install linuxpy") from error
    if not Path(path).exists():
        found = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none at all"
        raise FileNotFoundError(f"{path}: no such camera; there is {found}")
    device = Device(path)
    try:
        device.open()
        str(device.info.card)
    except OSError as error:
        device.close()
        raise _explained(error, path) from error
    return device


def control_list(device: Any) -> str:
    """List of an open device's controls, with their ranges."""
    controls = [
        f"{c.config_name} ({c.minimum} to {c.maximum})" if hasattr(c, "minimum") else c.config_name
        for _, c in device.controls.items()
    ]
    return ", ".join(controls) or "none"


def format_list(device: Any) -> str:
    """List of an open device's formats, with their sizes."""
    video = _video(device)
    found = []
    for fmt in device.info.formats:
        sizes = [
            f"{s.info.width}x{s.info.height}"
            for s in device.info.format_frame_sizes(fmt.pixel_format)
            if s.type == video.FrameSizeType.DISCRETE
        ]
        found.append(f"{video.human_pixel_format(int(fmt.pixel_format))} {' '.join(sizes)}".strip())
    return "; ".join(found) or "no formats"


def _video(device: Any) -> Any:
    import importlib

    return importlib.import_module(type(device).__module__)


def _explained(error: OSError, what: str, more_hints: Mapping[int, str] = MappingProxyType({})) -> OSError:
    hints = {
        errno.EACCES: "not allowed: is this user in the group video?",
        errno.EPERM: "not allowed",
        errno.EBUSY: "in use by another program, or by a control that is automatic",
        errno.ENODEV: "the camera is gone",
        errno.ENOTTY: "is no video device",
        errno.EINVAL: "the device refuses it",
        errno.ENOSPC: "the USB bus has no room for it: smaller images, fewer of them, or MJPG",
        **more_hints,
    }
    kind = PermissionError if error.errno in (errno.EACCES, errno.EPERM) else OSError
    return kind(f"{what}: {hints.get(error.errno or 0, error.strerror or str(error))}")

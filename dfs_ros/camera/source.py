"""Focus-sweeping camera on a transport: frames of a source as ROS messages.

Publishes `image` (sensor_msgs/Image), `camera_info` and `focus` (dfs_ros/FrameFocus), all with one stamp,
`image/compressed` (JPEG) while subscribed, and `true_depth/image` (32FC1) where the source knows it. Where the source
knows how the camera moves, it publishes transforms, too: from `camera.body_frame` to `motion.frame` on /tf, with
the stamp of the image, and from `camera.frame_id` to `camera.body_frame` on /tf_static.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import CameraConfig
from dfs_ros.messages.compressed import compressed_message
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    FOCUS,
    IMAGE,
    Diagnostic,
    camera_info_message,
    depth_message,
    focus_message,
    image_message,
)
from dfs_ros.messages.motion import TF, StampedTransform, tf_message
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.transforms.rigid import Transform, transform
from dfs_ros.transport.base import LATCHED, DeviceLost, Publisher, Timer, Transport
from dfs_ros.types import FocusMetadata

_RATE_WINDOW_NS = 3 * 10**9
_ENOUGH_OF_RATE = 0.9
# A source with its own pace is polled almost at once: other callbacks come between.
_EAGER = 0.05
_CLOCK_SET_NS = 10**9
OPTICAL_IN_BODY = transform((0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))
"""Optical frame (x right, y down, z forward) in the body frame (x forward, y left, z up) of REP 103."""


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """Image, uint8 (H, W, 3) or (H, W), with the driver's focus metadata.

    The stamp is the time of sending, or that when it was due; with `stamped` that of the exposure, from the focus.
    `source`, `raw_position`, `raw_unit` and `calibration` as in FrameFocus.msg. `moved`: the optical frame in its place
    at rest, None = unknown. `true_depth_m`: float32 (H, W), NaN = unknown; None = none is known. `frame_id`: that of
    the source, empty = of the settings.
    """

    image: NDArray[np.uint8]
    focus: FocusMetadata
    stamped: bool = False
    source: str = "REPORTED"
    raw_position: float = math.nan
    raw_unit: str = ""
    calibration: str = "CALIBRATED"
    moved: Transform | None = None
    true_depth_m: NDArray[np.float32] | None = None
    frame_id: str = ""


class FrameSource(Protocol):
    """Source of frames.

    `intrinsics` hold at the reference focus of the settings; `distortion` is plumb_bob; `size` is (height, width).
    `paced`: frames come at the source's own pace, and reading one blocks until then. `counts`: missing and unusable
    images, by cause.
    """

    description: str
    size: tuple[int, int]
    intrinsics: Intrinsics
    distortion: tuple[float, ...]
    frames_per_sweep: int
    paced: bool
    counts: Mapping[str, int]

    def connect(self, transport: Transport) -> None:
        """Subscribe to the source's topics, if it has any."""

    def frames(self) -> Generator[SourceFrame | None, None, None]:
        """Yield frames without end; None while there is no new one."""

    def close(self) -> None:
        """Release the camera."""


class SoftwareSource:
    """Common part of sources without a device."""

    distortion: tuple[float, ...] = ()
    paced = False
    counts: Mapping[str, int] = MappingProxyType({})

    def connect(self, transport: Transport) -> None:
        """Do nothing: there are no topics."""

    def close(self) -> None:
        """Do nothing: there is no device."""


class SweepCamera:
    """Publisher of a source's frames, `camera.rate_hz` per second, while active."""

    def __init__(self, transport: Transport, source: FrameSource, config: CameraConfig) -> None:
        self._transport = transport
        self._source = source
        source.connect(transport)
        self._frames = source.frames()
        self._config = config
        self._image = transport.create_publisher("image", IMAGE)
        self._compressed: Publisher | None = None
        if config.jpeg_quality:
            self._compressed = transport.create_publisher(transport.resolve("image") + "/compressed", COMPRESSED)
        self._info = transport.create_publisher("camera_info", CAMERA_INFO)
        self._focus = transport.create_publisher("focus", FOCUS)
        self._tf: Publisher | None = None
        self._truth: Publisher | None = None
        self._sent_ns: deque[int] = deque()
        self._timer: Timer | None = None
        self._began_ns = self._clock_ns = 0
        transport.add_diagnostic("camera", self._diagnostic)

    def configure(self) -> None:
        """Do nothing: the source is ready."""

    def activate(self) -> None:
        """Start sending."""
        if self._timer is None:
            period_s = 1.0 / self._config.rate_hz
            self._began_ns = self._transport.steady_ns()
            self._timer = self._transport.create_timer(_EAGER * period_s if self._source.paced else period_s, self.send)

    def deactivate(self) -> None:
        """Stop sending."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sent_ns.clear()

    def close(self) -> None:
        """Stop sending, and release the camera."""
        self.deactivate()
        self._frames.close()
        self._source.close()
        self._frames = self._source.frames()  # starts at the first request

    def send(self) -> None:
        """Publish the next frame, stamped now unless it has a stamp."""
        try:
            frame = next(self._frames)
        except Exception as error:  # a camera that fails must not stay silent
            keep_traceback(error)
            self._transport.end(DeviceLost(str(error)) if isinstance(error, OSError) else error)
            return
        if frame is None:
            return
        source, frame_id = self._source, frame.frame_id or self._config.frame_id
        stamp = frame.focus.stamp_ns if frame.stamped else self._transport.now_ns()
        if frame.moved is not None:
            stamp = self._due_ns()
            self._send_transform(frame.moved, stamp)
        focus = focus_message(
            dataclasses.replace(frame.focus, stamp_ns=stamp),
            frame_id,
            calibration=frame.calibration,
            source=frame.source,
            raw_position=frame.raw_position,
            raw_unit=frame.raw_unit,
        )
        # Small messages first: a receiver of the image then has all of them.
        self._focus.publish(focus)
        self._info.publish(camera_info_message(source.intrinsics, source.size, stamp, frame_id, source.distortion))
        if frame.true_depth_m is not None:
            self._truth = self._truth or self._transport.create_publisher("true_depth/image", IMAGE)
            self._truth.publish(depth_message(frame.true_depth_m, stamp, frame_id))
        self._image.publish(image_message(frame.image, stamp, frame_id))
        if self._compressed is not None and self._compressed.subscription_count():
            quality = self._config.jpeg_quality
            self._compressed.publish(compressed_message(frame.image, stamp, frame_id, quality=quality))
        now_ns = self._transport.steady_ns()
        self._sent_ns.append(now_ns)
        while now_ns - self._sent_ns[0] > _RATE_WINDOW_NS:
            self._sent_ns.popleft()

    def _due_ns(self) -> int:
        """Time when this frame was due: in even steps, so that a busy machine does not make the motion jerk."""
        period_ns = round(1e9 / self._config.rate_hz)
        due_ns = self._clock_ns + (self._transport.steady_ns() - self._began_ns) // period_ns * period_ns
        late_ns = self._transport.now_ns() - due_ns
        if abs(late_ns) > _CLOCK_SET_NS:  # or not known yet
            self._clock_ns += late_ns
            due_ns += late_ns
        return due_ns

    def _send_transform(self, moved: Transform, stamp_ns: int) -> None:
        body, fixed = self._config.body_frame, self._transport.parameters.config.motion.frame
        if self._tf is None:
            static = self._transport.create_publisher("/tf_static", TF, LATCHED)
            static.publish(tf_message([StampedTransform(body, self._config.frame_id, stamp_ns, OPTICAL_IN_BODY)]))
            self._tf = self._transport.create_publisher("/tf", TF)
        in_fixed = OPTICAL_IN_BODY.after(moved).after(OPTICAL_IN_BODY.inverse())
        self._tf.publish(tf_message([StampedTransform(fixed, body, stamp_ns, in_fixed)]))

    def _diagnostic(self) -> Diagnostic:
        seconds = (self._sent_ns[-1] - self._sent_ns[0]) * 1e-9 if self._sent_ns else 0.0
        rate_hz = (len(self._sent_ns) - 1) / seconds if seconds > 0 else 0.0
        if self._timer is None:
            return Diagnostic("OK", "inactive", {})
        values: dict[str, object] = {"sent_hz": f"{rate_hz:.2f}", "wanted_hz": f"{self._config.rate_hz:g}"}
        values |= self._source.counts
        if not self._source.paced and seconds > 1.0 and rate_hz < _ENOUGH_OF_RATE * self._config.rate_hz:
            wanted = f"{self._config.rate_hz:g} were asked for: this machine is too busy, or a network too slow"
            return Diagnostic("WARN", f"sends {rate_hz:.1f} images a second, {wanted}", values)
        return Diagnostic("OK", self._source.description, values)


def sweep_order(positions: int, sweep: str) -> list[list[int]]:
    """Focus positions of the images, sweep by sweep, until they repeat.

    >>> sweep_order(3, "triangular"), sweep_order(3, "sawtooth")
    ([[0, 1, 2], [2, 1, 0]], [[0, 1, 2]])
    """
    forth = list(range(positions))
    return [forth, forth[::-1]] if sweep == "triangular" else [forth]

"""Viewer process: topics of camera and depth node, shown in the browser.

All subscriptions are best effort, so that a slow viewer never holds up the robot.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import Config
from dfs_ros.messages.compressed import image_from_compressed
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    TRIGGER,
    Message,
    camera_info_from_message,
    depth_from_message,
    focus_from_diagnostics,
    focus_from_message,
    image_from_message,
    message,
    stamp_ns,
)
from dfs_ros.messages.node_status import (
    MAX_LATENCY_S,
    image_account,
    stack_account,
)
from dfs_ros.messages.stamped import Parts, StampedSets
from dfs_ros.transport.base import SENSOR_DATA, Transport
from dfs_ros.types import FocusMetadata
from dfs_ros.viewer.health import SILENCE_S, Health
from dfs_ros.viewer.status import ViewerStatus
from dfs_ros.viewer.viewer import Viewer

Array = NDArray[np.float32]

STATUS_PERIOD_S = 0.5
RATE_WINDOW_S = 3.0
STALE_S, STALE_PERIODS = 2.0, 3.0  # age from which what is shown is dimmed; the greater of both
WAITING_IMAGES = 4
_MOST_TRUTHS = 64  # images of the longest sweep
CAPTURE_SPANS = 6  # longest spans of a stack that a capture may take


def run(transport: Transport, config: Config, nodes: Collection[str] = (), depth_node: str = "") -> None:
    """Serve the page until the transport is shut down.

    `nodes`: names of the nodes whose diagnostics are shown; none = all that appear on /diagnostics. `depth_node`: name
    of the node that captures stacks; empty = no button for it.

    Raises OSError if the port is in use.
    """
    with Viewer(config.viewer) as viewer:
        ViewerApp(transport, viewer, nodes)
        if depth_node:
            viewer.offer_capture(partial(capture, transport, depth_node))
        transport.log("info", f"viewer at {viewer.url}")
        transport.spin()


def capture(transport: Transport, depth_node: str) -> str:
    """Ask a depth node for a stack on its disk; return where it is, or why there is none. Blocks meanwhile."""
    timeout_s = CAPTURE_SPANS * transport.parameters.config.stack.max_span_s
    try:
        request = message(f"{TRIGGER}_Request")
        answer = transport.call_service(f"{depth_node}/capture", TRIGGER, request, timeout_s)
    except (TimeoutError, RuntimeError, OSError) as error:
        return f"No stack: {error}"
    return f"Captured: {answer.message}" if answer.success else f"No stack: {answer.message}"


class ViewerApp:
    """Viewer application: subscribes, matches messages by stamp, feeds a :class:`Viewer`."""

    def __init__(self, transport: Transport, viewer: Viewer, nodes: Collection[str] = ()) -> None:
        self._transport = transport
        self._inputs = _Inputs(viewer)
        self._results = _Results(viewer)
        self._viewer = viewer
        subscribe = transport.create_subscription
        topic, kind = transport.resolve("image"), IMAGE
        if transport.parameters.config.node.image_transport == "compressed":
            topic, kind = f"{topic}/compressed", COMPRESSED
        self._health = Health(topic, [transport.resolve(node)[1:] for node in nodes])
        self._image = subscribe(topic, kind, self._inputs.add_image, SENSOR_DATA)
        subscribe("focus", FOCUS, lambda msg: self._inputs.add_focus(focus_from_message(msg)), SENSOR_DATA)
        self._depth = subscribe("depth/image", IMAGE, self._add_depth, SENSOR_DATA)
        subscribe("depth/sigma", IMAGE, lambda msg: self._results.add("sigma", msg), SENSOR_DATA)
        subscribe("depth/confidence", IMAGE, lambda msg: self._results.add("confidence", msg), SENSOR_DATA)
        subscribe("depth/camera_info", CAMERA_INFO, lambda msg: self._results.add("info", msg), SENSOR_DATA)
        subscribe("all_in_focus/image", IMAGE, lambda msg: self._results.add("sharp", msg), SENSOR_DATA)
        subscribe("true_depth/image", IMAGE, self._results.add_truth, SENSOR_DATA)
        subscribe("/diagnostics", DIAGNOSTICS, self._add_diagnostics, SENSOR_DATA)
        self._latency_s = math.nan
        self._counts: deque[tuple[int, int, int]] = deque()
        self._heard = {name: _Heard(transport.steady_ns()) for name in ("image", "depth")}
        transport.create_timer(STATUS_PERIOD_S, self._show_status)

    def _add_depth(self, msg: Message) -> None:
        latency_s = (self._transport.now_ns() - stamp_ns(msg.header.stamp)) * 1e-9
        self._latency_s = latency_s if 0 <= latency_s <= MAX_LATENCY_S else math.nan
        self._results.add("depth", msg)

    def _add_diagnostics(self, msg: Message) -> None:
        focus = focus_from_diagnostics(msg)
        if focus is not None:
            self._inputs.add_focus(focus)
        else:
            self._health.add(msg, self._transport.steady_ns())

    def _show_status(self) -> None:
        now_ns = self._transport.steady_ns()
        counts = self._counts
        counts.append((now_ns, self._image.received, self._depth.received))
        while now_ns - counts[0][0] > RATE_WINDOW_S * 1e9:
            counts.popleft()
        (old_ns, old_images, old_depths), (_, images, depths) = counts[0], counts[-1]
        seconds = (now_ns - old_ns) * 1e-9
        self._heard["image"].note(images, now_ns)
        self._heard["depth"].note(depths, now_ns)
        self._viewer.show_status(
            ViewerStatus(
                input_hz=(images - old_images) / seconds if seconds > 0 else math.nan,
                depth_hz=(depths - old_depths) / seconds if seconds > 0 else math.nan,
                latency_s=self._latency_s,
                depth_count=depths,
                images=image_account(self._health.counts),
                stacks=stack_account(self._health.counts),
                unusable=self._health.unusable,
                camera=self._inputs.camera,
                error=self._results.error,
                stale_depth=self._stale("depth", now_ns),
                stale_image=self._stale("image", now_ns),
                warnings=(*self._silence(now_ns), *self._health.warnings),
                received=self._health.is_fresh(now_ns),
            )
        )

    def _stale(self, name: str, now_ns: int) -> str:
        """Line of text if the newest message of a topic is old, seen from its period; empty without any."""
        heard = self._heard[name]
        silence_s = (now_ns - heard.last_ns) * 1e-9
        if not heard.count or silence_s <= max(STALE_S, STALE_PERIODS * heard.period_s):
            return ""
        since = time.strftime("%H:%M:%S", time.localtime(self._transport.now_ns() * 1e-9 - silence_s))
        return f"STALE: nothing new since {since}, {silence_s:.0f} s"

    def _silence(self, now_ns: int) -> list[str]:
        """Missing inputs as a sentence; a node without images is not blamed."""
        for name, subscription, part in (("image", self._image, "camera"), ("depth", self._depth, "depth node")):
            silence_s = (now_ns - self._heard[name].last_ns) * 1e-9
            if silence_s > SILENCE_S:
                if not subscription.publisher_count():
                    return [f"The {part} is not running: nobody publishes {subscription.topic}"]
                return [f"Nothing on {subscription.topic} for {silence_s:.0f} s"]
        return []


class _Heard:
    """Times of the messages of a topic, seen at some calls."""

    def __init__(self, now_ns: int) -> None:
        self.count, self.last_ns, self.period_s = 0, now_ns, 0.0

    def note(self, count: int, now_ns: int) -> None:
        """Note the number of messages so far."""
        if count > self.count:
            if self.count:
                self.period_s = (now_ns - self.last_ns) * 1e-9 / (count - self.count)
            self.count, self.last_ns = count, now_ns


class _Inputs:
    """Input images and their focus, matched by stamp."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._sets = StampedSets(2, lambda parts: "image" in parts, newer=WAITING_IMAGES, most=2 * WAITING_IMAGES)
        self._newest: tuple[str, tuple[int, ...], str, FocusMetadata] | None = None

    @property
    def camera(self) -> str:
        """Line of text on the newest image and its lens."""
        if self._newest is None:
            return ""
        frame_id, (height, width, *_), encoding, focus = self._newest
        parts = [frame_id, f"{width} × {height} {encoding}"]
        if focus.focal_length_m > 0:
            parts.append(f"f = {focus.focal_length_m * 1e3:.3g} mm")
        if focus.f_number > 0:
            parts.append(f"f/{focus.f_number:.3g}")
        if focus.count:
            parts.append(f"{focus.count} images a sweep")
        return " · ".join(part for part in parts if part)

    def add_image(self, msg: Message) -> None:
        self._add("image", stamp_ns(msg.header.stamp), msg)

    def add_focus(self, focus: FocusMetadata) -> None:
        self._add("focus", focus.stamp_ns, focus)

    def _add(self, part: str, added_ns: int, value: Any) -> None:
        for stamp, parts in self._sets.add(part, added_ns, value):
            msg, focus = parts["image"], parts.get("focus", FocusMetadata(stamp, math.nan))
            compressed = hasattr(msg, "format")
            image = image_from_compressed(msg) if compressed else image_from_message(msg)
            encoding = msg.format.partition(" compressed")[0] if compressed else msg.encoding
            self._newest = (msg.header.frame_id, image.shape, encoding, focus)
            self._viewer.show_frame(image, focus.focus_diopters, stamp)


class _Results:
    """Depth, sigma, confidence, camera_info and all-in-focus image, put together by stamp.

    A set is shown when it is whole, or, as far as it has come, when the next one begins: not every node publishes all.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._sets = StampedSets(5, lambda parts: "depth" in parts and self._info is not None)
        self._info: Message | None = None
        self._truths: dict[int, Message] = {}
        self.error = ""
        """Line of text on the newest depth against the truth of its stamp; empty without one."""

    def add_truth(self, msg: Message) -> None:
        """Keep a true depth, which comes before the depth of its stamp."""
        self._truths[stamp_ns(msg.header.stamp)] = msg
        while len(self._truths) > _MOST_TRUTHS:
            del self._truths[next(iter(self._truths))]

    def add(self, part: str, msg: Message) -> None:
        if part == "info":
            self._info = msg
        for stamp, parts in self._sets.add(part, stamp_ns(msg.header.stamp), msg):
            self._show(stamp, parts)

    def _show(self, stamp: int, parts: Parts) -> None:
        depth_m = depth_from_message(parts["depth"])
        sigma_m = depth_from_message(parts["sigma"]) if "sigma" in parts else None
        truth = self._truths.get(stamp)
        self.error = "" if truth is None else error_text(depth_m, sigma_m, depth_from_message(truth))
        info = camera_info_from_message(parts.get("info", self._info))
        if info.size != depth_m.shape:
            raise ValueError(
                f"depth/camera_info: expected the size of depth/image {depth_m.shape}, received {info.size}"
            )
        self._viewer.show_depth(
            depth_m,
            sigma_m,
            image_from_message(parts["sharp"]) if "sharp" in parts else None,
            info.intrinsics,
            stamp,
            depth_from_message(parts["confidence"]) if "confidence" in parts else None,
        )


def error_text(depth_m: Array, sigma_m: Array | None, truth_m: Array) -> str:
    """Line of text on the error of depth (H, W) against a truth of the same view, which may be larger."""
    if truth_m.shape != depth_m.shape:
        truth_m = np.asarray(cv2.resize(truth_m, depth_m.shape[::-1], interpolation=cv2.INTER_NEAREST), np.float32)
    error = np.abs(depth_m - truth_m)
    known = np.isfinite(error)
    if not known.any():
        return ""
    median, relative = np.median(error[known]), np.median(error[known] / truth_m[known])
    text = f"Against the true depth: median error {1e3 * median:.0f} mm, {100 * relative:.1f} %"
    if sigma_m is None:
        return text
    return f"{text}; {100 * np.mean(error[known] < 3 * sigma_m[known]):.0f} % within 3 sigma"

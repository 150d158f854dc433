"""Monitor of a run, by the messages of the depth node."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from dfs_ros.cli.participants import DEPTH_NODE
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    CameraInfo,
    Diagnostic,
    Message,
    camera_info_from_message,
    depth_from_message,
    diagnostics_from_message,
    focus_from_message,
    image_from_message,
    stamp_ns,
)
from dfs_ros.messages.node_status import MAX_LATENCY_S, drops, number
from dfs_ros.messages.stamped import StampedSets
from dfs_ros.node.health import rate_hz
from dfs_ros.node.lens import LensTracker
from dfs_ros.transport.base import RELIABLE, SENSOR_DATA, Transport
from dfs_ros.types import Camera, DepthResult, FocusMetadata

_PARTS = ("depth/image", "depth/sigma", "depth/camera_info", "all_in_focus/image")
_FOCUS_KEPT = 4096
_LATENCIES_KEPT = 100_000
_RECENT = 100


class Spread(NamedTuple):
    """Median, 99th percentile and largest, in seconds; NaN without measurements."""

    p50: float
    p99: float
    max: float


class Monitor:
    """Monitor of depth and diagnostics; `collect` also subscribes to the whole results."""

    def __init__(self, transport: Transport, *, collect: bool) -> None:
        self._transport = transport
        self._collect = collect
        self.node = Diagnostic("STALE", "no diagnostics of the depth node yet")
        self.latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        """Latency from the newest image of a sweep to the reception of its depth image."""
        self.times_ns: deque[int] = deque(maxlen=_LATENCIES_KEPT)
        """Times of reception of depth images, by the clock that is never set."""
        self.depth_count = 0
        self.image_callback_ms: dict[str, float] = {}
        """99th percentile of the node's time for an image's callback, by clock: wall, processor."""
        self._focus: dict[int, FocusMetadata] = {}
        self._sweep_ends: dict[int, int] = {}
        self._sets = StampedSets(len(_PARTS))
        self._newest: dict[str, Message] = {}
        self._newest_focus: FocusMetadata | None = None
        self._last_focus = FocusMetadata(0, math.nan)
        quality = RELIABLE if collect else SENSOR_DATA
        subscribe = transport.create_subscription
        self._lens = LensTracker(transport.parameters.config.lens)
        subscribe("focus", FOCUS, self._add_focus, SENSOR_DATA)
        subscribe("camera_info", CAMERA_INFO, self._add_camera_info, SENSOR_DATA)
        subscribe("/diagnostics", DIAGNOSTICS, self._add_diagnostics, SENSOR_DATA)
        self._depth = subscribe("depth/image", IMAGE, self._add_depth, quality)
        if collect:
            for topic in _PARTS[1:]:
                kind = CAMERA_INFO if topic.endswith("info") else IMAGE
                subscribe(topic, kind, partial(self._add_part, topic), quality)

    def restart(self) -> None:
        """Reset the counts of depth images, rates and latencies."""
        self.times_ns.clear()
        self.latencies_s.clear()
        self.depth_count = 0

    @property
    def depth_hz(self) -> float:
        """Recent rate of depth images in Hz; 0 before the second one."""
        return rate_hz(list(islice(reversed(self.times_ns), _RECENT))[::-1], self._transport.steady_ns())

    @property
    def mean_hz(self) -> float:
        """Mean rate of depth images in Hz, from the first to the last."""
        times_ns = self.times_ns
        return (len(times_ns) - 1) * 1e9 / (times_ns[-1] - times_ns[0]) if len(times_ns) > 1 else 0.0

    @property
    def latency(self) -> Spread:
        """Latency from the newest image of a sweep to its depth."""
        if not self.latencies_s:
            return Spread(math.nan, math.nan, math.nan)
        p50, p99, largest = np.percentile(np.array(self.latencies_s), [50, 99, 100])
        return Spread(float(p50), float(p99), float(largest))

    @property
    def depth_publishers(self) -> int:
        """Number of nodes that publish depth; more than one is a mistake."""
        return self._depth.publisher_count()

    def result(self) -> DepthResult | None:
        """Newest complete result received; None before the first.

        Confidence is not published, so it is NaN here.
        """
        if not self._newest:
            return None
        parts = self._newest
        depth_m = depth_from_message(parts["depth/image"])
        return DepthResult(
            depth_m=depth_m,
            sigma_m=depth_from_message(parts["depth/sigma"]),
            confidence=np.full(depth_m.shape, np.nan, np.float32),
            all_in_focus=image_from_message(parts["all_in_focus/image"]),
            camera=self._camera(camera_info_from_message(parts["depth/camera_info"])),
            stamp_ns=stamp_ns(parts["depth/image"].header.stamp),
        )

    def _camera(self, info: CameraInfo) -> Camera:
        """Lens from the camera's messages, with the intrinsics that came with the depth."""
        said = self._lens.described(self._newest_focus or self._last_focus)
        original = self._lens.info_at(info.stamp_ns)
        size = info.size if original is None else original.size
        lens = self._lens.camera(size, said.focal_length_m, said.f_number, original).scaled(info.size[1] / size[1])
        fx, fy, cx, cy = info.intrinsics
        at_diopters = self._newest_focus.focus_diopters if self._newest_focus is not None else 0.0
        return replace(lens, fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy, reference_focus_diopters=at_diopters)

    def _add_camera_info(self, msg: Message) -> None:
        self._lens.add_info(camera_info_from_message(msg))

    def _add_focus(self, msg: Message) -> None:
        focus = focus_from_message(msg)
        self._focus[focus.stamp_ns] = self._last_focus = focus
        self._sweep_ends[focus.sweep_id] = focus.stamp_ns
        for memory in (self._focus, self._sweep_ends):
            while len(memory) > _FOCUS_KEPT:
                del memory[next(iter(memory))]

    def _add_depth(self, msg: Message) -> None:
        now_ns = self._transport.now_ns()
        self.depth_count += 1
        self.times_ns.append(self._transport.steady_ns())
        focus = self._focus.get(stamp_ns(msg.header.stamp))
        if focus is not None:
            latency_s = (now_ns - self._sweep_ends[focus.sweep_id]) * 1e-9
            if 0 <= latency_s < MAX_LATENCY_S:
                self.latencies_s.append(latency_s)
        if self._collect:
            self._add_part("depth/image", msg)

    def _add_part(self, topic: str, msg: Message) -> None:
        for stamp, parts in self._sets.add(topic, stamp_ns(msg.header.stamp), msg):
            self._newest, self._newest_focus = parts, self._focus.get(stamp)

    def _add_diagnostics(self, msg: Message) -> None:
        found = diagnostics_from_message(msg)
        node = self._transport.resolve(DEPTH_NODE)[1:]
        self.node = found.get(f"{node}: depth", self.node)
        transport = found.get(f"{node}: transport")
        if transport is not None:
            self.image_callback_ms = _image_callback_ms(transport, self._transport.resolve("image"))


def _image_callback_ms(status: Diagnostic, topic: str) -> dict[str, float]:
    """99th percentiles of the image callback, from the diagnostics of a node's transport."""
    found = {}
    for clock, name in (("wall", "callback_p99_ms"), ("processor", "callback_cpu_p99_ms")):
        for each in (f"{topic} {name}", f"{topic}/compressed {name}"):
            if each in status.values:
                found[clock] = number(status, each)
    return found


def status_line(monitor: Monitor) -> str:
    """Status line: rates, latency, coverage, drops."""
    node = monitor.node
    parts = [f"images {_number(number(node, 'images_hz'), '.1f', ' Hz')}", f"depth {monitor.depth_hz:.2g} Hz"]
    recent = list(monitor.latencies_s)[-10:]
    latency_ms = 1e3 * sum(recent) / len(recent) if recent else math.nan
    parts.append(f"latency {_number(latency_ms, '.0f', ' ms')}")
    parts.append(f"{_number(100 * number(node, 'share_with_depth'), '.0f', ' %')} of pixels with depth")
    parts.append(drops_text(node))
    return " | ".join(parts)


def drops_text(node: Diagnostic) -> str:
    """Text of drops by cause, and of superseded stacks."""
    counts = ", ".join(f"{count} {cause.replace('_', ' ')}" for cause, count in drops(node).items())
    superseded = number(node, "superseded")
    skipped = f"; {superseded:.0f} stacks superseded" if superseded > 0 else ""
    return f"dropped: {counts or 'none'}{skipped}"


def summary(monitor: Monitor) -> dict[str, Any]:
    """Measurements as plain values."""
    latency = monitor.latency
    superseded = number(monitor.node, "superseded")
    return {
        "depth_images": monitor.depth_count,
        "depth_hz": monitor.mean_hz,
        "images_hz": number(monitor.node, "images_hz"),
        "latency_s": latency._asdict(),
        "dropped": drops(monitor.node),
        "stacks_superseded": int(superseded) if superseded == superseded else None,
    }


def _number(value: float, form: str, unit: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}{unit}"

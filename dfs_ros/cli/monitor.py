"""Monitor of a run from outside the depth node, by its messages alone."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    Message,
    camera_info_from_message,
    depth_from_message,
    focus_from_message,
    image_from_message,
    stamp_ns,
)
from dfs_ros.node.health import FAULTS, MAX_LATENCY_S, rate_hz
from dfs_ros.node.lens import LensTracker
from dfs_ros.stacks.assembler import OUTCOMES
from dfs_ros.transport.base import RELIABLE, SENSOR_DATA, Transport
from dfs_ros.types import Camera, DepthResult, FocusMetadata

DROP_CAUSES = (*(name for name in OUTCOMES if name != "used"), "dropped", "wrong_size", "clock_reset", *FAULTS)
_PARTS = ("depth/image", "depth/sigma", "depth/camera_info", "all_in_focus/image")
_SETS_KEPT = 4
_FOCUS_KEPT = 4096
_LATENCIES_KEPT = 100_000
_RECENT = 100
_LEVELS = ("OK", "WARN", "ERROR", "STALE")


class Spread(NamedTuple):
    """Seconds: median, 99th percentile and largest; NaN where nothing was measured."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class NodeState:
    """The newest diagnostics of the depth node."""

    level: str = "STALE"
    message: str = "no diagnostics of the depth node yet"
    values: tuple[tuple[str, str], ...] = ()

    def number(self, key: str) -> float:
        """A value as a number; NaN where it is not there."""
        try:
            return float(dict(self.values).get(key, ""))
        except ValueError:
            return math.nan

    @property
    def drops(self) -> dict[str, int]:
        """Images and stacks not used, by cause, without zeros."""
        return {cause: int(n) for cause in DROP_CAUSES if (n := self.number(cause)) > 0}


class Monitor:
    """Subscribes to depth and diagnostics of the depth node, and with `collect` to its whole results."""

    def __init__(self, transport: Transport, *, collect: bool) -> None:
        self._transport = transport
        self._collect = collect
        self.node = NodeState()
        self.latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        """From the newest image of a sweep to the depth image of that sweep, received here."""
        self.times_ns: deque[int] = deque(maxlen=_LATENCIES_KEPT)
        """When depth images were received."""
        self.depth_count = 0
        self.image_callback_ms: dict[str, float] = {}
        """How long the node was at work on an image as it came, at most, of 99 % of the last ones; wall, processor."""
        self._focus: dict[int, FocusMetadata] = {}
        self._sweep_ends: dict[int, int] = {}
        self._sets: dict[int, dict[str, Message]] = {}
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
        """Count depth images, rates and latencies from now on."""
        self.times_ns.clear()
        self.latencies_s.clear()
        self.depth_count = 0

    @property
    def depth_hz(self) -> float:
        """Depth images a second of late; 0 before the second one."""
        return rate_hz(list(islice(reversed(self.times_ns), _RECENT))[::-1], self._transport.now_ns())

    @property
    def mean_hz(self) -> float:
        """Depth images a second between the first and the last."""
        times_ns = self.times_ns
        return (len(times_ns) - 1) * 1e9 / (times_ns[-1] - times_ns[0]) if len(times_ns) > 1 else 0.0

    @property
    def latency(self) -> Spread:
        """From the newest image of a sweep to its depth."""
        if not self.latencies_s:
            return Spread(math.nan, math.nan, math.nan)
        p50, p99, largest = np.percentile(np.array(self.latencies_s), [50, 99, 100])
        return Spread(float(p50), float(p99), float(largest))

    @property
    def depth_publishers(self) -> int:
        """How many nodes publish depth; more than one is a mix-up."""
        return self._depth.publisher_count()

    def result(self) -> DepthResult | None:
        """The newest complete result that was received; None before there is one.

        Confidence is not published and NaN here.
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
        """The lens as the camera says it, with the intrinsics that came with the depth."""
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
        self.times_ns.append(now_ns)
        focus = self._focus.get(stamp_ns(msg.header.stamp))
        if focus is not None:
            latency_s = (now_ns - self._sweep_ends[focus.sweep_id]) * 1e-9
            if 0 <= latency_s < MAX_LATENCY_S:
                self.latencies_s.append(latency_s)
        if self._collect:
            self._add_part("depth/image", msg)

    def _add_part(self, topic: str, msg: Message) -> None:
        stamp = stamp_ns(msg.header.stamp)
        parts = self._sets.setdefault(stamp, {})
        parts[topic] = msg
        if len(parts) == len(_PARTS):
            self._newest, self._newest_focus = self._sets.pop(stamp), self._focus.get(stamp)
        while len(self._sets) > _SETS_KEPT:
            del self._sets[next(iter(self._sets))]

    def _add_diagnostics(self, msg: Message) -> None:
        for status in msg.status:
            if status.name == f"{DEPTH_NODE}: depth":
                values = tuple((pair.key, pair.value) for pair in status.values)
                level = _LEVELS[min(int(status.level), len(_LEVELS) - 1)]
                self.node = NodeState(level, status.message, values)
            elif status.name == f"{DEPTH_NODE}: transport":
                transport_values = {pair.key: pair.value for pair in status.values}
                self.image_callback_ms = _image_callback_ms(transport_values, self._transport.resolve("image"))


def _image_callback_ms(values: Mapping[str, str], topic: str) -> dict[str, float]:
    """Of the diagnostics of a node's transport."""
    found = {}
    for clock, name in (("wall", "callback_p99_ms"), ("processor", "callback_cpu_p99_ms")):
        text = values.get(f"{topic} {name}", values.get(f"{topic}/compressed {name}"))
        if text is not None:
            found[clock] = float(text)
    return found


def status_line(monitor: Monitor) -> str:
    """Rates, latency, coverage and drops in one line."""
    node = monitor.node
    parts = [f"images {_number(node.number('images_hz'), '.1f', ' Hz')}", f"depth {monitor.depth_hz:.2g} Hz"]
    recent = list(monitor.latencies_s)[-10:]
    latency_ms = 1e3 * sum(recent) / len(recent) if recent else math.nan
    parts.append(f"latency {_number(latency_ms, '.0f', ' ms')}")
    parts.append(f"{_number(100 * node.number('share_with_depth'), '.0f', ' %')} of pixels with depth")
    parts.append(drops_text(node))
    return " | ".join(parts)


def drops_text(node: NodeState) -> str:
    """Drops by cause, and stacks given up because newer ones came."""
    drops = ", ".join(f"{count} {cause.replace('_', ' ')}" for cause, count in node.drops.items())
    superseded = node.number("superseded")
    skipped = f"; {superseded:.0f} stacks superseded" if superseded > 0 else ""
    return f"dropped: {drops or 'none'}{skipped}"


def summary(monitor: Monitor) -> dict[str, Any]:
    """What was measured, as plain values."""
    latency = monitor.latency
    superseded = monitor.node.number("superseded")
    return {
        "depth_images": monitor.depth_count,
        "depth_hz": monitor.mean_hz,
        "images_hz": monitor.node.number("images_hz"),
        "latency_s": latency._asdict(),
        "dropped": monitor.node.drops,
        "stacks_superseded": int(superseded) if superseded == superseded else None,
    }


def _number(value: float, form: str, unit: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}{unit}"

"""What a listener hears of a simulated camera and its depth node: counts of images, depth against the true planes."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import NamedTuple

import numpy as np

from dfs_ros.cli.participants import CAMERA_NODE, DEPTH_NODE
from dfs_ros.messages.convert import (
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    Message,
    depth_from_message,
    diagnostics_from_message,
    stamp_ns,
)
from dfs_ros.messages.node_status import number
from dfs_ros.messages.stamped import StampedSets
from dfs_ros.simulation.scenes import demo_scene
from dfs_ros.transport.base import RELIABLE, SENSOR_DATA, Transport

LEAST_COVERAGE = 0.3
"""Share of a plane's pixels with depth, below which it counts as absent."""
OUTCOMES = ("received", "dropped", "early", "late", "no_focus", "incomplete", "stacks", "superseded")


class PlaneError(NamedTuple):
    """Error of the median depth of a plane, as a share of its depth, and its size in median standard deviations."""

    share: float
    sigmas: float


class Heard:
    """Listener of the namespace `namespace` ("" = the root); images are of `size` (width, height)."""

    def __init__(self, transport: Transport, namespace: str, size: tuple[int, int]) -> None:
        scene = demo_scene(*size)
        self._planes = {name: (scene.mask(name, margin_px=6), at) for name, at in scene.plane_depth_m.items()}
        self._status = f"{namespace}/{DEPTH_NODE}: depth"[1:]
        self._sent: list[tuple[int, int]] = []  # stamp and number of each image of the camera
        self._first: Counter[str] | None = None
        self._newest: Counter[str] = Counter()
        self._camera = f"{namespace}/{CAMERA_NODE}: camera"[1:]
        self.state = self.message = ""
        self.camera_warning = ""
        self.latency_s = math.nan
        self.planes: list[dict[str, PlaneError]] = []
        """Errors of the planes, for each depth image since :meth:`restart`."""
        self._sets = StampedSets(2)
        subscribe = transport.create_subscription
        subscribe(f"{namespace}/focus", FOCUS, self._add_focus, RELIABLE)
        for part in ("image", "sigma"):
            subscribe(f"{namespace}/depth/{part}", IMAGE, partial(self._add_depth, part), RELIABLE)
        subscribe("/diagnostics", DIAGNOSTICS, self._add_diagnostics, SENSOR_DATA)

    @property
    def depth_images(self) -> int:
        """Number of depth images since :meth:`restart`."""
        return len(self.planes)

    @property
    def received(self) -> int:
        """Number of images that the node received, as far as it has told."""
        return self._newest["received"]

    def restart(self) -> None:
        """Count from now on."""
        self.planes.clear()
        self._first = None

    def counts(self) -> dict[str, int]:
        """Images sent and their outcomes, between the node's first and last diagnostics since :meth:`restart`."""
        first = self._first or Counter()
        return {name: self._newest[name] - first[name] for name in ("sent", *OUTCOMES)}

    def _add_focus(self, msg: Message) -> None:
        self._sent.append((stamp_ns(msg.header.stamp), msg.sweep_id * msg.count + msg.index + 1))

    def _add_depth(self, part: str, msg: Message) -> None:
        for _, parts in self._sets.add(part, stamp_ns(msg.header.stamp), msg):
            depth_m, sigma_m = depth_from_message(parts["image"]), depth_from_message(parts["sigma"])
            found = {}
            for name, (mask, true_m) in self._planes.items():
                known = mask & np.isfinite(depth_m)
                if known.sum() >= LEAST_COVERAGE * mask.sum():
                    error_m = float(np.median(depth_m[known])) - true_m
                    found[name] = PlaneError(error_m / true_m, abs(error_m) / float(np.median(sigma_m[known])))
            self.planes.append(found)

    def _add_diagnostics(self, msg: Message) -> None:
        found = diagnostics_from_message(msg)
        if (camera := found.get(self._camera)) is not None and camera.level != "OK":
            self.camera_warning = camera.message
        if (status := found.get(self._status)) is None:
            return
        told_ns = stamp_ns(msg.header.stamp)
        sent = max((count for stamp, count in self._sent if stamp <= told_ns), default=0)
        outcomes = {name: value for name in OUTCOMES if math.isfinite(value := number(status, name))}
        self._newest = Counter({"sent": sent} | {name: int(value) for name, value in outcomes.items()})
        self._first = self._first or self._newest
        self.state, self.message = str(status.values.get("state", "")), status.message
        self.latency_s = number(status, "latency_s")

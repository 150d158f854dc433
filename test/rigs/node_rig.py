"""A camera that does as it is told, the depth node, and somebody who listens; the tests set the clock."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.faults.rig import CAMERA, FOCUS_DIOPTERS, PLANE_M, SIZE
from benchmarks.faults.rig import SETTINGS as FAST
from dfs_ros.config import Config
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    POINTS,
    camera_info_message,
    focus_message,
    image_message,
)
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import FocalStack, FocusMetadata, LensState

MS = 10**6
START_NS = 10**18
OUTPUTS = {
    "depth/image": IMAGE,
    "depth/camera_info": CAMERA_INFO,
    "depth/sigma": IMAGE,
    "depth/confidence": IMAGE,
    "depth/points": POINTS,
    "all_in_focus/image": IMAGE,
    "all_in_focus/camera_info": CAMERA_INFO,
}
OK, WARN, ERROR = 0, 1, 2


@functools.cache
def plane_stack() -> FocalStack:
    """A textured plane facing the camera, at PLANE_M."""
    fx_px = CAMERA.focal_length_m / CAMERA.pixel_pitch_m
    scene = plane_scene(PLANE_M, SIZE[1], SIZE[0], seed=3, fx_px=fx_px)
    return render_stack(scene.rgb, scene.depth_m, CAMERA, FOCUS_DIOPTERS)


class Rig:
    """A camera that does as it is told, the depth node, and somebody who listens."""

    def __init__(self, stack: FocalStack, settings: dict[str, dict[str, Any]], *, inline: bool = True) -> None:
        self.stack = stack
        config = Config.from_dict(FAST).updated(settings)
        self.bus = LocalBus(start_ns=START_NS)
        self.camera = LocalTransport("camera", self.bus)
        topics = {"image": IMAGE, "camera_info": CAMERA_INFO, "focus": FOCUS, "/diagnostics": DIAGNOSTICS}
        self.publishers = {topic: self.camera.create_publisher(topic, kind) for topic, kind in topics.items()}
        self.transport = LocalTransport("dfs", self.bus, config=config)
        self.node = DepthNode(self.transport, inline=inline)
        self.listener = LocalTransport("listener", self.bus)
        self.received: dict[str, list[Any]] = {}
        self.diagnostics: list[Any] = []
        self.listener.create_subscription("/diagnostics", DIAGNOSTICS, self._add_diagnostics)
        self.sweeps = 0
        self.info: Any = None  # what is sent as camera_info; None = what is right
        self.lens = CAMERA
        self.node.activate()

    def close(self) -> None:
        self.node.close()
        for transport in (self.camera, self.transport, self.listener):
            transport.shutdown()

    def listen(self, *topics: str) -> None:
        for topic in topics:
            messages = self.received.setdefault(topic, [])
            self.listener.create_subscription(topic, OUTPUTS[topic], messages.append)

    def spin(self) -> None:
        while self.camera.spin_once(0) or self.transport.spin_once(0) or self.listener.spin_once(0):
            pass

    def advance(self, milliseconds: float) -> None:
        self.bus.advance_to(self.bus.now_ns() + round(milliseconds * MS))
        self.spin()

    def send(self, topic: str, msg: Any) -> None:
        self.publishers[topic].publish(msg)
        self.spin()

    def send_frame(self, i: int, stamp: int | None = None, **focus: Any) -> int:
        """One image with its focus; `focus` changes what the metadata says. Returns its stamp."""
        stamp = self.bus.now_ns() if stamp is None else stamp
        info = camera_info_message(intrinsics(CAMERA, SIZE), SIZE, stamp, "lens")
        self.send("camera_info", info if self.info is None else self.info)
        self.send("focus", focus_message(self.focus(i, stamp, **focus), "lens"))
        self.send("image", image_message(self.stack.images[i], stamp, "lens"))
        return stamp

    def focus(self, i: int, stamp: int, **changes: Any) -> FocusMetadata:
        metadata = FocusMetadata(
            stamp_ns=stamp,
            focus_diopters=float(self.stack.focus_diopters[i]),
            lens_state=LensState.STATIONARY,
            focal_length_m=self.lens.focal_length_m,
            f_number=self.lens.f_number,
            magnification=1.0,
            sweep_id=self.sweeps,
            index=i,
            count=len(self.stack),
        )
        return dataclasses.replace(metadata, **changes)

    def send_sweep(self, **focus: Any) -> list[int]:
        """A whole sweep at 30 images a second; returns the stamps."""
        stamps = []
        for i in range(len(self.stack)):
            stamps.append(self.send_frame(i, **focus))
            self.advance(1000 / 30)
        self.sweeps += 1
        return stamps

    def status(self, name: str = "dfs: depth") -> tuple[int, str, dict[str, str]]:
        """Level, text and values of the next diagnostics."""
        self.advance(1000)
        status = next(s for s in self.diagnostics[-1].status if s.name == name)
        return int(status.level), status.message, {pair.key: pair.value for pair in status.values}

    def depths(self) -> list[Any]:
        return self.received["depth/image"]

    def _add_diagnostics(self, msg: Any) -> None:
        if any(status.name.startswith("dfs:") for status in msg.status):
            self.diagnostics.append(msg)


@pytest.fixture(scope="module")
def plane() -> FocalStack:
    return plane_stack()


@pytest.fixture
def make_rig(plane: FocalStack) -> Iterator[Callable[..., Rig]]:
    rigs = []

    def make(settings: dict[str, dict[str, Any]] | None = None, **options: Any) -> Rig:
        rigs.append(Rig(plane, settings or {}, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    made = make_rig()
    made.listen("depth/image")
    return made

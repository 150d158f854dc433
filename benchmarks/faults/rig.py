"""Camera, depth node, viewer application and monitor of `dfs run` in one process, on a clock that is set."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfs_ros.cli.monitor import Monitor
from dfs_ros.config import Config
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    camera_info_message,
    depth_from_message,
    diagnostics_from_message,
    focus_message,
    image_message,
)
from dfs_ros.messages.definitions import Message, serialize
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.node.outputs import TOPICS as OUTPUTS
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.transport.base import Qos
from dfs_ros.transport.cdr import decoded_cdr
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import Camera, FocusMetadata, LensState
from dfs_ros.viewer.app import ViewerApp

SIZE = (72, 96)
CAMERA = Camera(focal_length_m=0.025, f_number=1.4, pixel_pitch_m=12.8e-3 / SIZE[1])
PLANE_M = 0.9
FOCUS_DIOPTERS = (2.2, 1.1, 0.5)
SETTINGS = {
    "hypotheses": {"count": 24, "min_depth_m": 0.4, "max_depth_m": 4.0},
    "cost": {"channels": "luma"},
    "network": {"name": "none"},
    "alignment": {"mode": "off"},
    "lens": {"aperture": "given"},
    "processing": {"threads": 1},
}
TOPICS = {"image": IMAGE, "camera_info": CAMERA_INFO, "focus": FOCUS, "/diagnostics": DIAGNOSTICS, **OUTPUTS}
_PERIOD_NS = 33_333_333
_START_NS = 10**18


class Bus(LocalBus):
    """Bus whose stamps run `ahead_ns` ahead of the clock for intervals; it may be set at any time, back too."""

    ahead_ns = 0

    def now_ns(self) -> int:
        return self.steady_ns() + self.ahead_ns


class _SilentViewer:
    """Takes the place of the page, which needs a browser: the application's checks and conversions run as always."""

    def __init__(self) -> None:
        self.statuses: list[Any] = []

    def show_depth(self, *data: Any) -> None: ...

    def show_frame(self, *data: Any) -> None: ...

    def show_status(self, status: Any) -> None:
        self.statuses[:] = [status]


class Rig:
    """See the head of this module; everything that is published passes as CDR."""

    def __init__(self, settings: dict[str, dict[str, Any]] | None = None) -> None:
        scene = plane_scene(PLANE_M, SIZE[1], SIZE[0])
        self.stack = render_stack(scene.rgb, scene.depth_m, CAMERA, FOCUS_DIOPTERS)
        config = Config.from_dict(SETTINGS).updated(settings or {})
        self.bus = Bus(start_ns=_START_NS)
        self.nodes = [
            LocalTransport(name, self.bus, config=config) for name in ("dfs", "dfs_viewer", "dfs_run", "peer")
        ]
        self.dfs, viewer, run, self.peer = self.nodes
        self.node = DepthNode(self.dfs, inline=True)
        self.viewer = _SilentViewer()
        ViewerApp(viewer, self.viewer)  # type: ignore[arg-type]
        self.monitor = Monitor(run, collect=True)
        self.depths: list[Message] = []
        self.status: dict[str, Any] = {}
        self.peer.create_subscription("depth/image", IMAGE, self.depths.append)
        self.peer.create_subscription("/diagnostics", DIAGNOSTICS, self._add_diagnostics)
        self._publishers = {
            topic: self.peer.create_publisher(topic, kind, Qos(reliable=True, depth=10))
            for topic, kind in TOPICS.items()
        }
        self.sweeps = 0
        self.node.activate()

    def close(self) -> None:
        self.node.close()
        for node in self.nodes:
            node.shutdown()

    def spin(self) -> None:
        """Do all due work; an exception that comes through would have ended a node."""
        while any([node.spin_once(0) for node in self.nodes]):
            pass

    def advance(self, nanoseconds: int) -> None:
        self.bus.advance_to(self.bus.steady_ns() + nanoseconds)
        self.spin()

    def send(self, topic: str, cdr: bytes) -> None:
        """Publish CDR to all subscriptions of a topic of :data:`TOPICS`, as a transport would."""
        kind = TOPICS[topic]
        for node in self.nodes:
            for subscription in list(node.subscriptions):
                if (subscription.topic, subscription.type_name) == (node.resolve(topic), kind):
                    msg = None
                    with node.guard(subscription.topic, subscription.faults):
                        msg = decoded_cdr(cdr, kind, node.parameters.config.limits)
                    if msg is not None:
                        subscription.mailbox.put(msg)  # type: ignore[attr-defined]
        self.spin()

    def messages(self, i: int) -> dict[str, Message]:
        """Messages of image `i` of the sweep under way, now."""
        stamp = self.bus.now_ns()
        size = self.stack.images.shape[1:3]
        focus = FocusMetadata(
            stamp_ns=stamp,
            focus_diopters=FOCUS_DIOPTERS[i],
            lens_state=LensState.STATIONARY,
            focal_length_m=CAMERA.focal_length_m,
            f_number=CAMERA.f_number,
            magnification=1.0,
            sweep_id=self.sweeps,
            index=i,
            count=len(FOCUS_DIOPTERS),
        )
        return {
            "camera_info": camera_info_message(intrinsics(CAMERA, size), size, stamp, "lens"),
            "focus": focus_message(focus, "lens"),
            "image": image_message(self.stack.images[i], stamp, "lens"),
        }

    def send_frame(self, i: int) -> None:
        for topic, msg in self.messages(i).items():
            self.send(topic, bytes(serialize(msg, TOPICS[topic])))
        self.advance(_PERIOD_NS)

    def sweep(self) -> float:
        """Send a whole sweep; return the median of its depth, NaN without depth."""
        self.depths.clear()
        began_ns = self.bus.now_ns()
        for i in range(len(FOCUS_DIOPTERS)):
            self.send_frame(i)
        self.sweeps += 1
        for msg in self.depths:
            if began_ns <= msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec <= self.bus.now_ns():
                depth_m = depth_from_message(msg)
                return float(np.nanmedian(depth_m)) if np.isfinite(depth_m).any() else float("nan")
        return float("nan")

    def is_right(self, depth_m: float) -> bool:
        """True for the depth of the scene."""
        return abs(depth_m / PLANE_M - 1.0) < 0.03

    def _add_diagnostics(self, msg: Message) -> None:
        self.status |= {
            name: status for name, status in diagnostics_from_message(msg).items() if name.startswith("dfs: ")
        }

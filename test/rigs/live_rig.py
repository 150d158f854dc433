"""A camera that does as it is told, the depth node and somebody who listens, with real time and threads."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from node_rig import CAMERA, FAST, OUTPUTS, SIZE

from dfs_ros.config import Config
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    camera_info_message,
    depth_from_message,
    focus_message,
    image_message,
)
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.transport.base import Qos, Transport
from dfs_ros.types import FocalStack, FocusMetadata, LensState

TIMEOUT_S = 240.0
# Faults are told soon, and a stack waits for its images however busy the machine is.
PATIENT = {"node": {"silence_s": 0.5}, "stack": {"max_span_s": 60.0}}
_TOPICS = {"image": IMAGE, "image/compressed": COMPRESSED, "camera_info": CAMERA_INFO, "focus": FOCUS}


class LiveRig:
    """`open_node(name, config)` opens a transport; the depth node spins in a thread, the others in the test's."""

    def __init__(
        self, stack: FocalStack, open_node: Callable[[str, Config], Transport], settings: dict[str, dict[str, Any]]
    ) -> None:
        self.stack = stack
        self._open_node = open_node
        config = Config.from_dict(FAST).updated(PATIENT).updated(settings)
        self.transport = open_node("dfs", config)
        self.listener = open_node("listener", config)
        self.received: dict[str, list[Any]] = {}
        self.states: list[Any] = []
        self.listener.create_subscription("/diagnostics", DIAGNOSTICS, self._add_state)
        self.sweeps = 0
        self.failure: BaseException | None = None
        self.open_camera()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        try:
            with DepthNode(self.transport):
                self.transport.spin()
        except BaseException as error:
            self.failure = error

    def open_camera(self) -> None:
        """A camera whose image, camera_info and focus the node receives."""
        self.camera = self._open_node("camera", Config())
        reliable = Qos(reliable=True, depth=20)
        self.publishers = {
            topic: self.camera.create_publisher(topic, kind, reliable) for topic, kind in _TOPICS.items()
        }

    def close_camera(self) -> None:
        self.camera.shutdown()

    def close(self) -> None:
        for transport in (self.camera, self.transport, self.listener):
            transport.shutdown()
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()

    def until(self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            assert self.failure is None, self.failure
            assert time.monotonic() < deadline, f"timeout; {self.state()}"
            while self.listener.spin_once(0):
                pass
            time.sleep(0.005)
        return result

    def listen(self, *topics: str) -> None:
        """Subscribe to outputs, and wait until the node knows and hears the camera."""
        for topic in topics:
            messages = self.received.setdefault(topic, [])
            self.listener.create_subscription(topic, OUTPUTS[topic], messages.append)
        self.meet()

    def meet(self) -> None:
        """Wait until the node knows of the listeners and hears the camera."""
        self.until(lambda: all(self.publishers[topic].subscription_count() for topic in ("camera_info", "focus")))
        self.until(
            lambda: (
                self.publishers["image"].subscription_count()
                or self.publishers["image/compressed"].subscription_count()
            )
        )
        wanted = lambda: {p.topic for p in self.transport.publishers if p.subscription_count()}  # noqa: E731
        self.until(lambda: {self.listener.resolve(topic) for topic in self.received} <= wanted())
        self.until(lambda: self.state()[2].get("state", "").startswith(("computing", "ready")))

    def send_frame(self, i: int, stamp: int, msg: Any = None, *, with_focus: bool = True, topic: str = "image") -> None:
        """One image with its focus; `msg` None = the image of the stack."""
        size = self.stack.images.shape[1:3]
        pinhole = intrinsics(CAMERA, size)
        self.publishers["camera_info"].publish(camera_info_message(pinhole, size, stamp, "lens"))
        if with_focus:
            focus = FocusMetadata(
                stamp_ns=stamp,
                focus_diopters=float(self.stack.focus_diopters[i]),
                lens_state=LensState.STATIONARY,
                focal_length_m=CAMERA.focal_length_m,
                f_number=CAMERA.f_number,
                magnification=1.0,
                sweep_id=self.sweeps,
                index=i,
                count=len(self.stack),
            )
            self.publishers["focus"].publish(focus_message(focus, "lens"))
        image = image_message(self.stack.images[i], stamp, "lens") if msg is None else msg
        self.publishers[topic].publish(image)

    def send_sweep(
        self,
        make: Callable[[np.ndarray, int], Any] | None = None,
        *,
        start_ns: int | None = None,
        **options: Any,
    ) -> list[int]:
        """A whole sweep; `make(image, stamp)` makes the image messages. Returns the stamps."""
        start_ns = self.camera.now_ns() if start_ns is None else start_ns
        stamps = [start_ns + i * 20_000_000 for i in range(len(self.stack))]
        for i, stamp in enumerate(stamps):
            self.send_frame(i, stamp, None if make is None else make(self.stack.images[i], stamp), **options)
            time.sleep(0.02)
        self.sweeps += 1
        return stamps

    def depths(self) -> list[Any]:
        return self.received["depth/image"]

    def next_depth_m(self, *arguments: Any, **options: Any) -> float:
        """The median of the depth image of a new sweep."""
        before = len(self.depths())
        stamps = self.send_sweep(*arguments, **options)
        self.until(lambda: len(self.depths()) > before)
        msg = self.depths()[-1]
        assert stamps[0] <= msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec <= stamps[-1]
        return float(np.nanmedian(depth_from_message(msg)))

    def state(self, name: str = "depth") -> tuple[int, str, dict[str, str]]:
        """Level, text and values of the newest diagnostics."""
        for msg in reversed(self.states):
            for status in msg.status:
                if status.name.rpartition("/")[2] == f"dfs: {name}":
                    return (
                        int(np.asarray(status.level)),
                        status.message,
                        {pair.key: pair.value for pair in status.values},
                    )
        return -1, "", {}

    def said(self, words: str, level: int) -> bool:
        """Whether diagnostics of that level have said something since the last call of :meth:`forget`."""
        return any(words in s.message and int(np.asarray(s.level)) == level for m in self.states for s in m.status)

    def forget(self) -> None:
        """Forget the diagnostics that have come."""
        self.states.clear()

    def _add_state(self, msg: Any) -> None:
        if any(status.hardware_id == self.transport.full_name for status in msg.status):
            self.states.append(msg)


def smaller(stack: FocalStack) -> FocalStack:
    """The stack of another image size."""
    height, width = SIZE[0] * 2 // 3, SIZE[1] * 2 // 3
    return dataclasses.replace(stack, images=np.ascontiguousarray(stack.images[:, :height, :width]))

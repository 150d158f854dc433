"""What viser's page does, without the drawing: for tests of what a browser is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import viser
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from dfs_ros.config import ViewerConfig
from dfs_ros.viewer.viewer import Viewer

HEIGHT, WIDTH = 12, 20
INTRINSICS = (25.0, 24.0, 9.0, 6.5)
RNG = np.random.default_rng(0)


class Browser:
    """Connects, says where its camera is, and keeps what it is sent."""

    def __init__(self, viewer: Viewer, origin: str | None = None, window: tuple[int, int] = (1600, 900)) -> None:
        self._window = window
        self.labels: dict[str, str] = {}
        self.gui: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.camera: dict[str, Any] = {}
        self.updates = 0
        self._socket = connect(
            viewer.url.replace("http", "ws"),
            subprotocols=[f"viser-v{viser.__version__}"],  # type: ignore[list-item]
            origin=origin,  # type: ignore[arg-type]
            compression=None,
            max_size=None,
            open_timeout=240,
            ping_timeout=None,
        )
        try:
            self.look()
        except ConnectionClosed:
            self._socket.close()
            raise

    def look(self) -> None:
        """Say that it looks from the camera, upright: 0.8 rad high."""
        width, height = self._window
        self.send(
            "ViewerCameraMessage",
            wxyz=(1, 0, 0, 0),
            position=(0, 0, 0),
            fov=0.8,
            near=0.01,
            far=100,
            image_height=height,
            image_width=width,
            look_at=(0, 0, 1),
            up_direction=(0, -1, 0),
        )

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, kind: str, **fields: Any) -> None:
        self._socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def control(self, label: str) -> dict[str, Any]:
        """Properties of the control with that label; none before it came."""
        return next((props for props in self.gui.values() if props.get("label") == label), {})

    def set(self, label: str, value: object) -> None:
        """Move the control with that label."""
        uuid = next(uuid for uuid, props in self.gui.items() if props.get("label") == label)
        self.send("GuiUpdateMessage", uuid=uuid, updates={"value": value})

    def receive(self, timeout_s: float) -> None:
        """Take one window of messages."""
        data = self._socket.recv(timeout=timeout_s)
        assert isinstance(data, bytes)
        compressed = int.from_bytes(data[8:16], "little")
        content = msgspec.msgpack.decode(zstandard.decompress(data[16 : 16 + compressed]))
        buffers, offset = [], 16 + compressed
        for length in content["binaryBufferLengths"]:
            offset += -offset % 8
            buffers.append(data[offset : offset + length])
            offset += length
        for message in content["messages"]:
            self._keep(_filled(message, buffers))

    def until(self, done: Callable[[], object], timeout_s: float = 240) -> None:
        """Receive until something is so."""
        deadline = time.monotonic() + timeout_s
        while not done():
            self.receive(deadline - time.monotonic())

    def drain(self, seconds: float) -> None:
        """Receive all that comes in some time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self.receive(max(deadline - time.monotonic(), 0.001))
            except TimeoutError:
                return

    @property
    def points(self) -> np.ndarray:
        return np.frombuffer(self.nodes.get("/cloud", {}).get("points", b""), np.float32).reshape(-1, 3)

    @property
    def colors(self) -> np.ndarray:
        return np.frombuffer(self.nodes["/cloud"]["colors"], np.uint8).reshape(-1, 3)

    @property
    def text(self) -> str:
        """All HTML of the page."""
        return "\n".join(str(props["content"]) for props in self.gui.values() if "content" in props)

    def _keep(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in ("SetCameraPositionMessage", "SetCameraLookAtMessage"):
            self.camera |= {key: message[key] for key in ("position", "look_at") if key in message}
        if kind == "SceneNodeUpdateMessage":
            self.nodes.setdefault(message["name"], {}).update(message["updates"])
            self.updates += message["name"] == "/cloud" and "points" in message["updates"]
        elif "name" in message and "props" in message:
            self.nodes.setdefault(message["name"], {}).update(message["props"])
        elif kind == "GuiUpdateMessage":
            self.gui.setdefault(message["uuid"], {}).update(message["updates"])
        elif "uuid" in message and "props" in message:
            self.gui.setdefault(message["uuid"], {}).update(message["props"])


def _filled(value: Any, buffers: list[bytes]) -> Any:
    """The message with its arrays put back."""
    if isinstance(value, dict):
        if "__binary_index" in value:
            return buffers[value["__binary_index"]]
        return {key: _filled(item, buffers) for key, item in value.items()}
    return [_filled(item, buffers) for item in value] if isinstance(value, list) else value


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    with Viewer(ViewerConfig(port=0, rate_hz=20)) as running:
        yield running


def scene(near_m: float = 1.0, missing: int = 0) -> dict[str, Any]:
    """A tilted plane; `missing` pixels of the first rows have no depth."""
    depth = near_m + 0.05 * np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    depth.reshape(-1)[:missing] = np.nan
    return {
        "depth_m": depth,
        "sigma_m": 0.02 * depth,
        "all_in_focus": RNG.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        "intrinsics": INTRINSICS,
        "stamp_ns": 1,
    }

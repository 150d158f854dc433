"""A page of the viewer, as far as the server sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec
import viser
from websockets.sync.client import ClientConnection, connect

_CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (1, 0, 0, 0),
    "position": (0, 0, 0),
    "fov": 0.8,
    "near": 0.01,
    "far": 100,
    "image_height": 900,
    "image_width": 1600,
    "look_at": (0, 0, 1),
    "up_direction": (0, -1, 0),
}
"""First message of a page: the server counts nobody as a viewer before."""


@contextlib.contextmanager
def opened(url: str) -> Iterator[ClientConnection]:
    """Open the page of a viewer."""
    protocols = [f"viser-v{viser.__version__}"]
    address = url.replace("http", "ws")
    with connect(address, subprotocols=protocols, max_size=None, open_timeout=60) as page:  # type: ignore[arg-type]
        page.send(msgspec.msgpack.encode(_CAMERA))
        yield page  # type: ignore[misc]

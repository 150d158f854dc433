"""A simulated camera on a moving frame, its transforms and the depth node, over DDS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dds_rig import NAMESPACE, SETTINGS, cyclonedds_uri, until  # noqa: F401

from dfs_ros.camera.simulator import SimulatedSource
from dfs_ros.camera.source import SweepCamera
from dfs_ros.config import Config
from dfs_ros.messages.convert import DIAGNOSTICS, IMAGE
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.transport.dds.transport import DdsTransport

WIDTH, HEIGHT = 160, 120
CONFIG = Config.from_dict(SETTINGS).updated(
    {
        "camera": {"width": WIDTH, "height": HEIGHT, "moving": True, "sway_period_s": 1.0, "rate_hz": 20.0},
        "network": {"name": "none"},
        "processing": {"threads": 1},
    }
)


@pytest.fixture
def transports() -> Iterator[list[DdsTransport]]:
    remappings = {topic: NAMESPACE + topic for topic in ("/tf", "/tf_static", "/diagnostics")}
    opened = [
        DdsTransport(name, namespace=NAMESPACE, remappings=remappings, config=CONFIG)
        for name in ("dfs_camera", "dfs", "listener")
    ]
    yield opened
    for transport in opened:
        transport.shutdown()


def test_a_moving_camera_with_transforms(transports: list[DdsTransport], tmp_path: Path) -> None:
    camera, depth, listener = transports
    depths: list[Any] = []
    values: dict[str, str] = {}

    def keep(msg: Any) -> None:
        for status in msg.status:
            if status.name == "dfs: motion":
                values.update({pair.key: pair.value for pair in status.values})

    listener.create_subscription("depth/image", IMAGE, depths.append)
    listener.create_subscription("/diagnostics", DIAGNOSTICS, keep)
    source = SimulatedSource(CONFIG.camera, cache=tmp_path)

    def serve_camera() -> None:
        camera.manage(SweepCamera(camera, source, CONFIG.camera))
        camera.spin()

    def serve_depth() -> None:
        with DepthNode(depth):
            depth.spin()

    threads = [threading.Thread(target=serve) for serve in (serve_camera, serve_depth)]
    for thread in threads:
        thread.start()
    until(listener, lambda: len(depths) >= 3 and int(values.get("tf", "0")) >= 3)
    for transport in (camera, depth):
        transport.shutdown()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert values["frames"] == "2" and values["invalid"] == values["tf_jump"] == values["tf_gap"] == "0"
    assert 0.0 < float(values["speed_m_s"]) < 0.3

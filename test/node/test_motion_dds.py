"""A simulated camera on a moving frame, its transforms and the depth node, over DDS: planes stand where they stand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dds_rig import NAMESPACE, SETTINGS, cyclonedds_uri, until  # noqa: F401

from dfs_ros.camera.simulator import SimulatedSource
from dfs_ros.camera.source import SweepCamera
from dfs_ros.config import Config
from dfs_ros.messages.convert import DIAGNOSTICS, IMAGE, depth_from_message, stamp_ns
from dfs_ros.messages.motion import TF
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.simulation.scenes import demo_origin, demo_scene
from dfs_ros.transport.dds.transport import DdsTransport

WIDTH, HEIGHT = 160, 120
CONFIG = Config.from_dict(SETTINGS).updated(
    {
        "camera": {"width": WIDTH, "height": HEIGHT, "moving": True, "sway_period_s": 2.0, "rate_hz": 20.0},
        "network": {"name": "none"},
        "processing": {"threads": 1},
        # However long a busy machine keeps the camera or its messages waiting.
        "stack": {"max_span_s": 60.0},
        "motion": {"max_gap_s": 10.0, "wait_s": 10.0},
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
            if status.name.endswith("dfs: motion"):
                values.update({pair.key: pair.value for pair in status.values})

    places: dict[int, Any] = {}

    def place(msg: Any) -> None:
        places.update({stamp_ns(t.header.stamp): t.transform.translation for t in msg.transforms})

    listener.create_subscription("/tf", TF, place)
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
        thread.join(240)
        assert not thread.is_alive()
    assert values["frames"] == "2" and values["invalid"] == values["tf_jump"] == values["tf_gap"] == "0"
    assert 0.0 < float(values["speed_m_s"]) < 0.15
    check_planes([depth for depth in depths if stamp_ns(depth.header.stamp) in places][-2:], places)


def check_planes(depths: list[Any], places: dict[int, Any]) -> None:
    """Planes at their depth, in the geometry of each reference, from where the camera was at its stamp."""
    assert len(depths) == 2
    period_s = CONFIG.camera.sway_period_s
    shots = np.arange(0, period_s, 1 / CONFIG.camera.rate_hz)
    origins = np.array([demo_origin(time_s, period_s) for time_s in shots])
    for depth in depths:
        place = places[stamp_ns(depth.header.stamp)]
        time_s = float(shots[np.hypot(origins[:, 0] + place.y, origins[:, 1] + place.z).argmin()])
        scene = demo_scene(WIDTH, HEIGHT, time_s, period_s=period_s)
        for name in ("letter", "chart", "poster", "screen"):  # the wall is beyond the focus, and hardly blurred
            seen = depth_from_message(depth)[scene.mask(name, margin_px=4)]
            assert np.isfinite(seen).mean() > 0.7, name
            # At 160 pixels a dioptre is 5.6 pixels of blur.
            true_diopters = 1.0 / scene.plane_depth_m[name]
            assert np.nanmedian(1.0 / seen) == pytest.approx(true_diopters, rel=0.03, abs=0.02), name

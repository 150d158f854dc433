"""Growth of memory: configuring, peers, pages and cameras that come and go must leave it flat after the first ten.

The criterion is the upper 95 % bound of the slope of resident memory over the cycles after the first ten, with freed
memory returned to the system before each measurement.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable

import numpy as np
import psutil

from benchmarks.faults import endurance
from benchmarks.faults.parts import Options, Row
from benchmarks.faults.rig import SETTINGS, Rig
from benchmarks.faults.slope import slope_with_bound
from dfs_ros.config import Config, ViewerConfig
from dfs_ros.messages.convert import IMAGE
from dfs_ros.messages.definitions import message
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.system.memory import return_freed_memory
from dfs_ros.transport.local import LocalTransport

_COUNT = 60
SETTLED = 10
_MOST_KIB = 40.0
"""Largest slope, in KiB a cycle: 12 MiB over 300 cycles."""


def run(options: Options) -> list[Row]:
    """A row for each kind of cycle, or for each process of a run that lasts `options.duration_s`."""
    if options.duration_s is not None:
        return endurance.run(options.duration_s, options.native, options.samples)
    rows = []
    with contextlib.ExitStack() as opened:
        opened.callback(gc.unfreeze)
        for name, cycle in kinds(opened).items():
            try:
                cycle()
            except ImportError as error:
                rows.append(Row(f"growth: {name}", 1, 0, f"not here: {error}"))
                continue
            gc.freeze()  # modules: collecting them again takes most of the time of a cycle
            used_kib = []
            for _ in range(options.count or _COUNT):
                if options.time_is_over:
                    break
                cycle()
                used_kib.append(resident_kib())
            rows.append(row(name, used_kib))
    return rows


def kinds(opened: contextlib.ExitStack) -> dict[str, Callable[[], None]]:
    """Cycles by their names; what they hold is closed with `opened`."""
    rig, pages = Rig(), _Pages()
    opened.callback(rig.close)
    opened.callback(pages.close)
    return {
        "configure and cleanup": _configure,
        "subscribers that come and go": lambda: _subscribe(rig),
        "cameras of changing size": lambda: _resize(rig),
        "peers over DDS": _peer,
        "pages of the viewer": pages,
    }


def row(name: str, used_kib: list[float]) -> Row:
    """Row of a kind of cycle by the resident memory after each."""
    if len(used_kib) < SETTLED + 4:
        return Row(f"growth: {name}", 0, 0, f"{len(used_kib)} cycles in the given time are too few")
    slope, bound = slope_with_bound(used_kib[SETTLED:])
    note = f"{slope:+.1f} KiB a cycle, at most {bound:.1f}"
    return Row(f"growth: {name}", len(used_kib), int(not bound <= _MOST_KIB), note)


def resident_kib() -> float:
    """Resident memory of this process, with freed memory returned."""
    return_freed_memory()
    return float(psutil.Process().memory_info().rss) / 1024


def _configure() -> None:
    with LocalTransport("dfs", config=Config.from_dict({"processing": {"threads": 1}})) as transport:
        node = DepthNode(transport)
        for _ in range(2):
            node.configure()
            node.activate()
            node.deactivate()
            node.close()


def _subscribe(rig: Rig) -> None:
    subscription = rig.peer.create_subscription("depth/points", "sensor_msgs/msg/PointCloud2", lambda msg: None)
    rig.sweep()
    rig.peer.unsubscribe(subscription)
    rig.sweep()


def _resize(rig: Rig) -> None:
    whole = rig.stack
    height, width = whole.images.shape[1:3]
    small = np.ascontiguousarray(whole.images[:, : height // 2, : width // 2])
    for rig.stack in (type(whole)(small, whole.focus_diopters, whole.camera), whole):
        rig.sweep()


def _peer() -> None:
    from dfs_ros.transport.dds.transport import DdsTransport

    config = Config.from_dict({"dds": {"domain_id": 79, "discovery_range": "off"}, **SETTINGS})
    with DdsTransport("peer", config=config) as peer:
        publisher = peer.create_publisher("image", IMAGE)
        peer.create_subscription("image", IMAGE, lambda msg: None)
        publisher.publish(message(IMAGE, height=1, width=1, step=1, encoding="mono8", data=np.zeros(1, np.uint8)))
        peer.spin_once(0.01)


class _Pages:
    """A viewer, and a page that opens and closes."""

    def __init__(self) -> None:
        self._viewer: object = None

    def __call__(self) -> None:
        from benchmarks.faults.page import opened
        from dfs_ros.viewer.viewer import Viewer

        if self._viewer is None:
            self._viewer = Viewer(ViewerConfig(port=0))
        viewer = self._viewer
        if not isinstance(viewer, Viewer):
            raise TypeError("the viewer is closed")
        rng = np.random.default_rng(0)
        depth_m = rng.uniform(0.5, 2.0, (60, 80)).astype(np.float32)
        with opened(viewer.url) as page:
            viewer.show_depth(depth_m, None, None, (80.0, 80.0, 40.0, 30.0), 0)
            page.recv(timeout=60)

    def close(self) -> None:
        if self._viewer is not None:
            self._viewer.close()  # type: ignore[attr-defined]

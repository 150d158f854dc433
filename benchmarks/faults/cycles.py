"""Configuring, activating, deactivating and cleaning up the depth node on native ROS 2 by its lifecycle services.

Memory must be flat after the first ten cycles, by the criterion of :mod:`benchmarks.faults.growth`.
"""

from __future__ import annotations

from benchmarks.faults import growth
from benchmarks.faults.native import watching
from benchmarks.faults.parts import Options, Row, told
from benchmarks.faults.processes import running, started_by
from dfs_ros.transport.base import TransportError

_COUNT = 300
_TOLD = 25
_PATIENCE_S = 120.0
_NODE = ["ros2", "run", "dfs_ros", "depth_node", "--ros-args", "-p", "node.autostart:=false"]


def run(options: Options) -> list[Row]:
    """One row; it broke also if a transition was refused."""
    title = "cycles of the native node"
    lines: list[str] = []
    used_kib: list[float] = []
    try:
        with watching() as watcher, running(_NODE, lines) as launched:
            for cycle in range(options.count or _COUNT):
                if options.time_is_over:
                    break
                for name in ("configure", "activate", "deactivate", "cleanup"):
                    if not watcher.change_state(name, _PATIENCE_S):
                        return [Row(title, cycle + 1, 1, f"{name} was refused in cycle {cycle + 1}: {lines[-1:]}")]
                node = started_by(launched, "depth_node")
                if node is None:
                    return [Row(title, cycle + 1, 1, f"the node ended in cycle {cycle + 1}: {lines[-3:]}")]
                used_kib.append(node.memory_info().rss / 1024)
                if cycle % _TOLD == 0:
                    told(f"cycles: {cycle + 1}, {used_kib[-1] / 1024:.1f} MiB")
    except TransportError as error:
        return [Row(title, 0, 0, str(error))]
    except TimeoutError as error:
        return [Row(title, len(used_kib) + 1, 1, f"{error}: {lines[-3:]}")]
    found = growth.row(title, used_kib)
    settled_mib = [one / 1024 for one in used_kib[growth.SETTLED :]] or [0.0]
    span = f"{min(settled_mib):.1f} to {max(settled_mib):.1f} MiB after the first {growth.SETTLED}"
    return [found._replace(what=title, note=f"{found.note}; {span}")]

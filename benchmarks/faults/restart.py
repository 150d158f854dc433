"""SIGKILL of the depth node of depth.launch.py, in its default settings: the time until there is depth again.

Each first kill comes when the node has been alive for so long that the launch file has forgotten earlier deaths; a
second one follows at once, whose delay is longer. The median of the first must be at most 10 s, and each must return.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from subprocess import Popen

from benchmarks.faults.native import Watcher, watching
from benchmarks.faults.parts import Options, Row, told
from benchmarks.faults.processes import running, started_by
from dfs_ros.transport.base import TransportError

_KILLS = 3
_MOST_S = 10.0
_PATIENCE_S = 120.0
_STABLE_S = 62.0
"""Time alive after which earlier deaths no longer count, as in the launch file, and a margin."""


def run(options: Options) -> list[Row]:
    """A row of the first kills, and one of those that follow at once."""
    lines: list[str] = []
    first_s: list[float] = []
    second_s: list[float] = []
    try:
        with watching() as watcher, running(["ros2", "launch", "dfs_ros", "depth.launch.py"], lines) as launched:
            if not watcher.wait_for_depth(0, _PATIENCE_S):
                return [Row("restart", 1, 1, f"no depth at all: {lines[-3:]}")]
            for kill in range(options.count or _KILLS):
                if options.time_is_over:
                    break
                told(f"restart: kill {kill + 1}, in {_STABLE_S:.0f} s")
                time.sleep(_STABLE_S)
                for found in (first_s, second_s):
                    found.append(_back_after_s(launched, watcher))
                    told(f"restart: depth after {found[-1]:.1f} s")
    except TransportError as error:
        return [Row("restart", 0, 0, str(error))]
    return [row("restart: first kill", first_s, _MOST_S), row("restart: killed again at once", second_s, _PATIENCE_S)]


def row(name: str, back_s: Sequence[float], most_s: float) -> Row:
    """Row of the times until depth, NaN where it never came; a median over `most_s` is a break of its own.

    >>> row("first", [9.0, 11.0, 8.0], 10.0)
    Row(what='first', tried=3, broke=0, note='depth after 9.0, 11.0, 8.0 s; median 9.0 s, at most 10')
    >>> row("first", [11.0, float("nan")], 10.0).broke
    2
    """
    median_s = statistics.median(math.inf if math.isnan(one) else one for one in back_s) if back_s else 0.0
    times = ", ".join(f"{one:.1f}" for one in back_s)
    note = f"depth after {times} s; median {median_s:.1f} s, at most {most_s:g}"
    return Row(name, len(back_s), sum(map(math.isnan, back_s)) + (median_s > most_s), note)


def _back_after_s(launched: Popen[str], watcher: Watcher) -> float:
    """Kill the node; NaN if no depth of later images comes."""
    node = started_by(launched, "depth_node")
    if node is None:
        return math.nan
    began, began_ns = time.monotonic(), time.time_ns()
    node.kill()
    back = watcher.wait_for_depth(began_ns, _PATIENCE_S)
    return time.monotonic() - began if back else math.nan

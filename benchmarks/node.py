"""Measure speed and memory of the depth node, with camera and node as processes.

The settings are the defaults of the product: 320 x 240, 5 images a sweep, the default network; for 60 s. --moving sways
the simulated camera at up to 0.2 m/s, with transforms. Prints a summary, with the share of every step; --output writes
it to bench_node.json. Latency counts from the stamp of a sweep's newest image to the reception of its depth image.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

import dfs_ros
from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.monitor import Monitor, drops_text, status_line, summary
from dfs_ros.cli.participants import (
    MONITOR_NODE,
    add_participant_arguments,
    add_source_arguments,
    make_source,
    with_camera_arguments,
)
from dfs_ros.cli.parts import ProcessParts, Setup
from dfs_ros.cli.run import fitted
from dfs_ros.cli.signals import signals_noted
from dfs_ros.cli.statusline import StatusLine
from dfs_ros.config import Config
from dfs_ros.io.strict_json import json_text
from dfs_ros.messages.node_status import number
from dfs_ros.system.cores import usable_cores

_SWAY = {"camera": {"sway_period_s": 1.2}}  # of 38 mm a radian: 0.2 m/s at most
_STARTUP_S = 120.0
_WARM_UP_S = 3.0  # after the first depth image: caches fill, memory pools grow
_SAMPLE_S = 1.0
_STEP = "seconds "  # begins the keys of the node's diagnostics that tell the time of a step


class Sample(NamedTuple):
    """Sample of the depth node's processes."""

    at_s: float
    """Monotonic clock."""
    rss_mb: float
    cpu_seconds: float
    steps_s: Mapping[str, float]
    """Seconds of each step of its newest depth image."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--duration",
        metavar="S",
        type=float,
        default=60.0,
        help="duration of the measurement [s] (default: %(default)g)",
    )
    parser.add_argument("--output", metavar="DIR", help="folder for bench_node.json")
    add_source_arguments(parser)
    add_participant_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if not args.duration > 0:
        raise ValueError(f"--duration: expected seconds over 0, received {args.duration:g}")
    if args.output is not None:
        from dfs_ros.system.atomic import prepare_output

        prepare_output(args.output)
    config = config_from_arguments(args, Config.from_dict(_SWAY if args.moving else {}))
    config = with_camera_arguments(config, args)
    source = make_source(config)
    setup = Setup(args, fitted(config, source.frames_per_sweep), source, with_viewer=False)
    record = measure(setup, args.duration)
    print(describe(record))
    if args.output is not None:
        folder = Path(args.output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench_node.json").write_text(json_text(record, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(setup: Setup, duration_s: float) -> dict[str, Any]:
    """Run camera and node for `duration_s` after warming up, and until there are three depth images to tell of.

    Raises OSError if they fail, KeyboardInterrupt on Ctrl-C.
    """
    status = StatusLine()
    parts = ProcessParts(setup, status.print_from)
    samples: list[Sample] = []
    with signals_noted() as stop, setup.open_transport(MONITOR_NODE) as transport, status, parts:
        monitor = Monitor(transport, collect=False)
        node = psutil.Process(parts.processes.pid("node"))

        def spin(until: Callable[[], bool], each_s: Callable[[], None]) -> None:
            next_s = time.monotonic() + _SAMPLE_S
            while not until():
                transport.spin_once(0.1)
                if stop:
                    raise KeyboardInterrupt
                if (failure := parts.failure()) is not None:
                    raise OSError(failure)
                if time.monotonic() >= next_s:
                    next_s += _SAMPLE_S
                    each_s()

        deadline = time.monotonic() + _STARTUP_S
        spin(lambda: monitor.depth_count > 0 or time.monotonic() > deadline, lambda: status.show("starting"))
        if not monitor.depth_count:
            raise OSError(f"no depth within {_STARTUP_S:.0f} s: {monitor.node.message}")
        warm = time.monotonic() + _WARM_UP_S
        spin(lambda: time.monotonic() > warm, lambda: status.show("warming up"))
        monitor.restart()

        def sample() -> None:
            processes = [node, *node.children(recursive=True)]
            usages = [process.cpu_times() for process in processes]
            cpu_seconds = sum(usage.user + usage.system for usage in usages)
            rss_mb = sum(process.memory_info().rss for process in processes) / 2**20
            steps_s = {
                key[len(_STEP) :]: number(monitor.node, key) for key in monitor.node.values if key.startswith(_STEP)
            }
            samples.append(Sample(time.monotonic(), rss_mb, cpu_seconds, steps_s))
            status.show(status_line(monitor))

        def enough() -> bool:
            measured = len(monitor.times_ns) > 2 and monitor.latencies_s and monitor.image_callback_ms
            return time.monotonic() - samples[0].at_s > duration_s + (0.0 if measured else _STARTUP_S)

        sample()
        spin(enough, sample)
        sample()
    return _record(setup, monitor, samples)


def describe(record: dict[str, Any]) -> str:
    """Text of the record."""
    latency, memory = record["latency_s"], record["node_rss_mb"]
    callback = {"wall": math.nan, "processor": math.nan} | record["image_callback_p99_ms"]
    return "\n".join(
        [
            f"{record['source']}, {record['camera_hz']:g} images a second; {record['setup']}",
            f"depth    {record['depth_hz']:.2f} a second over {record['seconds']:.0f} s, "
            f"jitter of their intervals {1e3 * record['jitter_s']:.0f} ms",
            f"latency  {1e3 * latency['p50']:.0f} ms (99 %: {1e3 * latency['p99']:.0f} ms, first "
            f"{1e3 * latency['first']:.0f} ms, last {1e3 * latency['last']:.0f} ms)",
            f"steps    {1e3 * sum(record['steps_s'].values()):.0f} ms: {shares_text(record['steps_s'])}",
            record["drops_text"],
            f"callback {callback['wall']:.1f} ms for an image (99 %; {callback['processor']:.1f} ms of the processor)",
            f"node     {memory['first']:.0f} MB at the start, {memory['last']:.0f} MB at the end, most "
            f"{memory['most']:.0f} MB; {100 * record['node_cpu']:.0f} % of a core ({record['machine']['cores']} cores)",
        ]
    )


def mean_steps_s(samples: Sequence[Sample]) -> dict[str, float]:
    """Mean seconds of each step over depth images; 0 where an image did not need the step."""
    told = [sample.steps_s for sample in samples if sample.steps_s]
    names = dict.fromkeys(name for steps_s in told for name in steps_s if name != "total")
    return {name: sum(steps_s.get(name, 0.0) for steps_s in told) / len(told) for name in names}


def shares_text(steps_s: Mapping[str, float]) -> str:
    """Share of each step in their sum, largest first."""
    total = sum(steps_s.values()) or 1.0
    order = sorted(steps_s, key=lambda name: -steps_s[name])
    return ", ".join(f"{name} {steps_s[name] / total:.0%}" for name in order)


def _record(setup: Setup, monitor: Monitor, samples: list[Sample]) -> dict[str, Any]:
    config, latencies = setup.config, list(monitor.latencies_s)
    channels = config.cost.resolved().channels
    rss = [sample.rss_mb for sample in samples]
    fifth = max(1, len(rss) // 5)  # memory varies with each stack: medians show growth
    seconds = samples[-1].at_s - samples[0].at_s
    values = summary(monitor)
    first, last = (latencies[0], latencies[-1]) if latencies else (math.nan, math.nan)
    values["latency_s"] |= {"first": first, "last": last}
    return {
        "source": setup.source.description,
        "camera_hz": config.camera.rate_hz,
        "setup": f"{config.hypotheses.count} hypotheses, {channels}, network {config.network.name}",
        "seconds": seconds,
        **values,
        "steps_s": mean_steps_s(samples),
        "jitter_s": float(np.std(np.diff(monitor.times_ns))) * 1e-9 if len(monitor.times_ns) > 2 else math.inf,
        "drops_text": drops_text(monitor.node),
        "image_callback_p99_ms": monitor.image_callback_ms,
        "node_rss_mb": {
            "first": float(np.median(rss[:fifth])),
            "last": float(np.median(rss[-fifth:])),
            "most": max(rss),
        },
        "node_cpu": (samples[-1].cpu_seconds - samples[0].cpu_seconds) / seconds,
        "rss_mb": [round(value, 1) for value in rss],
        "machine": {"cores": usable_cores(), "processor": platform.processor() or platform.machine()},
        "versions": {"dfs_ros": dfs_ros.__version__, "python": platform.python_version(), "numpy": np.__version__},
        "configuration": config.to_dict(),
    }

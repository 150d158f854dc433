"""Run camera, depth node and viewer live, as separate processes connected by ROS topics.

    dfs run                                            simulated camera, viewer at http://127.0.0.1:8080
    dfs run --source stack DIR --duration 30 --output out --no-viewer

Ctrl-C ends the run, or --duration seconds after the first depth image. --output saves the newest published depth in the
form of `dfs estimate`. Discovery honours ROS_DOMAIN_ID and is limited to this host unless configured otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.monitor import Monitor, drops_text, status_line, summary
from dfs_ros.cli.participants import (
    MONITOR_NODE,
    add_participant_arguments,
    add_source_arguments,
    make_source,
    with_camera_arguments,
)
from dfs_ros.cli.parts import Parts, ProcessParts, Setup, ThreadParts, without_images
from dfs_ros.cli.signals import signals_noted
from dfs_ros.cli.statusline import StatusLine
from dfs_ros.cli.view import add_port_argument, with_port
from dfs_ros.config import Config
from dfs_ros.system.memory import return_arrays_at_once, return_freed_memory
from dfs_ros.transport.base import Transport
from dfs_ros.transport.names import parse_remappings

STARTUP_S = 120.0
"""Time without depth after which a run with --duration gives up."""
_STATUS_PERIOD_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument(
        "--duration", metavar="S", type=float, help="duration after the first depth image [s] (default: unlimited)"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder for the newest depth at the end, as `dfs estimate` writes it"
    )
    parser.add_argument("--no-viewer", action="store_true", help="run without the viewer")
    add_port_argument(parser)
    add_participant_arguments(parser, kinds=("auto", "ros", "dds", "local"))
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = with_port(with_camera_arguments(config_from_arguments(args), args), args.port)
    parse_remappings(args.remap)
    if args.duration is not None and not args.duration > 0:
        raise ValueError(f"--duration: expected seconds over 0, received {args.duration:g}")
    if args.output is not None:
        from dfs_ros.system.atomic import prepare_output

        prepare_output(args.output)
    source = make_source(config)  # finds wrong input and renders images before the parts start
    setup = Setup(
        args,
        fitted(config, source.frames_per_sweep),
        source if args.transport == "local" else without_images(source),
        not args.no_viewer,
    )
    if args.transport != "local":
        return_arrays_at_once()
        del source
        return_freed_memory()
    status = StatusLine()
    parts = ThreadParts(setup) if args.transport == "local" else ProcessParts(setup, status.print_from)
    with signals_noted() as stop, setup.open_transport(MONITOR_NODE) as transport, status, parts:
        monitor = Monitor(transport, collect=args.output is not None)
        failure = _watch(transport, monitor, parts, status, stop, args.duration)
        problems = parts.stop()
    for problem in problems if failure is None else [failure, *problems]:
        print(f"dfs run: error: {problem}", file=sys.stderr)
    if failure is not None:
        return 1
    if monitor.depth_count:
        print(_closing_words(monitor))
    if args.output is not None and not _write(monitor, setup):
        return 1
    return 128 + stop[0] if stop and args.duration is not None else 0


def fitted(config: Config, frames_per_sweep: int) -> Config:
    """Configuration with stack span and silence that suit the camera's rate."""
    period_s = 1.0 / config.camera.rate_hz
    return config.updated(
        {
            "stack": {"max_span_s": max(config.stack.max_span_s, 2.0 * frames_per_sweep * period_s)},
            "node": {"silence_s": max(config.node.silence_s, 3.0 * period_s)},
        }
    )


def _watch(
    transport: Transport,
    monitor: Monitor,
    parts: Parts,
    status: StatusLine,
    stop: list[int],
    duration_s: float | None,
) -> str | None:
    """Show the status until a signal or the end of the duration; return a failure."""
    ends_at: float | None = None
    began = time.monotonic()
    shown_at, warned = began, False
    while not stop:
        transport.spin_once(0.1)
        if (failure := parts.failure()) is not None:
            return failure
        now = time.monotonic()
        if now - shown_at >= _STATUS_PERIOD_S:
            shown_at = now
            status.show(_status(monitor, now - began))
            if not warned and monitor.depth_publishers > 1:
                warned = True
                status.print("warning: another node publishes depth as well; use another ROS_DOMAIN_ID or --namespace")
        if duration_s is None:
            continue
        if not monitor.depth_count:
            if now - began > STARTUP_S:
                return f"no depth within {STARTUP_S:.0f} s; the depth node says: {monitor.node.message}"
        elif ends_at is None:
            ends_at = now + duration_s
        elif now >= ends_at:
            break
    return None


def _status(monitor: Monitor, seconds: float) -> str:
    node = monitor.node
    if not monitor.depth_count:
        return f"waiting for depth, {seconds:.0f} s: {node.message}"
    line = status_line(monitor)
    return f"{line} | {node.level}: {node.message}" if node.level in ("WARN", "ERROR") else line


def _closing_words(monitor: Monitor) -> str:
    latency = monitor.latency
    return (
        f"{monitor.depth_count} depth images, {monitor.mean_hz:.2f} a second; latency {1e3 * latency.p50:.0f} ms "
        f"(99 %: {1e3 * latency.p99:.0f} ms); {drops_text(monitor.node)}"
    )


def _write(monitor: Monitor, setup: Setup) -> bool:
    """Write the newest result; False without one."""
    from dfs_ros.io.results import write_result

    result, output = monitor.result(), Path(setup.arguments.output)
    if result is None:
        print(f"dfs run: error: nothing written to {output}: no whole result was received", file=sys.stderr)
        return False
    report: dict[str, Any] = {
        "source": setup.source.description,
        "transport": setup.kind,
        "measured": summary(monitor),
        "configuration": setup.config.to_dict(),
    }
    write_result(dataclasses.replace(result, report=report), output, dense=setup.config.confidence.dense)
    height, width = result.depth_m.shape
    print(f"{output}: {width} x {height} depth as it was received, {100 * result.coverage:.0f} % of pixels with depth")
    return True

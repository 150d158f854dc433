"""Sweep the lens of a camera that another driver runs; Ctrl-C ends it.

    dfs sweeper --calibration lens.yaml --set sweeper.driver=camera_ros --set sweeper.node=/camera
    dfs sweeper --calibration lens.yaml --set sweeper.driver=v4l2 --set v4l2.device=/dev/video0
    dfs sweeper --set sweeper.driver=topic --set sweeper.raw_positions=0,50,100,150,200,250

Publishes its commands on `focus`, for a depth node with node.focus_source=commands. Without a calibration it sweeps raw
positions, as `dfs calibrate lens --source topics` needs it.
"""

from __future__ import annotations

import argparse

from dfs_ros.camera.sweeper import FocusSweeper
from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.participants import SWEEPER_NODE, add_participant_arguments, participant
from dfs_ros.transport.base import Transport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calibration", metavar="FILE", help="calibration of the lens")
    add_participant_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = config_from_arguments(args)
    if args.calibration is not None:
        config = config.updated({"lens": {"calibration": args.calibration}})
    with participant(args, SWEEPER_NODE, config) as transport:
        serve(transport)
    return 0


def serve(transport: Transport) -> None:
    """Sweep until the transport stops spinning."""
    sweeper = FocusSweeper(transport, transport.parameters.config)
    try:
        transport.manage(sweeper)
        transport.log("info", sweeper.description)
        sweep_s, span_s = sweeper.step_s * len(sweeper.positions), transport.parameters.config.stack.max_span_s
        if sweep_s > span_s:
            transport.log(
                "warning",
                f"a sweep takes {sweep_s:.1f} s: start the depth node with stack.max_span_s over that (here it "
                f"is {span_s:g})",
            )
        transport.spin()
    finally:
        sweeper.close()

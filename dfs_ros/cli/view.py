"""Run the viewer alone; Ctrl-C ends it.

The page shows what camera and depth node publish.
"""

from __future__ import annotations

import argparse

from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.participants import CAMERA_NODE, DEPTH_NODE, VIEWER_NODE, add_participant_arguments, participant
from dfs_ros.config import Config, ViewerConfig
from dfs_ros.system.memory import return_arrays_at_once
from dfs_ros.transport.base import Transport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_participant_arguments(parser)
    add_config_arguments(parser)
    add_port_argument(parser)


def add_port_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--port`."""
    default = ViewerConfig.port
    parser.add_argument(
        "--port", metavar="PORT", type=int, help=f"TCP port of the viewer; 0: any free port (default: {default})"
    )


def run(args: argparse.Namespace) -> int:
    config = with_port(config_from_arguments(args), args.port)
    return_arrays_at_once()
    with participant(args, VIEWER_NODE, config) as transport:
        serve(transport, config)
    return 0


def with_port(config: Config, port: int | None) -> Config:
    """Configuration with the port of `--port`, if given."""
    return config if port is None else config.updated({"viewer": {"port": port}})


def serve(transport: Transport, config: Config) -> None:
    """Serve the page until the transport stops spinning."""
    from dfs_ros.viewer import app

    app.run(transport, config, nodes=(DEPTH_NODE, CAMERA_NODE), depth_node=DEPTH_NODE)

"""Run the depth node alone; Ctrl-C ends it.

Inputs: image, camera_info and focus. Outputs: depth, sigma, points, all-in-focus image, diagnostics.
"""

from __future__ import annotations

import argparse
import sys

from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.participants import DEPTH_NODE, add_participant_arguments, participant
from dfs_ros.system.memory import keep_freed_memory
from dfs_ros.transport.base import Transport

# Longest hold of the interpreter by the computing thread while the receiving one waits; Python's default is 5 ms.
_SWITCH_INTERVAL_S = 0.0005


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_participant_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = config_from_arguments(args)
    if config.node.keep_memory:
        keep_freed_memory()
    with participant(args, DEPTH_NODE, config) as transport:
        serve(transport)
    return 0


def serve(transport: Transport) -> None:
    """Run the depth node until the transport stops spinning."""
    from dfs_ros.node.depth_node import DepthNode

    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with DepthNode(transport):
        transport.spin()

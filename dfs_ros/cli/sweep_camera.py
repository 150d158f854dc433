"""A focus-sweeping camera alone: publishes image, camera_info and focus. Ctrl-C ends it."""

from __future__ import annotations

import argparse

from dfs_ros.camera.source import FrameSource, SweepCamera
from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.participants import (
    CAMERA_NODE,
    add_participant_arguments,
    add_source_arguments,
    make_source,
    participant,
    with_camera_arguments,
)
from dfs_ros.config import Config
from dfs_ros.transport.base import Transport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    add_participant_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = with_camera_arguments(config_from_arguments(args), args)
    source = make_source(config)
    with participant(args, CAMERA_NODE, config) as transport:
        serve(transport, source, config)
    return 0


def serve(transport: Transport, source: FrameSource, config: Config) -> None:
    """Publish the frames of a source until the transport stops spinning."""
    transport.manage(SweepCamera(transport, source, config.camera))
    transport.log("info", source.description)
    transport.spin()

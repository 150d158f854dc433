r"""Run a focus-sweeping camera alone; Ctrl-C ends it.

Publishes image, camera_info and focus.

    dfs camera                                                             simulated camera
    dfs camera --source stack DIR                                          images of a focal stack
    dfs camera --source v4l2 /dev/video0 --calibration lens.yaml \
        --set v4l2.camera_info=camera.yaml --set lens.f_number=2           webcam with a focus control
    dfs camera --source rgbd DIR                                           virtual lens over colour and depth
    dfs camera --probe                                                     list of the V4L2 cameras
"""

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
from dfs_ros.system.memory import return_arrays_at_once
from dfs_ros.transport.base import Transport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument(
        "--probe", action="store_true", help="list the V4L2 cameras with their formats and controls, and exit"
    )
    add_participant_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.probe:
        from dfs_ros.camera.v4l2.probe import describe_cameras

        print(describe_cameras())
        return 0
    config = with_camera_arguments(config_from_arguments(args), args)
    source = make_source(config)
    return_arrays_at_once()
    with participant(args, CAMERA_NODE, config) as transport:
        serve(transport, source, config)
    return 0


def serve(transport: Transport, source: FrameSource, config: Config) -> None:
    """Publish the frames of a source until the transport stops spinning."""
    camera = SweepCamera(transport, source, config.camera)
    try:
        transport.manage(camera)
        transport.log("info", source.description)
        sweep_s = source.frames_per_sweep / config.camera.rate_hz
        if sweep_s > config.stack.max_span_s:
            transport.log(
                "warning",
                f"a sweep takes about {sweep_s:.1f} s, longer than a stack may: start the depth node with "
                f"stack.max_span_s over that (it is {config.stack.max_span_s:g} here)",
            )
        transport.spin()
    finally:
        camera.close()  # restores the device's controls

"""Capture one focal stack from a camera, as a focal-stack/1 folder.

    dfs capture --output STACK --source v4l2 /dev/video0 --calibration lens.yaml     webcam, swept by this command
    dfs capture --output STACK --remap image:=/cam/image_raw                         topics of a camera that runs
    dfs capture --node /dfs                                                          the running depth node writes it

The stack is the next whole sweep. With --node it goes into node.capture_folder of that node, on its machine.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.participants import (
    CAMERA_NODE,
    add_participant_arguments,
    add_source_arguments,
    make_source,
    participant,
    with_camera_arguments,
)
from dfs_ros.cli.signals import interrupted_by_signals
from dfs_ros.config import Config

if TYPE_CHECKING:
    from dfs_ros.messages.convert import Message

_SPANS = 3  # that the node takes a sweep to come


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="DIR", help="new folder for the stack")
    parser.add_argument("--node", metavar="NAME", help="depth node that captures instead, such as /dfs")
    add_source_arguments(parser)
    add_participant_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if (args.output is None) == (args.node is None) or (args.node and args.source):
        raise ValueError("expected either --output DIR, perhaps with --source, or --node NODE")
    config = with_camera_arguments(config_from_arguments(args), args)
    if args.node:
        path: Path | str = _by_node(args, config)
    elif args.source:
        path = _from_source(Path(args.output), config)
    else:
        path = _from_topics(args, Path(args.output), config)
    print(f"{path}: next: dfs estimate {path} --output DIR")
    return 0


def _by_node(args: argparse.Namespace, config: Config) -> str:
    from dfs_ros.messages.convert import TRIGGER, message
    from dfs_ros.node.taking import NODE_NAME

    answers: list[Message | Exception] = []
    timeout_s = 2 * _SPANS * config.stack.max_span_s
    with participant(args, NODE_NAME, config) as transport:

        def ask() -> None:
            try:
                request = message(f"{TRIGGER}_Request")
                answers.append(transport.call_service(f"{args.node}/capture", TRIGGER, request, timeout_s))
            except Exception as error:  # raised below, on the thread that spins
                answers.append(error)

        threading.Thread(target=ask, name="capture", daemon=True).start()
        while not answers:
            transport.spin_once(0.05)
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    if not answer.success:
        raise ValueError(f"{args.node}: no stack: {answer.message}")
    return str(answer.message)


def _from_topics(args: argparse.Namespace, output: Path, config: Config) -> Path:
    from dfs_ros.node.taking import NODE_NAME, StackTaker

    with participant(args, NODE_NAME, config) as transport, StackTaker(transport, output, midway=True) as taker:
        while not taker.answer.done():
            transport.spin_once(0.05)
        return taker.path()


def _from_source(output: Path, config: Config) -> Path:
    from dfs_ros.camera.source import SweepCamera
    from dfs_ros.node.taking import NODE_NAME, StackTaker
    from dfs_ros.transport.local import LocalBus, LocalTransport

    source = make_source(config)
    sweep_s = source.frames_per_sweep / config.camera.rate_hz
    config = config.updated({"stack": {"max_span_s": max(config.stack.max_span_s, 2.0 * sweep_s)}})
    bus = LocalBus()
    with (
        interrupted_by_signals(),
        LocalTransport(CAMERA_NODE, bus, config=config) as of_camera,
        LocalTransport(NODE_NAME, bus, config=config) as transport,
        StackTaker(transport, output) as taker,
    ):
        camera = SweepCamera(of_camera, source, config.camera)
        try:
            camera.activate()
            while not taker.answer.done():
                of_camera.spin_once(0.05)
                while transport.spin_once(0):
                    pass
        finally:
            camera.close()  # restores the device's controls
        return taker.path()

"""Options, node names and signal handling of commands that run ROS nodes."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from dfs_ros.camera.source import FrameSource
from dfs_ros.cli.signals import stop_soon, stopped_by_signals
from dfs_ros.config import CameraConfig, Config
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import Transport
from dfs_ros.transport.names import parse_remappings

if TYPE_CHECKING:
    from dfs_ros.camera.lens_camera import LensCamera

CAMERA_NODE, DEPTH_NODE, VIEWER_NODE, MONITOR_NODE = "dfs_camera", "dfs", "dfs_viewer", "dfs_run"
SWEEPER_NODE = "dfs_sweeper"
SWEPT_CAMERAS = ("v4l2", "picamera2", "oak")
"""Cameras of camera.source whose lens the package sweeps itself."""


def add_participant_arguments(parser: argparse.ArgumentParser, kinds: tuple[str, ...] = ("auto", "ros", "dds")) -> None:
    """Add `--transport`, `--namespace`, `--remap`."""
    parser.add_argument(
        "--transport",
        choices=kinds,
        default="auto",
        help="message transport (default: native ROS 2 where it is installed, otherwise DDS)",
    )
    parser.add_argument("--namespace", metavar="NAME", default="/", help="namespace of the topics (default: /)")
    parser.add_argument(
        "--remap", metavar="FROM:=TO", action="append", default=[], help="new name of a topic; repeatable"
    )
    parser.add_argument("--exit-with-parent", action="store_true", help=argparse.SUPPRESS)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--source` and shorthands of section camera."""
    parser.add_argument(
        "--source",
        metavar=("sim|stack|v4l2|picamera2|oak|rgbd", "PATH"),
        nargs="+",
        help="camera: sim (simulated, default), stack DIR (images of a focal stack, repeated), v4l2 [DEVICE], "
        "picamera2 [NUMBER] (Raspberry Pi), oak [ID] (Luxonis), or rgbd [DIR|BAG] (virtual lens over colour and depth "
        "of a TUM or ScanNet folder, a bag, or live topics)",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="calibration of the lens (lens-calibration/1 or lens-table/1), for camera and depth node",
    )
    default = CameraConfig()
    parser.add_argument(
        "--rate", metavar="HZ", type=float, help=f"frame rate of the camera (default: {default.rate_hz:g})"
    )
    size = f"{default.width}x{default.height}"
    parser.add_argument(
        "--size",
        metavar="WxH",
        type=size_argument,
        help=f"image size of the camera (default: {size})",
    )
    parser.add_argument("--moving", action="store_true", default=None, help="sway the simulated camera")


def with_camera_arguments(config: Config, args: argparse.Namespace) -> Config:
    """Apply the options of :func:`add_source_arguments`. Raises ValueError for invalid ones."""
    changes: dict[str, object] = {}
    if args.source:
        config = config.updated(_source_of(args.source))
    if args.calibration is not None:
        config = config.updated({"lens": {"calibration": args.calibration}})
    if args.rate is not None:
        changes["rate_hz"] = args.rate
    if args.size is not None:
        changes["width"], changes["height"] = args.size
    if args.moving is not None:
        changes["moving"] = args.moving
    return config.updated({"camera": changes})


def _source_of(words: list[str]) -> dict[str, dict[str, object]]:
    """Settings of `--source`."""
    kind, *rest = words
    if kind == "stack" and len(rest) == 1:
        return {"camera": {"source": kind, "stack": rest[0]}}
    if kind in SWEPT_CAMERAS and len(rest) <= 1:
        return swept_camera_settings(kind, *rest)
    if kind == "rgbd" and len(rest) <= 1:
        return {"camera": {"source": kind}, "rgbd": {"path": rest[0]} if rest else {}}
    if kind == "sim" and not rest:
        return {"camera": {"source": kind}}
    raise ValueError(
        "--source: expected 'sim', 'stack DIR', 'v4l2 [DEVICE]', 'picamera2 [NUMBER]', 'oak [ID]' or 'rgbd [DIR|BAG]', "
        f"received '{' '.join(words)}'"
    )


def swept_camera_settings(kind: str, device: str | None = None) -> dict[str, dict[str, object]]:
    """Settings of one of :data:`SWEPT_CAMERAS`."""
    section = "v4l2" if kind == "v4l2" else "reporting"
    return {"camera": {"source": kind}, section: {} if device is None else {"device": device}}


def swept_camera(config: Config) -> LensCamera:
    """Open one of :data:`SWEPT_CAMERAS`. Raises ImportError, ValueError or OSError for an unusable one."""
    if config.camera.source == "v4l2":
        from dfs_ros.camera.v4l2.source import V4l2Camera

        return V4l2Camera(config.v4l2, config.camera)
    if config.camera.source == "oak":
        from dfs_ros.camera.oak import OakCamera

        return OakCamera(config.reporting, config.camera)
    from dfs_ros.camera.raspberry_pi import Picamera2Camera

    return Picamera2Camera(config.reporting, config.camera)


def make_source(config: Config) -> FrameSource:
    """Make the source of `camera.source`; render simulated images, with progress, if not cached.

    Raises ValueError or OSError for an unusable source.
    """
    if config.camera.source == "stack":
        from dfs_ros.camera.recorded import RecordedSource

        if not config.camera.stack:
            raise ValueError("camera.stack: expected the folder of a focal stack, which source stack shows")
        return RecordedSource(config.camera.stack, config.camera, config.lens)
    if config.camera.source == "v4l2":
        from dfs_ros.camera.v4l2.source import V4l2Source

        return V4l2Source(config.v4l2, config.camera, config.lens)
    if config.camera.source in SWEPT_CAMERAS:
        from dfs_ros.camera.swept import SweptSource

        opened = partial(swept_camera, config)
        return SweptSource(opened, "reporting", config.reporting, config.camera, config.lens, config.lens.calibration)
    if config.camera.source == "rgbd":
        from dfs_ros.camera.virtual_lens import LiveRgbd, RecordedRgbd

        return (RecordedRgbd if config.rgbd.path else LiveRgbd)(config)
    from dfs_ros.camera.simulator import SimulatedSource

    with _rendering_progress() as progress:
        return SimulatedSource(config.camera, progress)


@contextmanager
def _rendering_progress() -> Iterator[Callable[[float], None]]:
    from tqdm import tqdm

    bar: tqdm[None] | None = None

    def show(share: float) -> None:
        nonlocal bar
        if bar is None:
            if not sys.stderr.isatty():
                print("rendering the simulated scene, once ...", file=sys.stderr, flush=True)
            layout = "{desc} {bar} {n:3.0f}% {elapsed}"
            bar = tqdm(total=100, desc="rendering the scene", bar_format=layout, disable=None, leave=False)
        bar.update(100.0 * share - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def participant(args: argparse.Namespace, node_name: str, config: Config) -> Iterator[Transport]:
    """Node on the transport of the options, until SIGINT, SIGTERM or SIGHUP."""
    transport = open_transport(
        args.transport,
        node_name,
        namespace=args.namespace,
        remappings=parse_remappings(args.remap),
        config=config,
    )
    with transport, stopped_by_signals(transport):
        if args.exit_with_parent:
            threading.Thread(target=_end_with_parent, args=(transport,), daemon=True).start()
        yield transport


def _end_with_parent(transport: Transport) -> None:
    """Stop at the end of standard input: the parent, which holds its other end, has died."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop_soon(transport)


def size_argument(text: str) -> tuple[int, int]:
    """(width, height) of text such as 640x480."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x480, received {text!r}")
    return int(width), int(height)

"""Record camera and depth topics into a bag; Ctrl-C or --duration ends it.

    dfs record --output BAG                        image, camera_info, focus, /tf and /tf_static
    dfs record --output BAG --topics image focus depth/image depth/camera_info

`dfs replay`, ros2 bag and Foxglove read the bag. With a ROS 2 installation, `ros2 bag record` serves as well.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.participants import add_participant_arguments, participant
from dfs_ros.cli.statusline import StatusLine
from dfs_ros.messages.convert import CAMERA_INFO, COMPRESSED, DIAGNOSTICS, FOCUS, IMAGE, Message
from dfs_ros.messages.definitions import serialize
from dfs_ros.node.outputs import TOPICS as OUTPUTS
from dfs_ros.transport.bag.files import STORAGES, BagWriter
from dfs_ros.transport.base import LATCHED, Qos, Subscription, Transport

NODE_NAME = "dfs_record"
INPUTS = ("image", "camera_info", "focus", "/tf", "/tf_static")
_TF = "tf2_msgs/msg/TFMessage"
TYPES = {
    "image": IMAGE,
    "image/compressed": COMPRESSED,
    "camera_info": CAMERA_INFO,
    "focus": FOCUS,
    "/diagnostics": DIAGNOSTICS,
    "/tf": _TF,
    "/tf_static": _TF,
    **OUTPUTS,
}
_QOS = Qos(reliable=False, depth=100)  # matches every publisher; the depth buffers a slow disk
_STATUS_PERIOD_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="BAG", required=True, help="new bag: a folder, or a file *.mcap or *.db3")
    parser.add_argument(
        "--format", choices=tuple(STORAGES), help="storage format (default: from the suffix, otherwise mcap)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bag")
    parser.add_argument(
        "--topics",
        metavar="TOPIC",
        nargs="+",
        default=INPUTS,
        help=f"topics to record, of {', '.join(TYPES)} (default: the inputs)",
    )
    parser.add_argument(
        "--duration", metavar="S", type=float, help="duration of the recording [s] (default: unlimited)"
    )
    add_participant_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    for topic in args.topics:
        if topic not in TYPES:
            raise ValueError(f"--topics: expected some of {', '.join(TYPES)}, received {topic!r}")
    if args.duration is not None and not args.duration > 0:
        raise ValueError(f"--duration: expected seconds over 0, received {args.duration:g}")
    config = config_from_arguments(args)

    from dfs_ros.transport.bag.output import bag_output

    status = StatusLine()
    with bag_output(args.output, args.format, args.overwrite) as writer:
        with participant(args, NODE_NAME, config) as transport, status:
            subscriptions = record(transport, writer, args.topics)
            _spin(transport, args.duration, lambda: status.show(_counts(writer)))
        if not sum(writer.counts.values()):
            raise ValueError(f"nothing was received on {', '.join(s.topic for s in subscriptions)}, nothing is written")
        lost = sum(s.dropped for s in subscriptions)
    print(f"{args.output}: {_counts(writer)}")
    if lost:
        print(f"dfs record: warning: {lost} messages were lost: this machine was too busy", file=sys.stderr)
    return 0


def record(transport: Transport, writer: BagWriter, topics: list[str] | tuple[str, ...]) -> list[Subscription]:
    """Write messages on `topics`, some of :data:`TYPES`, into a bag while the node spins."""

    def write_to(topic: str, type_name: str) -> Callable[[Message], None]:
        return lambda msg: writer.write(topic, type_name, transport.now_ns(), serialize(msg, type_name))

    subscriptions = []
    for name in topics:
        topic, type_name = transport.resolve(name), TYPES[name]
        latched = name == "/tf_static"
        writer.announce(topic, type_name, LATCHED if latched else Qos(reliable=True, depth=5))
        qos = Qos(reliable=True, depth=100, latched=True) if latched else _QOS
        subscriptions.append(transport.create_subscription(name, type_name, write_to(topic, type_name), qos))
    return subscriptions


def _spin(transport: Transport, duration_s: float | None, show: Callable[[], None]) -> None:
    began = shown_at = time.monotonic()
    while duration_s is None or time.monotonic() - began < duration_s:
        transport.spin_once(0.1)
        if time.monotonic() - shown_at > _STATUS_PERIOD_S:
            shown_at = time.monotonic()
            show()


def _counts(writer: BagWriter) -> str:
    return ", ".join(f"{topic} {count}" for topic, count in writer.counts.items())

"""Record camera and depth topics into a bag; Ctrl-C or --duration ends it.

    dfs record --output BAG                        image, camera_info, focus, /tf, /tf_static, imu
    dfs record --output BAG --topics image focus depth/image depth/camera_info

`dfs replay`, ros2 bag and Foxglove read the bag. With a ROS 2 installation, `ros2 bag record` serves as well. A kill, a
power cut or a full disk costs at most the last second: `dfs replay` reads what is there, `dfs recover` closes the bag.
Exit status 3: the bag is short of messages.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable

from dfs_ros.cli.common import INCOMPLETE, add_config_arguments, config_from_arguments
from dfs_ros.cli.participants import add_participant_arguments, participant
from dfs_ros.cli.statusline import StatusLine
from dfs_ros.messages.convert import CAMERA_INFO, COMPRESSED, DIAGNOSTICS, FOCUS, IMAGE, Message
from dfs_ros.messages.definitions import serialize
from dfs_ros.messages.motion import IMU, TF
from dfs_ros.node.outputs import TOPICS as OUTPUTS
from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.transport.bag.metadata import STORAGES
from dfs_ros.transport.bag.writer import BagWriter, Split
from dfs_ros.transport.base import LATCHED, Qos, Subscription, Transport

NODE_NAME = "dfs_record"
INPUTS = ("image", "camera_info", "focus", "/tf", "/tf_static", "imu")
TYPES = {
    "image": IMAGE,
    "image/compressed": COMPRESSED,
    "camera_info": CAMERA_INFO,
    "focus": FOCUS,
    "/diagnostics": DIAGNOSTICS,
    "/tf": TF,
    "/tf_static": TF,
    "imu": IMU,
    **OUTPUTS,
}
_QOS = Qos(reliable=False, depth=100)  # matches every publisher; the depth buffers a slow disk
_STATUS_PERIOD_S = 1.0
_FLUSH_PERIOD_S = 0.5  # at most a second is lost, with the time of the flush itself


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
    parser.add_argument(
        "--max-bag-size", metavar="BYTES", type=int, default=0, help="size of a file, then the next begins (default: 0)"
    )
    parser.add_argument(
        "--max-bag-duration",
        metavar="S",
        type=float,
        default=0.0,
        help="duration of a file, then the next begins [s] (default: 0, no limit)",
    )
    parser.add_argument(
        "--min-free",
        metavar="MB",
        type=float,
        default=100.0,
        help="free space of the disk at which the recording ends [MB] (default: %(default)g)",
    )
    add_participant_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    for topic in args.topics:
        if topic not in TYPES:
            raise ValueError(f"--topics: expected some of {', '.join(TYPES)}, received {topic!r}")
    if args.duration is not None and not args.duration > 0:
        raise ValueError(f"--duration: expected seconds over 0, received {args.duration:g}")
    for option in ("max_bag_size", "max_bag_duration", "min_free"):
        if not 0 <= getattr(args, option) < 1e15:
            name = option.replace("_", "-")
            raise ValueError(f"--{name}: expected 0 or more, received {getattr(args, option):g}")
    config = config_from_arguments(args)

    from dfs_ros.transport.bag.recording import RecordingEnded, recording

    status = StatusLine()
    split = Split(args.max_bag_size, round(args.max_bag_duration * 1e9))
    failed: RecordingEnded | None = None
    try:
        with recording(args.output, args.format, args.overwrite, split) as writer:
            _check_free(writer, args.min_free)
            with participant(args, NODE_NAME, config) as transport, status:
                recorder = record(transport, writer, args.topics)
                _spin(transport, recorder, args.duration, args.min_free, lambda: status.show(_counts(writer)))
    except RecordingEnded as error:
        failed = error
    if not sum(writer.counts.values()):
        if failed is not None:
            raise failed
        topics = ", ".join(s.topic for s in recorder.subscriptions)
        raise ValueError(f"nothing was received on {topics}, nothing is written")
    print(f"{args.output}: {_counts(writer)}")
    if failed is not None:
        keep_traceback(failed)
        print(f"dfs record: error: {failed}", file=sys.stderr)
        return INCOMPLETE
    lost = sum(s.dropped for s in recorder.subscriptions)
    if lost:
        print(f"dfs record: warning: {lost} messages were lost: this machine was too busy", file=sys.stderr)
    return 0


class Recorder:
    """Subscriptions whose messages go into a bag; an error of writing is kept for :meth:`flush`."""

    def __init__(self, transport: Transport, writer: BagWriter) -> None:
        self._transport = transport
        self.writer = writer
        self.subscriptions: list[Subscription] = []
        self._error: OSError | None = None

    def add(self, name: str) -> None:
        """Record a topic, one of :data:`TYPES`."""
        topic, type_name = self._transport.resolve(name), TYPES[name]
        latched = name == "/tf_static"

        def write(msg: Message) -> None:
            if self._error is None:
                try:
                    self.writer.write(topic, type_name, self._transport.now_ns(), serialize(msg, type_name))
                except OSError as error:  # not that of a callback: it ends the recording
                    self._error = error

        self.writer.announce(topic, type_name, LATCHED if latched else Qos(reliable=True, depth=5))
        qos = Qos(reliable=True, depth=100, latched=True) if latched else _QOS
        self.subscriptions.append(self._transport.create_subscription(name, type_name, write, qos))

    def flush(self) -> None:
        """Put all messages on the disk. Raises OSError if it, or writing before, failed."""
        if self._error is not None:
            raise self._error
        self.writer.flush()


def record(transport: Transport, writer: BagWriter, topics: list[str] | tuple[str, ...]) -> Recorder:
    """Write messages on `topics`, some of :data:`TYPES`, into a bag while the node spins."""
    recorder = Recorder(transport, writer)
    for name in topics:
        recorder.add(name)
    return recorder


def _spin(
    transport: Transport, recorder: Recorder, duration_s: float | None, min_free_mb: float, show: Callable[[], None]
) -> None:
    began = shown_at = flushed_at = time.monotonic()
    while duration_s is None or time.monotonic() - began < duration_s:
        transport.spin_once(0.1)
        if time.monotonic() - flushed_at > _FLUSH_PERIOD_S:
            flushed_at = time.monotonic()
            recorder.flush()
            _check_free(recorder.writer, min_free_mb)
            if time.monotonic() - shown_at > _STATUS_PERIOD_S:
                shown_at = time.monotonic()
                show()
    recorder.flush()


def _check_free(writer: BagWriter, min_free_mb: float) -> None:
    from dfs_ros.transport.bag.recording import LowSpace

    free_mb = shutil.disk_usage(writer.folder).free / 1e6
    if free_mb < min_free_mb:
        raise LowSpace(f"expected {min_free_mb:g} MB of free space (--min-free), received {free_mb:.0f} MB")


def _counts(writer: BagWriter) -> str:
    return ", ".join(f"{topic} {count}" for topic, count in writer.counts.items())

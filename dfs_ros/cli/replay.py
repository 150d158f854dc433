"""Estimate depth of a recorded bag, offline and reproducibly.

    dfs replay BAG --output DEPTH            folder for ros2 bag, Foxglove, RViz (DEPTH.mcap: a single file)

Runs the depth node on a ROS 2 bag (sqlite3 or mcap) with images, camera_info and focus (dfs_ros/FrameFocus, or
camera_ros' LensPosition on /diagnostics). Time is the bag's; every run writes the same bytes. Topics are found by type;
--remap chooses among several of one type. An unfinished or damaged bag is read as far as it is whole, with a warning of
what is missing; with --strict the exit status is then 3.
"""

from __future__ import annotations

import argparse
import sys

from dfs_ros.cli.common import INCOMPLETE, add_config_arguments, config_from_arguments
from dfs_ros.cli.signals import interrupted_by_signals
from dfs_ros.system.memory import keep_freed_memory
from dfs_ros.transport.names import parse_remappings

_COPIES = ("none", "tf", "inputs", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", metavar="BAG", help="bag: a folder with metadata.yaml, or a file *.mcap or *.db3")
    parser.add_argument("--output", metavar="BAG", required=True, help="new bag: a folder, or a file *.mcap or *.db3")
    parser.add_argument(
        "--format",
        choices=("mcap", "sqlite3"),
        help="storage format of the new bag (default: from its suffix, otherwise mcap)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bag")
    parser.add_argument("--strict", action="store_true", help="exit status 3 if the bag is unfinished or damaged")
    parser.add_argument(
        "--topics", metavar="TOPIC", nargs="+", help="output topics to write, such as depth/image (default: all)"
    )
    parser.add_argument(
        "--copy",
        choices=_COPIES,
        default="tf",
        help="messages copied to the new bag. tf: /tf and /tf_static (default); inputs: the inputs too; all; none",
    )
    parser.add_argument(
        "--start", metavar="S", type=float, default=0.0, help="start, relative to that of the bag [s] (default: 0)"
    )
    parser.add_argument("--duration", metavar="S", type=float, help="duration of the replayed part [s] (default: all)")
    parser.add_argument("--namespace", metavar="NAME", default="/", help="namespace of the node (default: /)")
    parser.add_argument(
        "--remap", metavar="FROM:=TO", action="append", default=[], help="new name of a topic; repeatable"
    )
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = config_from_arguments(args)
    if config.node.keep_memory:
        keep_freed_memory()

    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from dfs_ros.node.replay import ReplayOptions, replay

    options = ReplayOptions(
        namespace=args.namespace,
        remappings=parse_remappings(args.remap),
        outputs=args.topics,
        copy=args.copy,
        start_s=args.start,
        duration_s=args.duration,
    )
    layout = "{desc}{bar}{n:3.0f}% {elapsed}<{remaining}"
    with (
        interrupted_by_signals(),
        logging_redirect_tqdm(),
        tqdm(total=100, leave=False, bar_format=layout, disable=None, desc="replaying ") as bar,
    ):

        def show(share: float) -> None:
            bar.update(100.0 * min(share, 1.0) - bar.n)

        done = replay(
            args.bag,
            args.output,
            config,
            options,
            storage=args.format,
            overwrite=args.overwrite,
            progress=show,
        )
    values = done.values
    print(
        f"{args.output}: {values['published']} depth images of {values['stacks']} stacks, {values['received']} images, "
        f"from {', '.join(done.inputs)}"
    )
    for sentence in done.damage:
        print(f"dfs replay: warning: {sentence}", file=sys.stderr)
    return INCOMPLETE if done.damage and args.strict else 0

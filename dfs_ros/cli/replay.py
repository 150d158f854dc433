"""Depth of a recorded bag: the depth node on it, with the bag's time as clock, as fast as the machine can.

    dfs replay BAG --output DEPTH            a folder for ros2 bag, Foxglove, RViz (DEPTH.mcap: a single file)

BAG is a ROS 2 bag (sqlite3 or mcap) with images, camera_info and focus (dfs_ros/FrameFocus, or camera_ros'
LensPosition on /diagnostics). Topics are found by their types; where there are several, --remap says which. Each run
writes the same bytes.
"""

from __future__ import annotations

import argparse

from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.cli.signals import interrupted_by_signals
from dfs_ros.system.memory import keep_freed_memory
from dfs_ros.transport.names import parse_remappings

_COPIES = ("none", "tf", "inputs", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", metavar="BAG", help="folder with metadata.yaml, or a .mcap or .db3 file")
    parser.add_argument(
        "--output", metavar="BAG", required=True, help="folder for the new bag, or a file *.mcap or *.db3"
    )
    parser.add_argument(
        "--format", choices=("mcap", "sqlite3"), help="of the new bag (default: by its suffix, or mcap)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bag that is there")
    parser.add_argument(
        "--topics", metavar="TOPIC", nargs="+", help="outputs to write, such as depth/image (default: all)"
    )
    parser.add_argument(
        "--copy",
        choices=_COPIES,
        default="tf",
        help="what else goes into the new bag: /tf and /tf_static (default), the inputs too, all, or none",
    )
    parser.add_argument("--start", metavar="S", type=float, default=0.0, help="begin so many seconds into the bag")
    parser.add_argument("--duration", metavar="S", type=float, help="replay so many seconds (default: all)")
    parser.add_argument("--namespace", metavar="NAME", default="/", help="namespace of the node (default: /)")
    parser.add_argument(
        "--remap", metavar="FROM:=TO", action="append", default=[], help="another name for a topic; may be repeated"
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
    return 0

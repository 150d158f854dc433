"""Close a bag whose recorder was stopped: by a kill, a power cut or a full disk.

    dfs recover BAG

Each file gets its end, in place, and the folder its metadata.yaml. Messages are neither changed nor copied.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", metavar="BAG", help="bag: a folder, or a file *.mcap or *.db3")


def run(args: argparse.Namespace) -> int:
    from dfs_ros.transport.bag.files import BagReader
    from dfs_ros.transport.bag.recording import close_bag, is_recorded

    bag = Path(args.bag)
    with BagReader(bag) as reader:  # refuses what is no bag
        unfinished = reader.damage.unfinished
    if is_recorded(bag):
        raise ValueError(f"bag {bag}: is being recorded; stop its recorder first")
    if not unfinished:
        print(f"{bag}: is closed already")
        return 0
    print(f"{bag}: closed, {close_bag(bag)} messages")
    return 0

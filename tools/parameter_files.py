"""Writes config/parameters.yaml, the ROS parameter file: every parameter with its default and description.

    python -m tools.parameter_files

It is made from :mod:`dfs_ros.config` alone, so that no default lives twice; a test holds the file in the repository
equal.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
from pathlib import Path

import yaml

from dfs_ros.config import Config, sections
from dfs_ros.system.atomic import write_atomically
from dfs_ros.system.folders import share_folder

FILE_NAME = "parameters.yaml"
NOT_FOR_ROS = ("dds", "viewer")
"""Sections that native nodes have no use for: how DDS works without ROS 2, and the page in the browser."""

_WIDTH = 110
_HEAD = """\
# Every parameter of the nodes of dfs_ros, at its default. Written by `python -m tools.parameter_files`.
#
#     ros2 launch dfs_ros depth.launch.py params_file:=my_parameters.yaml
#
# A file of your own needs only what differs. `/**` is every node in every namespace; `/left/dfs` would be one alone.
# In brackets the values that are possible; "live": `ros2 param set` may change it while the node runs.
/**:
  ros__parameters:
"""
_QOS = """\

    # Quality of service of each topic, by its full name, for networks that need another than the node's own: reliable,
    # keep the last 5, for what is published; best effort, keep the last 10, for what is received.
    # qos_overrides:
    #   /depth/points:
    #     publisher: {reliability: best_effort, history: keep_last, depth: 1, durability: volatile}
    #   /image:
    #     subscription: {reliability: reliable, history: keep_last, depth: 10, durability: volatile}
"""


def parameter_file(config: Config) -> str:
    """All parameters of `config` as a commented ROS parameter file."""
    parts = [_HEAD]
    for name, section in sections(config):
        if name in NOT_FOR_ROS:
            continue
        summary = (type(section).__doc__ or "").splitlines()[0]
        parts.append(f"\n    # ---- {summary}\n    {name}:\n")
        for setting_field in dataclasses.fields(section):
            comment = textwrap.wrap(_comment(setting_field), _WIDTH, break_long_words=False, break_on_hyphens=False)
            parts += [f"      # {line}\n" for line in comment]
            # Not str: YAML reads a bare `off` as false; ROS reads numbers as YAML writes them, floats with a point.
            value = yaml.safe_dump(getattr(section, setting_field.name)).splitlines()[0]
            parts.append(f"      {setting_field.name}: {value}\n")
    return "".join([*parts, _QOS])


def _comment(setting_field: dataclasses.Field[object]) -> str:
    """What a parameter is, with its unit and range."""
    meta = setting_field.metadata
    notes = []
    if meta["choices"]:
        notes.append(", ".join(meta["choices"]))
    elif meta["low"] is not None or meta["high"] is not None:
        notes.append(f"{_bound(meta['low'])} to {_bound(meta['high'])} {meta['unit']}".rstrip())
    elif meta["unit"]:
        notes.append(meta["unit"])
    if meta["live"]:
        notes.append("live")
    return f"{meta['doc']} [{'; '.join(notes)}]" if notes else str(meta["doc"])


def _bound(value: float | None) -> str:
    return "any" if value is None else str(value)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the ROS parameter file with every parameter at its default.")
    parser.add_argument("folder", nargs="?", help="where parameters.yaml is written (default: config/ of the package)")
    args = parser.parse_args(arguments)
    file = (Path(args.folder) if args.folder else share_folder("config")) / FILE_NAME
    write_atomically(file, parameter_file(Config()).encode())
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())

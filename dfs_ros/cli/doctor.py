"""Check this machine: hardware, libraries, ROS, and the way from camera to depth.

Lists everything that dfs_ros can use, how to install what is missing, and what will be used. Estimates depth of a small
rendered stack and opens a node as a test. Exit status: 0 if camera to depth works here, otherwise 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from dfs_ros.doctor import Diagnosis, examine
from dfs_ros.version import __version__

_MARKS = {"ok": " ", "absent": "-", "warning": "!", "error": "X"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    diagnosis = examine()
    if args.json:
        values = {"dfs_ros": __version__, "can_run": diagnosis.can_run, **dataclasses.asdict(diagnosis)}
        print(json.dumps(values, indent=2))
    else:
        print(describe(diagnosis))
    return 0 if diagnosis.can_run else 1


def describe(diagnosis: Diagnosis) -> str:
    """Text of the diagnosis: a line for each finding and each fix."""
    width = max(len(name) for name in (*(f.name for f in diagnosis.findings), *(u.what for u in diagnosis.uses)))
    lines = [f"dfs_ros {__version__}   (- not here, not needed; ! works, but not well; X does not work)"]
    topic = ""
    for finding in diagnosis.findings:
        if finding.topic != topic:
            topic = finding.topic
            lines += ["", topic]
        lines.append(f"{_MARKS[finding.state]} {finding.name:<{width}}  {finding.value}")
        if finding.fix:
            lines.append(f"  {'':<{width}}  -> {finding.fix}")
    if diagnosis.uses:
        lines += ["", "will be used"]
        lines += [f"  {use.what:<{width}}  {use.choice}; {use.why}" for use in diagnosis.uses]
    if diagnosis.can_run:
        return "\n".join([*lines, "", "The main job, camera to depth, runs here."])
    return "\n".join([*lines, "", f"The main job, camera to depth, does not run here: {', '.join(diagnosis.errors)}."])

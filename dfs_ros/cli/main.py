"""The command `dfs`: one entry point, a module for each sub-command, imported only when called."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dfs_ros.system.cores import wait_asleep
from dfs_ros.version import __version__

COMMANDS = {
    "run": ("dfs_ros.cli.run", "camera, depth node and viewer, live"),
    "node": ("dfs_ros.cli.node", "the depth node alone, for a camera that is there already"),
    "camera": ("dfs_ros.cli.camera", "a simulated or recorded camera alone"),
    "view": ("dfs_ros.cli.view", "the viewer alone"),
    "estimate": ("dfs_ros.cli.estimate", "depth of a focal stack on disk"),
    "record": ("dfs_ros.cli.record", "record a camera, and depth, into a bag"),
    "replay": ("dfs_ros.cli.replay", "depth of a recorded bag"),
    "import": ("dfs_ros.cli.import_stack", "make a focal stack from a folder of photos"),
    "calibrate": ("dfs_ros.cli.calibrate", "fit how wide the lens blurs, from a focal stack"),
    "focus-table": ("dfs_ros.cli.focus_table", "calibrate a lens whose focus is set in numbers without a unit"),
    "simulate": ("dfs_ros.cli.simulate", "render a focal stack with known depth"),
    "train": ("dfs_research.commands.train", "train the network on rendered stacks"),
    "eval": ("dfs_research.commands.evaluate", "score depth on rendered stacks"),
    "experiment": (
        "dfs_research.commands.experiment",
        "invariance to the camera, ablations, constraints: tables by one command",
    ),
    "export": ("dfs_ros.cli.export", "write the network as ONNX, and compare what runs it"),
    "bench": ("benchmarks.volumes_cli", "measure speed and memory on this machine (with --node: of the depth node)"),
    "doctor": ("dfs_ros.cli.doctor", "what this machine has, and what will be used"),
}

_VARIANTS = {"bench --node": ("benchmarks.node", "measure the depth node on this machine")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dfs ARGV`; returns the exit status: 0 good, 1 failed, 2 bad input, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    wait_asleep()
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"dfs {__version__}")
        return 0
    name = argv[0]
    if argv[:2] == ["bench", "--node"]:
        name = "bench --node"
        argv = argv[1:]
    if name not in COMMANDS and name not in _VARIANTS:
        print(f"dfs: error: unknown command {name!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(message)s", stream=sys.stderr)
    logging.getLogger("dfs_ros").setLevel(logging.INFO)
    try:
        try:
            return _run(name, argv[1:])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough, as in `dfs estimate --list-settings | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, MemoryError) as error:
        print(f"dfs {name}: error: {str(error) or type(error).__name__}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"dfs {name}: error: {error}; `dfs doctor` says what is missing", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ndfs {name}: interrupted", file=sys.stderr)
        return 130


def _run(name: str, arguments: Sequence[str]) -> int:
    module_name, summary = {**COMMANDS, **_VARIANTS}[name]
    module = importlib.import_module(module_name)
    parser = _Parser(
        prog=f"dfs {name}",
        description=module.__doc__ or summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(arguments)))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One line, as for all other wrong input; argparse would print its whole usage before it.
        raise ValueError(f"{message}; see `{self.prog} --help`")


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return (
        "usage: dfs COMMAND [...]\n\nMetric depth from focal stacks.\n\ncommands:\n"
        + "\n".join(lines)
        + "\n\n`dfs COMMAND --help` lists the options; `dfs --version`."
    )


if __name__ == "__main__":
    sys.exit(main())

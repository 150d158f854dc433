"""Entry point of the command `dfs`: a module per sub-command, imported when called."""
# PYTHON_ARGCOMPLETE_OK: shells complete this command, see dfs_ros.cli.completion.

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dfs_ros.cli import completion
from dfs_ros.system.cores import wait_asleep
from dfs_ros.system.tracebacks import keep_traceback, traceback_of
from dfs_ros.version import __version__

COMMANDS = {
    "run": ("dfs_ros.cli.run", "run camera, depth node and viewer live"),
    "node": ("dfs_ros.cli.node", "run the depth node alone, for a camera already running"),
    "camera": ("dfs_ros.cli.camera", "run a focus-sweeping camera alone: simulated, recorded or V4L2"),
    "sweeper": ("dfs_ros.cli.sweeper", "sweep the lens of a camera that another driver runs"),
    "view": ("dfs_ros.cli.view", "run the viewer alone"),
    "capture": ("dfs_ros.cli.capture", "capture one focal stack from a camera, its topics or a depth node"),
    "estimate": ("dfs_ros.cli.estimate", "estimate the depth of a focal stack on disk"),
    "record": ("dfs_ros.cli.record", "record camera and depth topics into a bag"),
    "recover": ("dfs_ros.cli.recover", "close a bag whose recorder was stopped"),
    "replay": ("dfs_ros.cli.replay", "estimate depth of a recorded bag"),
    "import": ("dfs_ros.cli.import_stack", "make a focal stack from a folder of photos"),
    "calibrate": ("dfs_ros.cli.calibrate_aperture", "calibrate a lens: board, lens, or aperture from a focal stack"),
    "focus-table": ("dfs_ros.cli.focus_table", "calibrate the focus of a V4L2 lens in dioptres"),
    "simulate": ("dfs_ros.cli.simulate", "render a focal stack with known depth"),
    "export": ("dfs_ros.cli.export", "export the network as ONNX and compare its runners"),
    "doctor": ("dfs_ros.cli.doctor", "check this machine: hardware, libraries, ROS"),
    "train": ("dfs_research.commands.train", "train a network on focal stacks with depth"),
    "eval": ("dfs_research.commands.evaluate", "score depth on rendered focal stacks"),
    "experiment": ("dfs_research.commands.experiment", "run an experiment: invariance, ablations, constraints, speed"),
    "bench": ("benchmarks.volumes_cli", "measure speed and memory (with --node: of the depth node)"),
}

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
VARIANTS = {
    "bench --node": ("benchmarks.node", "measure speed and memory of the depth node"),
    "calibrate board": ("dfs_ros.cli.calibrate_board", "write a calibration board as PDF in true size"),
    "calibrate lens": ("dfs_ros.cli.calibrate_lens", "calibrate a lens from images of a board at many focus positions"),
    "calibrate check": ("dfs_ros.cli.calibrate_check", "check a calibrated lens: depth of a board against its pose"),
    "calibrate aperture": ("dfs_ros.cli.calibrate_aperture", "measure the effective aperture of a lens from a stack"),
}
"""Commands of two words. `dfs calibrate STACK` is the older form of `dfs calibrate aperture STACK`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dfs ARGV`; return the exit status: 0 good, 1 failed, 2 bad input, 3 incomplete, 130 interrupted."""
    if argv is None and completion.REQUESTED in os.environ:
        completion.complete({**COMMANDS, **VARIANTS})
    argv = list(sys.argv[1:] if argv is None else argv)
    wait_asleep()
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"dfs {__version__}")
        return 0
    name = argv[0]
    if " ".join(argv[:2]) in VARIANTS:
        name = " ".join(argv[:2])
        argv = argv[1:]
    if name not in COMMANDS and name not in VARIANTS:
        print(f"dfs: error: unknown command {name!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(message)s", stream=sys.stderr)
    try:
        try:
            logging.getLogger("dfs_ros").setLevel(_log_level())
            return _run(name, argv[1:])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as in `dfs estimate --list-settings | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, MemoryError) as error:
        keep_traceback(error)
        print(f"dfs {name}: error: {_shortened(str(error)) or type(error).__name__}", file=sys.stderr)
        return 2
    except ImportError as error:
        keep_traceback(error)
        print(f"dfs {name}: error: {error}; `dfs doctor` lists what is missing", file=sys.stderr)
        return 1
    except Exception as error:
        keep_traceback(error)
        print(f"dfs {name}: error: a fault of this program, {_first_line(error)}; {_reported(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ndfs {name}: interrupted", file=sys.stderr)
        return 130


def _run(name: str, arguments: Sequence[str]) -> int:
    module_name, summary = {**COMMANDS, **VARIANTS}[name]
    module = _module(module_name, name)
    if module is None:
        return 1
    parser = _Parser(
        prog=f"dfs {name}",
        description=module.__doc__ or summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(arguments)))


def _shortened(text: str) -> str:
    """Text of an error of at most 50 lines of 1000 characters."""
    lines = text.splitlines()
    more = [f"... and {len(lines) - 50} lines more"] if len(lines) > 50 else []
    return "\n".join([line if len(line) <= 1000 else f"{line[:1000]} ..." for line in lines[:50]] + more)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _reported(error: Exception) -> str:
    """Sentence that says where the traceback of a fault lies; written to a file."""
    from datetime import datetime, timezone

    from dfs_ros.system.atomic import write_atomically
    from dfs_ros.system.folders import cache_folder

    now = datetime.now(timezone.utc)
    file = cache_folder("faults") / f"{now:%Y%m%dT%H%M%S}_{os.getpid()}.txt"
    text = f"dfs {__version__}, Python {sys.version}\n{sys.argv}\n{traceback_of(error)}\n"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, text.encode(errors="replace"))
    except OSError as failed:
        keep_traceback(failed)
        return f"run it again with DFS_LOG_LEVEL=DEBUG, and report its output ({file} cannot be written)"
    return f"please report it with {file}, where its traceback lies"


def _module(module_name: str, command: str) -> Any:
    """Import the module of a command; None, with a message, if it needs a clone."""
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not _needs_clone(module_name) or not f"{module_name}.".startswith(f"{error.name}."):
            raise
    print(
        f"dfs {command}: error: this command comes with a clone of the repository (run it there, or after `pip install "
        "-e .` of it), not with a wheel or a colcon build",
        file=sys.stderr,
    )
    return None


def _needs_clone(module_name: str) -> bool:
    return not module_name.startswith("dfs_ros.")


def _log_level() -> str:
    level = os.environ.get("DFS_LOG_LEVEL", "INFO").upper()
    if level not in _LOG_LEVELS:
        raise ValueError(f"DFS_LOG_LEVEL: expected one of {', '.join(_LOG_LEVELS)}, received {level!r}")
    return level


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One line, as for all other wrong input; argparse would print its whole usage first.
        raise ValueError(f"{message}; see `{self.prog} --help`")


def _usage() -> str:
    width = max(map(len, COMMANDS))
    installed: list[str] = []
    cloned: list[str] = []
    for name, (module_name, summary) in COMMANDS.items():
        (cloned if _needs_clone(module_name) else installed).append(f"  {name:<{width}}  {summary}")
    return "\n".join(
        [
            "usage: dfs COMMAND [...]\n\nMetric depth from focal stacks.\n\ncommands:",
            *installed,
            "\nfrom a clone:",
            *cloned,
            "\n`dfs COMMAND --help` lists the options; `dfs --version` prints the version.",
            "With DFS_LOG_LEVEL=DEBUG in the environment, the traceback of every error is logged.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

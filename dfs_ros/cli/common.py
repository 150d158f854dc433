"""Options shared by several sub-commands."""

from __future__ import annotations

import argparse
from typing import Any

from dfs_ros.config import Config, plain_yaml
from dfs_ros.config.commented import commented_yaml

INCOMPLETE = 3
"""Exit status of a command whose input or output is not whole."""


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, `--set` and the shorthands of the most used settings."""
    group = parser.add_argument_group("settings (defaults: --list-settings)")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file of settings, in the form that --list-settings prints, or a ROS parameter file",
    )
    group.add_argument(
        "--set",
        metavar="SECTION.SETTING=VALUE",
        action="append",
        default=[],
        help="value of one setting; repeatable",
    )
    group.add_argument("--list-settings", action=_ListSettings, help="print every setting with its default and exit")
    group.add_argument("--cost", choices=("residual", "paper", "released"), help="cost volume")
    group.add_argument(
        "--network",
        metavar="none|NAME",
        help="network over the cost volume: none, a model of models/ or a .safetensors file",
    )
    group.add_argument(
        "--runner",
        choices=("auto", "torch", "onnx", "tensorrt", "tensorrt_rtx"),
        help="inference engine of the network",
    )
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), help="device of cost volume and network")
    group.add_argument(
        "--dense", action="store_true", default=None, help="depth at every pixel, without a test of its reliability"
    )
    group.add_argument("--min-depth", metavar="M", type=float, help="nearest depth hypothesis [m]")
    group.add_argument("--max-depth", metavar="M", type=float, help="farthest depth hypothesis [m]")
    group.add_argument("--hypotheses", metavar="N", type=int, help="number of depth hypotheses")


_SHORTHANDS = {
    "cost": ("cost", "method"),
    "network": ("network", "name"),
    "runner": ("network", "runner"),
    "device": ("processing", "device"),
    "dense": ("confidence", "dense"),
    "min_depth": ("hypotheses", "min_depth_m"),
    "max_depth": ("hypotheses", "max_depth_m"),
    "hypotheses": ("hypotheses", "count"),
}


def config_from_arguments(args: argparse.Namespace, base: Config | None = None) -> Config:
    """Configuration from `--config`, then `--set`, then the shorthands, each overriding the previous.

    Raises ValueError for unknown settings and values of the wrong type or range.
    """
    config = base or Config()
    if args.config:
        config = Config.load(args.config)
    changes: dict[str, dict[str, Any]] = {}
    for text in args.set:
        name, equals, value = text.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot):
            raise ValueError(f"--set {text}: expected SECTION.SETTING=VALUE, such as hypotheses.count=32")
        changes.setdefault(section.strip(), {})[key.strip()] = _value(value, text)
    for argument, (section, key) in _SHORTHANDS.items():
        value = getattr(args, argument, None)
        if value is not None:
            changes.setdefault(section, {})[key] = value
    return config.updated(changes)


def _value(value: str, text: str) -> Any:
    """Parse a value as YAML; nothing means empty text."""
    try:
        return plain_yaml(value) if value.strip() else ""
    except ValueError:
        raise ValueError(f"--set {text}: expected a number, a word, true or false, or text in quotes") from None


class _ListSettings(argparse.Action):
    def __init__(self, option_strings: Any, dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> None:
        print(commented_yaml(Config()))
        parser.exit(0)

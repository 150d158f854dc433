"""Settings as commented YAML."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Collection
from typing import Any

import yaml

from dfs_ros.config import Config, sections

_WIDTH = 110


def commented_yaml(config: Config, leave_out: Collection[str] = ()) -> str:
    """All settings with description, unit and range, without some sections: valid input for :meth:`Config.load`."""
    lines = []
    for name, section in sections(config):
        if name in leave_out:
            continue
        lines += [f"# ---- {(type(section).__doc__ or '').splitlines()[0]}", f"{name}:"]
        for setting_field in dataclasses.fields(section):
            comment = textwrap.wrap(described(setting_field), _WIDTH, break_long_words=False, break_on_hyphens=False)
            # Not str: YAML reads a bare `off` as false; ROS reads numbers as YAML writes them, floats with a point.
            value = yaml.safe_dump(getattr(section, setting_field.name), width=math.inf).splitlines()[0]
            lines += [*(f"  # {line}" for line in comment), f"  {setting_field.name}: {value}"]
        lines.append("")
    return "\n".join(lines)


def described(setting_field: dataclasses.Field[Any]) -> str:
    """Description of a setting with range and unit, or choices, and whether it is dynamic."""
    meta = setting_field.metadata
    notes = []
    if meta["choices"]:
        notes.append(", ".join(meta["choices"]))
    elif meta["low"] is not None or meta["high"] is not None:
        low, high = ("any" if bound is None else bound for bound in (meta["low"], meta["high"]))
        notes.append(f"{low} to {high} {meta['unit']}".rstrip())
    elif meta["unit"]:
        notes.append(meta["unit"])
    if meta["dynamic"]:
        notes.append("dynamic")
    return f"{meta['doc']} [{'; '.join(notes)}]" if notes else str(meta["doc"])

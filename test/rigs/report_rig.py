"""Whether a report.json is what its schema says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dfs_ros.io.report import FIELDS, Field

_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "setting": (str, int, float, bool),
    "object": (),
}


def violations(report: dict[str, Any], command: str) -> list[str]:
    """Fields that are not documented, of another type, null without a reason, or missing."""
    found = list(leaves(report))
    wrong = []
    for name, value in found:
        field = documented(name)
        if field is None or field.command.partition(",")[0] not in ("", command):
            wrong.append(f"{name}: not documented for {command}")
        elif value is None and not field.null:
            wrong.append(f"{name}: null")
        elif value is not None and type(value) not in _TYPES[field.kind]:
            wrong.append(f"{name}: {value!r} is no {field.kind}")
    for name, field in FIELDS.items():
        if field.command in ("", command) and field.kind != "object" and not stands(report, name):
            wrong.append(f"{name}: missing")
    return wrong


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of all that is neither object nor list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, f"{name}[]")
    else:
        yield name, value


def documented(name: str) -> Field | None:
    for pattern, field in FIELDS.items():
        if re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]+"), name):
            return field
    return None


def stands(value: Any, name: str) -> bool:
    """Whether a documented field is there, down to the first list, object of any names, or null in its place."""
    for key in name.split("."):
        if key == "*" or value is None:
            return True
        if key.removesuffix("[]") not in value:
            return False
        value = value[key.removesuffix("[]")]
        if key.endswith("[]"):
            return isinstance(value, list)
    return True

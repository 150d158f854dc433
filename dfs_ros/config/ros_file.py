"""ROS parameter files as settings: `NODE: {ros__parameters: {...}}`, wildcards and namespaces included."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

_MARK = "ros__parameters"
_NODES = ("dfs", "camera")  # names of this package's nodes
_OF_ROS = ("use_sim_time", "qos_overrides", "start_type_description_service")


def is_parameter_file(values: Mapping[Any, Any]) -> bool:
    """True if a mapping has `ros__parameters` below a node name, at any depth."""
    return any(isinstance(v, Mapping) and (_MARK in v or is_parameter_file(v)) for v in values.values())


def settings_of(values: Mapping[Any, Any], known_sections: Collection[str]) -> dict[str, Any]:
    """Settings `{section: {setting: value}}` of a ROS parameter file.

    Wildcards come first, then the nodes of this package override. Nodes without any section of `known_sections` are
    other packages' and left out, as are the parameters that ROS adds to every node. Raises ValueError for other keys
    beside the nodes, and for several nodes of one name.
    """
    entries = dict(_entries(values, ""))
    ours = {node: found for node, found in entries.items() if not found or known_sections & found.keys()} or entries
    wild = [node for node in ours if "*" in node]
    named = [node for node in ours if "*" not in node]
    if len(named) > 1:
        named = [node for node in named if _last(node) in _NODES] or named
    for node in named:
        if any(_last(node) == _last(other) for other in named if other is not node):
            raise ValueError(f"expected one node of each name, received {', '.join(named)}; leave one of them")
    settings: dict[str, Any] = {}
    for node in (*wild, *named):
        for section, content in ours[node].items():
            before = settings.get(section)
            if isinstance(before, Mapping) and isinstance(content, Mapping):
                content = {**before, **content}
            settings[section] = content
    return settings


def _entries(values: Mapping[Any, Any], above: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in values.items():
        name = f"{above}/{str(key).strip('/')}"
        if not isinstance(value, Mapping):
            raise ValueError(f"{name.strip('/')}: expected {_MARK} below a node name, received {value!r}")
        if _MARK in value:
            yield name, _nested(value[_MARK] or {}, name)
        else:
            yield from _entries(value, name)


def _nested(parameters: Any, node: str) -> dict[str, Any]:
    """Parameters by section; dots in names are nesting."""
    if not isinstance(parameters, Mapping):
        raise ValueError(f"{node}.{_MARK}: expected parameters, received {parameters!r}")
    nested: dict[str, Any] = {}
    for name, value in parameters.items():
        section, dot, setting = str(name).partition(".")
        if section in _OF_ROS:
            continue
        if dot:
            nested[section] = {**(nested.get(section) or {}), setting: value}
        elif isinstance(value, Mapping) and isinstance(nested.get(section), Mapping):
            nested[section] = {**nested[section], **value}
        else:
            nested[section] = value
    return nested


def _last(node: str) -> str:
    return node.rpartition("/")[2]

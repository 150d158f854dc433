"""ROS 2 names: relative `image`, absolute `/camera/image`, private `~/capture`; remapping `image:=/camera/image`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def check_node_name(name: str) -> str:
    """Return `name` if it is a valid node name (letters, digits, underscores), else ValueError."""
    if not _TOKEN.match(name):
        raise ValueError(
            f"node name: expected letters, digits and underscores, not starting with a digit, received {name!r}"
        )
    return name


def check_namespace(namespace: str) -> str:
    """Normalise a namespace: leading slash, no trailing one; "" and "/" are the root.

    Raises ValueError for an invalid one.
    """
    full = "/" + namespace.strip("/")
    if full != "/":
        _check_tokens(full, "namespace")
    return full


def resolve_name(name: str, node_name: str, namespace: str, remappings: Mapping[str, str] | None = None) -> str:
    """Resolve the name of a topic, service or parameter of a node to an absolute one.

    `remappings` map a name in the node's code, or its absolute form, to another name, which is resolved in turn.

    >>> resolve_name("depth/image", "dfs", "/robot"), resolve_name("~/capture", "dfs", "/robot")
    ('/robot/depth/image', '/robot/dfs/capture')
    >>> resolve_name("image", "dfs", "/robot", {"image": "/camera/image_raw"})
    '/camera/image_raw'

    Raises ValueError for names that ROS 2 does not allow.
    """
    absolute = _absolute(name, node_name, namespace)
    for source, target in (remappings or {}).items():
        if _absolute(source, node_name, namespace) == absolute:
            return _absolute(target, node_name, namespace)
    return absolute


def parse_remappings(texts: Iterable[str]) -> dict[str, str]:
    """Parse `FROM:=TO` texts, as on a ROS command line.

    >>> parse_remappings(["image:=/camera/image_raw"])
    {'image': '/camera/image_raw'}
    """
    remappings = {}
    for text in texts:
        source, separator, target = text.partition(":=")
        if not (separator and source and target):
            raise ValueError(f"remapping: expected FROM:=TO such as image:=/camera/image_raw, received {text!r}")
        remappings[source] = target
    return remappings


def _absolute(name: str, node_name: str, namespace: str) -> str:
    base = "" if namespace == "/" else namespace
    if name.startswith("/"):
        absolute = name
    elif name.startswith("~/"):
        absolute = f"{base}/{node_name}/{name[2:]}"
    else:
        absolute = f"{base}/{name}"
    _check_tokens(absolute, "name")
    return absolute


def _check_tokens(absolute: str, what: str) -> None:
    if "__" in absolute or not all(_TOKEN.match(token) for token in absolute[1:].split("/")):
        raise ValueError(
            f"{what}: expected words of letters, digits and single underscores, none starting with a digit, "
            f"between slashes, received {absolute!r}"
        )

"""Transports of a node behind one interface (:mod:`~dfs_ros.transport.base`).

`ros`: native ROS 2 (rclpy). `dds`: a ROS 2 participant from pip packages alone. `local`: within one process.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfs_ros.config import Config
    from dfs_ros.transport.base import Transport

KINDS = ("auto", "ros", "dds", "local")


def open_transport(
    kind: str,
    node_name: str,
    *,
    namespace: str = "/",
    remappings: Mapping[str, str] | None = None,
    config: Config | None = None,
    arguments: Sequence[str] = (),
) -> Transport:
    """Open a node on a transport of `kind`, one of :data:`KINDS`.

    `arguments`: a command line with `--ros-args`, for native ROS 2 alone.

    `auto` takes native ROS 2 if rclpy can be imported, else DDS. `local` opens a bus of its own: nodes of one process
    that exchange messages use :class:`dfs_ros.transport.local.LocalTransport` with one bus.

    Raises TransportError, with what to install, if the transport cannot be opened.
    """
    if kind not in KINDS:
        raise ValueError(f"transport: expected one of {', '.join(KINDS)}, received {kind!r}")
    names: dict[str, Any] = {"namespace": namespace, "remappings": remappings, "config": config}
    if kind == "local":
        from dfs_ros.transport.local import LocalTransport

        return LocalTransport(node_name, **names)
    if kind in ("auto", "ros"):
        native, problem = _native_transport()
        if native is not None:
            transport: Transport = native(node_name, **names, arguments=arguments)
            return transport
        if kind == "ros":
            from dfs_ros.transport.base import TransportError

            raise TransportError(f"native ROS 2 cannot be used: {problem}, or use transport dds")
        logging.getLogger("dfs_ros").info("transport: DDS without ROS 2 (%s)", problem)
    from dfs_ros.transport.dds.transport import DdsTransport

    return DdsTransport(node_name, **names)


def chosen_kind(kind: str) -> str:
    """Resolve `auto` to ros or dds on this machine; any other kind stays."""
    if kind != "auto":
        return kind
    return "dds" if _native_transport()[0] is None else "ros"


def _native_transport() -> tuple[Any, str]:
    """(RosTransport, "") or (None, reason and remedy)."""
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        return None, f"{error}; source the setup file of ROS 2"
    try:
        importlib.import_module("dfs_ros.msg")
    except ImportError as error:
        return None, f"{error}; build this package with colcon and source the setup file of its install folder"
    return importlib.import_module("dfs_ros.transport.ros.transport").RosTransport, ""

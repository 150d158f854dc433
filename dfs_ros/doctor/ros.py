"""ROS 2: installation, discovery, socket buffers for large images."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

from dfs_ros.doctor.finding import Finding, installed, version, words
from dfs_ros.system.tracebacks import keep_traceback

RMEM_FOR_1080P = 3_500_000
"""Least net.core.rmem_max, in bytes, for 1080p colour images.

An image of 6.2 MB arrives at once, and Linux doubles the requested buffer size. Measured on one host, best effort at
30 Hz: 2 MB lose 40 % of the images, 3 MB 20 %, 3.4 MB and more none.
"""


def packages() -> Iterator[Finding]:
    """ROS 2 itself, or its replacement by DDS."""
    distro = os.environ.get("ROS_DISTRO", "")
    yield Finding("ROS 2", "ROS_DISTRO", distro or "not set", "ok" if distro else "absent")
    yield from _native()
    fixes = {
        "cyclonedds": "pip install cyclonedds, on x86-64; on other machines install ROS 2",
        "rosbags": "pip install rosbags",
    }
    for module, fix in fixes.items():
        if installed(module):
            yield Finding("ROS 2", module, version(module) or "installed")
        else:
            yield Finding("ROS 2", module, "not installed", "absent", fix)


def _native() -> Iterator[Finding]:
    """Requirements of native nodes: rclpy and the messages of a colcon build."""
    try:
        importlib.import_module("rclpy")
    except Exception as error:
        keep_traceback(error)
        missing = isinstance(error, ModuleNotFoundError) and error.name == "rclpy"
        fix = "for native nodes, install ROS 2 and source its setup file; without, nodes speak to ROS 2 by DDS"
        yield Finding("ROS 2", "rclpy", "not installed" if missing else words(error), "absent", fix)
        return
    yield Finding("ROS 2", "rclpy", version("rclpy") or "installed")
    try:
        importlib.import_module("dfs_ros.msg")
    except Exception as error:
        keep_traceback(error)
        missing = isinstance(error, ModuleNotFoundError) and error.name == "dfs_ros.msg"
        fix = "build this package with colcon and source the setup file of its install folder; until then, DDS is used"
        yield Finding("ROS 2", "dfs_ros.msg", "not built" if missing else words(error), "absent", fix)
    else:
        yield Finding("ROS 2", "dfs_ros.msg", "built")


def discovery() -> Iterator[Finding]:
    """ROS domain, and range of its discovery."""
    from dfs_ros.config import DdsConfig
    from dfs_ros.transport.dds import domain

    config = DdsConfig()
    try:
        number, who = domain.domain_id(config), domain.discovery(config)
    except ValueError as error:
        name = str(error).partition(":")[0]
        yield Finding("ROS 2", name, str(error), "error", f"unset {name}, or set it to what is expected")
        return
    yield Finding("ROS 2", "domain", f"{number} ({_environment('ROS_DOMAIN_ID')})")
    peers = f", and the hosts {', '.join(who.static_peers)}" if who.static_peers else ""
    yield Finding("ROS 2", "discovery", f"{who.range}{peers} ({_environment('ROS_AUTOMATIC_DISCOVERY_RANGE')})")


def _environment(name: str) -> str:
    value = os.environ.get(name, "")
    return f"{name}={value}" if value else f"{name} is not set"


def buffers(file: Path = Path("/proc/sys/net/core/rmem_max")) -> Iterator[Finding]:
    """Size limit of socket buffers, against that of a 1080p colour image."""
    from dfs_ros.config import DdsConfig

    if not file.is_file():
        yield Finding("ROS 2", "socket buffer", "net.core.rmem_max: not known on this system", "absent")
        return
    rmem_max = int(file.read_text())
    text = f"net.core.rmem_max is {rmem_max / 1e6:.1f} MB"
    if rmem_max >= RMEM_FOR_1080P:
        yield Finding("ROS 2", "socket buffer", f"{text}, enough for 1080p images")
        return
    wanted = DdsConfig().receive_buffer_bytes
    yield Finding(
        "ROS 2",
        "socket buffer",
        f"{text}: 1080p images come late or get lost, which takes {RMEM_FOR_1080P / 1e6:.1f} MB",
        "warning",
        f"sudo sysctl -w net.core.rmem_max={wanted}, and the same setting in /etc/sysctl.d to keep it",
    )

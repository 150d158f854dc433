"""Sockets limited to packets from this host, without privileges, on Linux.

All packets between processes of one host pass the loopback device, whatever addresses they carry. A participant that
receives no others never learns of other hosts, and so sends them nothing. Binding its sockets to that device would not
do: Linux then drops packets to the host's other addresses, which DDS participants use.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dfs_ros.system.tracebacks import keep_traceback

_Made = TypeVar("_Made")
_SO_ATTACH_FILTER = 26
# Classic BPF: load a word, jump if equal, return; the index of the device that a packet came by.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_DEVICE_INDEX = 0xFFFFF000 + 8
_WHOLE = 0xFFFFFFFF


def made_for_this_host(make: Callable[[], _Made]) -> tuple[_Made, bool]:
    """Result of `make()`, whose UDP sockets are limited to this host; False if the system cannot limit them."""
    before = _udp_sockets()
    made = make()
    try:
        for inode, descriptor in _udp_sockets().items():
            if inode not in before:
                with socket.socket(fileno=os.dup(descriptor)) as each:
                    keep_to_this_host(each)
    except OSError as error:
        keep_traceback(error)
        return made, False
    return made, True


def keep_to_this_host(udp: socket.socket) -> None:
    """Make a socket drop packets that came by another device than loopback.

    Raises OSError where the system cannot.
    """
    loopback = socket.if_nametoindex("lo")
    steps = (
        (_LOAD, 0, 0, _DEVICE_INDEX),
        (_JUMP_IF_EQUAL, 0, 1, loopback),
        (_RETURN, 0, 0, _WHOLE),
        (_RETURN, 0, 0, 0),
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    udp.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(steps), ctypes.addressof(program)))


def _udp_sockets() -> dict[int, int]:
    """Inodes and descriptors of the UDP sockets of this process."""
    found = {}
    folder = Path("/proc/self/fd")
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        with contextlib.suppress(OSError):
            if entry.readlink().name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as each:
                    if each.type == socket.SOCK_DGRAM and each.family in (socket.AF_INET, socket.AF_INET6):
                        found[os.fstat(each.fileno()).st_ino] = int(entry.name)
    return found

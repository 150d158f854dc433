"""Raw CDR input and output of Cyclone DDS, and ROS 2 ids of its endpoints.

cyclonedds' own serialiser takes 0.3 s for one 1080p image, so bytes are passed unchanged. Writing calls the C library
by ctypes, which lets other threads run meanwhile: a large image takes milliseconds.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

from dfs_ros.transport.base import TransportError

_POLICY_NAMES = {2: "durability", 11: "reliability", 23: "data representation", 24: "type consistency"}


def require_cyclonedds() -> None:
    """Raise TransportError without a usable cyclonedds with raw access."""
    try:
        from cyclonedds import _clayer
        from cyclonedds.core import DDSException  # noqa: F401 - loads the C library
        from cyclonedds.topic import Sample  # noqa: F401
    except Exception as error:
        raise TransportError(
            f"the DDS transport needs the Python package cyclonedds 11 or later, which cannot be used here ({error}): "
            "`pip install cyclonedds` on x86-64. There is no package for other machines such as Jetson: install ROS 2, "
            "source its setup file, and use the native transport"
        ) from error
    if not hasattr(_clayer, "ddspy_take"):
        raise TransportError("this version of cyclonedds has no raw access; `pip install -U cyclonedds`")


def write(writer: Any, cdr: bytearray) -> int:
    """Publish CDR of a length divisible by 4; return the DDS code, 0 = good."""
    from cyclonedds.internal import DDS
    from cyclonedds.topic import Sample

    function = DDS._dll_handle.dds_write
    function.argtypes = [ctypes.c_int32, ctypes.c_void_p]
    function.restype = ctypes.c_int32
    view = (ctypes.c_char * len(cdr)).from_buffer(cdr)
    return int(function(writer._ref, ctypes.byref(Sample(ctypes.addressof(view), len(cdr)))))


def take(reader: Any, count: int) -> list[tuple[bytes, Any]]:
    """Take up to `count` samples from the reader as (CDR, SampleInfo), oldest first."""
    from cyclonedds._clayer import ddspy_take
    from cyclonedds.core import InstanceState, SampleState, ViewState

    taken = ddspy_take(reader._ref, SampleState.Any | ViewState.Any | InstanceState.Any, count)
    if isinstance(taken, int):
        return []
    return [(data, info) for data, info in taken if info.valid_data]


class Receiver:
    """Reader that passes samples to `deliver(cdr, info)` on the receiving thread."""

    def __init__(
        self, participant: Any, topic: Any, qos: Any, depth: int, deliver: Callable[[bytes, Any], None]
    ) -> None:
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState
        from cyclonedds.sub import DataReader

        self.reader: Any = DataReader(participant, topic, qos)
        self.name = str(topic.name)
        self.condition = ReadCondition(self.reader, SampleState.Any | ViewState.Any | InstanceState.Any)
        self._depth = depth
        self._deliver = deliver

    def receive(self) -> None:
        """Deliver the waiting samples."""
        for data, info in take(self.reader, self._depth):
            self._deliver(data, info)

    def lost(self) -> int:
        """Samples of best-effort writers lost by the network."""
        return int(self.reader.get_sample_lost_status().total_count)


def incompatible_qos(endpoint: Any) -> str:
    """QoS policy of a new mismatch of a reader or writer; "" without one."""
    if hasattr(endpoint, "get_requested_incompatible_qos_status"):
        status = endpoint.get_requested_incompatible_qos_status()
    else:
        status = endpoint.get_offered_incompatible_qos_status()
    if status.total_count_change <= 0:
        return ""
    return _POLICY_NAMES.get(status.last_policy_id, f"policy {status.last_policy_id}")


def service_header(cdr: bytes) -> tuple[int, int]:
    """(client guid, sequence number) of a request or reply; ValueError if too short."""
    try:
        guid, sequence = struct.unpack_from("<Qq" if cdr[1] & 1 else ">Qq", cdr, 4)
    except (struct.error, IndexError) as error:
        raise ValueError(f"service: expected 20 bytes or more, received {len(cdr)}") from error
    return guid, sequence


def user_data_value(endpoint: Any, key: str) -> str:
    """Value of `key` in the user data of a discovered endpoint; "" if missing.

    User data are `key=value;...`.
    """
    from cyclonedds.qos import Policy

    if endpoint is None or Policy.Userdata not in endpoint.qos:
        return ""
    text = bytes(endpoint.qos[Policy.Userdata].data).decode("latin-1")
    pairs = dict(pair.partition("=")[::2] for pair in text.split(";") if "=" in pair)
    return pairs.get(key, "")


def endpoint_id(participant: Any, number: int) -> str:
    """Id of a service or client in rmw_cyclonedds, which pairs its reader and writer."""
    raw = participant.guid.bytes[:12] + struct.pack(">I", number)
    return f"{raw[0]:2x}" + "".join(f".{byte:x}" for byte in raw[1:])

"""Message definitions and CDR: one source for every transport.

Definitions of ROS messages are those of rosbags for the distribution in ROS_DISTRO (Jazzy if unset or unknown);
dfs_ros/FrameFocus comes from `msg/FrameFocus.msg`; service types that rosbags lacks are below. A message is an instance
of rosbags' dataclass: `message.header.stamp.sec`, with sequences of numbers as numpy arrays.
"""

from __future__ import annotations

import os
import struct
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dfs_ros.system.folders import share_folder

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

DEFAULT_DISTRO = "jazzy"

Message = Any
"""Instance of a class of :func:`message_class`; mypy cannot know classes made at run time."""

# An empty request has this member on the wire, as IDL has no empty structure.
_EMPTY = "uint8 structure_needs_at_least_one_member"

_SERVICES = {
    "std_srvs/srv/Trigger": (_EMPTY, "bool success\nstring message"),
    "lifecycle_msgs/srv/ChangeState": ("lifecycle_msgs/Transition transition", "bool success"),
    "rcl_interfaces/srv/GetParameters": ("string[] names", "rcl_interfaces/ParameterValue[] values"),
    "rcl_interfaces/srv/GetParameterTypes": ("string[] names", "uint8[] types"),
    "rcl_interfaces/srv/ListParameters": (
        "string[] prefixes\nuint64 depth",
        "rcl_interfaces/ListParametersResult result",
    ),
    "rcl_interfaces/srv/DescribeParameters": (
        "string[] names",
        "rcl_interfaces/ParameterDescriptor[] descriptors",
    ),
    "rcl_interfaces/srv/SetParameters": (
        "rcl_interfaces/Parameter[] parameters",
        "rcl_interfaces/SetParametersResult[] results",
    ),
    "rcl_interfaces/srv/SetParametersAtomically": (
        "rcl_interfaces/Parameter[] parameters",
        "rcl_interfaces/SetParametersResult result",
    ),
}


def ros_distro() -> str:
    """ROS 2 distribution of the definitions: ROS_DISTRO if rosbags knows it, else jazzy."""
    from rosbags.typesys import Stores

    distro = os.environ.get("ROS_DISTRO", "").lower()
    return distro if f"ROS2_{distro.upper()}" in Stores.__members__ else DEFAULT_DISTRO


def type_store() -> Typestore:
    """Definitions of the current distribution."""
    return _type_store(ros_distro())


@cache
def _type_store(distro: str) -> Typestore:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores[f"ROS2_{distro.upper()}"])
    text = (share_folder("msg") / "FrameFocus.msg").read_text(encoding="utf-8")
    store.register(get_types_from_msg(text, "dfs_ros/msg/FrameFocus"))
    for service, texts in _SERVICES.items():
        for definition, part in zip(texts, ("Request", "Response"), strict=True):
            name = f"{service}_{part}"
            # rosbags registers every definition under `msg`
            (fields,) = get_types_from_msg(definition, name).values()
            store.register({name: fields})
    return store


def service_parts(service_type: str) -> tuple[str, str]:
    """Names of the request and the response of a service type such as `std_srvs/srv/Trigger`."""
    request, response = f"{service_type}_Request", f"{service_type}_Response"
    check_type(request)
    return request, response


def check_type(type_name: str) -> str:
    """Return `type_name` if it is a known `package/msg/Name`, else ValueError."""
    if type_name not in type_store().fielddefs:
        raise ValueError(f"message type: expected a ROS 2 type such as sensor_msgs/msg/Image, received {type_name!r}")
    return type_name


def message_class(type_name: str) -> type:
    """Dataclass of a message type, with its constants as class attributes."""
    return type_store().types[check_type(type_name)]


def message(type_name: str, **fields: Message) -> Message:
    """Make a message of zeros, empty strings and empty sequences, but for `fields`.

    >>> message("geometry_msgs/msg/Point", z=2.5)
    geometry_msgs__msg__Point(x=0.0, y=0.0, z=2.5, __msgtype__='geometry_msgs/msg/Point')
    """
    definitions = type_store().fielddefs[check_type(type_name)][1]
    unknown = set(fields) - {name for name, _ in definitions}
    if unknown:
        raise ValueError(
            f"{type_name}: expected fields {', '.join(name for name, _ in definitions)}, received {', '.join(unknown)}"
        )
    values = [fields[name] if name in fields else _zero(description) for name, description in definitions]
    return message_class(type_name)(*values)


def serialize(msg: Message, type_name: str, prefix: bytes = b"") -> bytearray:
    """Serialise a message to CDR.

    Layout: 4 bytes of header, `prefix` (a multiple of 8 bytes), the fields, padding to a multiple of 4. Raises
    ValueError for a value that does not fit its field.
    """
    from rosbags.serde import SerdeError

    store = type_store()
    definition = store.get_msgdef(check_type(type_name))
    if not isinstance(msg, definition.cls):
        raise ValueError(f"expected a {type_name}, received {type(msg).__name__}")
    try:
        start = 4 + len(prefix)
        size = start + definition.getsize_cdr(0, msg, store)
        buffer = bytearray((size + 3) & ~3)
        buffer[1] = 1  # plain CDR, little endian
        buffer[4:start] = prefix
        definition.serialize_cdr_le(memoryview(buffer)[start:], 0, msg, store)
    except (SerdeError, struct.error, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"{type_name}: a value does not fit its field: {error}") from error
    return buffer


def deserialize(data: bytes | memoryview, type_name: str, prefix_bytes: int = 0) -> Message:
    """Deserialise a message from CDR of either byte order.

    Number arrays are read-only views of `data`. Raises ValueError for data that is not a whole message of this type.
    """
    from rosbags.serde import SerdeError

    view = memoryview(data)
    if prefix_bytes:
        if len(view) < 4 + prefix_bytes:
            raise ValueError(f"{type_name}: expected {prefix_bytes} bytes before the fields, received {len(view) - 4}")
        view = memoryview(bytes(view[:4]) + bytes(view[4 + prefix_bytes :]))
    try:
        return type_store().deserialize_cdr(view, check_type(type_name))
    except (SerdeError, struct.error, UnicodeDecodeError, IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"not a {type_name}: {error} ({len(data)} bytes)") from error


def time_message(stamp_ns: int) -> Message:
    """builtin_interfaces/Time of integer nanoseconds; ValueError beyond 2038, where its seconds end."""
    seconds, nanoseconds = divmod(int(stamp_ns), 10**9)
    if not -(2**31) <= seconds < 2**31:
        raise ValueError(f"stamp_ns: expected nanoseconds whose seconds fit 32 bits, received {stamp_ns}")
    return message("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)


def stamp_ns(time: Message) -> int:
    """Integer nanoseconds of a builtin_interfaces/Time or Duration; ValueError for an abnormal or negative one."""
    seconds, nanoseconds = int(time.sec), int(time.nanosec)
    if seconds < 0 or not 0 <= nanoseconds < 10**9:
        raise ValueError(
            f"time: expected seconds of 0 or more and nanoseconds below 10^9, received {seconds} and {nanoseconds}"
        )
    return seconds * 10**9 + nanoseconds


def header(stamp_ns: int, frame_id: str) -> Message:
    """Make a std_msgs/Header."""
    return message("std_msgs/msg/Header", stamp=time_message(stamp_ns), frame_id=frame_id)


def _zero(description: Any) -> Any:
    from rosbags.interfaces import Nodetype

    kind, detail = description
    if kind == Nodetype.BASE:
        return _zero_scalar(detail[0])
    if kind == Nodetype.NAME:
        return message(detail)
    element, length = detail
    count = length if kind == Nodetype.ARRAY else 0
    if element[0] == Nodetype.BASE and element[1][0] != "string":
        return np.zeros(count, _dtype(element[1][0]))
    return [_zero(element) for _ in range(count)]


def _zero_scalar(name: str) -> bool | int | float | str:
    if name == "string":
        return ""
    if name == "bool":
        return False
    return 0.0 if name.startswith("float") else 0


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype({"bool": "bool", "byte": "uint8", "char": "uint8"}.get(name, name))

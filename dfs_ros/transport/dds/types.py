"""DDS types and quality of service of ROS messages, for Cyclone DDS.

Topic `rt/camera/image`, type `sensor_msgs::msg::dds_::Image_`, final, XCDR1. Cyclone DDS checks every sample against
the type before delivery, so CDR that does not fit never arrives.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from dfs_ros.messages.definitions import ros_distro, service_parts, type_store
from dfs_ros.transport.base import Qos

# Precedes the fields of a service's request and response in rmw_cyclonedds.
SERVICE_HEADER_BYTES = 16
_SERVICE_HEADER = (("client_guid", "uint64"), ("sequence_number", "int64"))


def idl_type(type_name: str, with_service_header: bool = False) -> Any:
    """cyclonedds IdlStruct of a message type."""
    return _idl_type(type_name, with_service_header, ros_distro())


@cache
def _idl_type(type_name: str, with_service_header: bool, distro: str) -> Any:
    from cyclonedds import idl
    from rosbags.interfaces import Nodetype

    types: Any = idl.types

    def resolve(description: Any) -> Any:
        kind, detail = description
        if kind == Nodetype.BASE:
            name, bound = detail
            if name == "string":
                return types.bounded_str[bound] if bound else str
            return _base_type(name)
        if kind == Nodetype.NAME:
            return _idl_type(detail, False, distro)
        element, length = detail
        if kind == Nodetype.ARRAY:
            return types.array[resolve(element), length]
        return types.sequence[resolve(element), length] if length else types.sequence[resolve(element)]

    package, folder, name = type_name.split("/")
    fields = {key: _base_type(base) for key, base in _SERVICE_HEADER} if with_service_header else {}
    fields |= {key: resolve(description) for key, description in type_store().fielddefs[type_name][1]}
    return idl.make_idl_struct(f"{name}_", f"{package}.{folder}.dds_.{name}_", fields)


def _base_type(name: str) -> Any:
    from cyclonedds.idl import types

    if name == "bool":
        return bool
    return getattr(types, {"char": "uint8"}.get(name, name))


def type_hash(type_name: str) -> str:
    """REP 2016 hash of a message type, `RIHS01_...`."""
    return type_store().hash_rihs01(type_name)


def topic_name(name: str) -> str:
    """DDS topic of an absolute ROS topic name."""
    return f"rt{name}"


def service_topics(name: str, service_type: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """(DDS topic, message type) of requests and of replies of a service.

    `name` is absolute.
    """
    request, response = service_parts(service_type)
    return (f"rq{name}Request", request), (f"rr{name}Reply", response)


def dds_qos(qos: Qos, type_name: str, user_data: str = "") -> Any:
    """cyclonedds Qos of an endpoint; `user_data` precedes the type hash."""
    from cyclonedds.qos import Policy
    from cyclonedds.qos import Qos as DdsQos
    from cyclonedds.util import duration

    history = Policy.History.KeepLast(qos.depth)
    policies = [
        # The blocking time has no effect: a KeepLast writer never waits for slow readers.
        Policy.Reliability.Reliable(duration(infinite=True)) if qos.reliable else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if qos.latched else Policy.Durability.Volatile,
        history,
        Policy.WriterDataLifecycle(autodispose=False),
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.Userdata(f"{user_data}typehash={type_hash(type_name)};".encode()),
    ]
    if qos.latched:
        policies.append(Policy.DurabilityService(duration(seconds=0), history, -1, -1, -1))
    return DdsQos(*policies)

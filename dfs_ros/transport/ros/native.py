"""rclpy node of :mod:`dfs_ros.transport.ros.transport`: parameters, classes, QoS.

Imports without rclpy; every function here needs it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from dfs_ros.config import Config, DdsConfig
from dfs_ros.messages.definitions import Message, check_type, deserialize, ros_distro, serialize, service_parts
from dfs_ros.transport.base import Qos, TransportError
from dfs_ros.transport.dds.domain import large_messages_xml
from dfs_ros.transport.names import check_namespace, check_node_name
from dfs_ros.transport.parameters import Parameters

_ELSEWHERE = ("dds.", "viewer.")  # sections that do not apply to a native node
_OF_RCLPY = ("use_sim_time", "qos_overrides.", "start_type_description_service")


def open_context(arguments: Sequence[str], dds: DdsConfig) -> Any:
    """Open a ROS context with the ROS arguments (`--ros-args ...`) of a command line.

    It has no signal handlers. If ROS uses Cyclone DDS, this process sets it up for large images (`CYCLONEDDS_URI`
    prevails). Raises ValueError for arguments that ROS refuses, TransportError for an unusable middleware.
    """
    import rclpy
    from rclpy.context import Context
    from rclpy.signals import SignalHandlerOptions

    large_messages, settings = large_messages_xml(dds), os.environ.get("CYCLONEDDS_URI", "")
    if large_messages not in settings:
        os.environ["CYCLONEDDS_URI"] = f"{large_messages},{settings}"
    context = Context()
    try:
        rclpy.init(args=list(arguments), context=context, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        if "ROSArgs" in type(error).__name__:
            raise ValueError(f"ROS arguments: {error}") from error
        raise TransportError(f"native ROS 2 cannot be used: {error}") from error
    return context


def open_node(context: Any, name: str, namespace: str, remappings: Mapping[str, str]) -> Any:
    """Open a node, with the names of its command line and all given parameters declared.

    Raises ValueError for names that ROS does not allow.
    """
    check_node_name(name)
    check_namespace(namespace)
    rules = [word for source, target in remappings.items() for word in ("-r", f"{source}:={target}")]
    return _node_class()(
        name,
        context=context,
        namespace=namespace,
        cli_args=["--ros-args", *rules] if rules else None,
        automatically_declare_parameters_from_overrides=True,
    )


@cache
def _node_class() -> type:
    from rclpy.lifecycle import LifecycleNodeMixin
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    class _Node(LifecycleNodeMixin, Node):  # type: ignore[misc]
        """Node for :class:`dfs_ros.transport.ros.lifecycle.Lifecycle`; takes integers for doubles."""

        def __init__(self, name: str, **options: Any) -> None:
            Node.__init__(self, name, **options)

        def set_parameters_atomically(self, parameter_list: list[Any]) -> Any:
            # `ros2 param set /dfs hypotheses.max_depth_m 5` means 5.0.
            def as_declared(given: Any) -> Any:
                whole = given.type_ == Parameter.Type.INTEGER and self.has_parameter(given.name)
                if whole and self.get_parameter(given.name).type_ == Parameter.Type.DOUBLE:
                    return Parameter(given.name, Parameter.Type.DOUBLE, float(given.value))
                return given

            return super().set_parameters_atomically([as_declared(one) for one in parameter_list])

    return _Node


def config_of_node(node: Any, base: Config) -> Config:
    """Configuration with the parameters from a node's command line and parameter files.

    Raises ValueError for unknown parameters, other types and values out of range.
    """
    changes: dict[str, dict[str, Any]] = {}
    for name, parameter in node.get_parameters_by_prefix("").items():
        if name.startswith(_OF_RCLPY):
            continue
        section, dot, key = name.partition(".")
        if name.startswith(_ELSEWHERE) or not dot:
            raise ValueError(f"parameter {name}: no such parameter of this node; `ros2 param list` shows all")
        changes.setdefault(section, {})[key] = parameter.value
        node.undeclare_parameter(name)  # declared again later, with its description
    return base.updated(changes)


def declare_parameters(node: Any, parameters: Parameters) -> None:
    """Declare the settings as parameters of a node, with descriptions and ranges.

    Live ones may change.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult

    for name in parameters.names:
        if name.startswith(_ELSEWHERE):
            continue
        described = parameters.describe(name)
        descriptor = ParameterDescriptor(
            description=described.text,
            additional_constraints=described.constraints,
            read_only=described.read_only,
        )
        if described.bounds is not None:
            low, high = described.bounds
            if described.kind is float:
                descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
            else:
                descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        node.declare_parameter(name, parameters.get(name), descriptor, ignore_override=True)

    def change(changed: list[Any]) -> Any:
        try:
            parameters.set({one.name: one.value for one in changed if one.name in parameters.names})
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(change)


def native_class(type_name: str) -> Any:
    """rclpy class of a type such as `sensor_msgs/msg/Image` or `std_srvs/srv/Trigger`."""
    package, kind, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), name)
    except (ImportError, AttributeError) as error:
        fix = (
            "build this package with colcon and source the setup file of its install folder"
            if package == "dfs_ros"
            else f"install ros-{ros_distro()}-{package.replace('_', '-')}"
        )
        raise TransportError(f"{type_name}: no such type in this ROS 2 ({error}); {fix}") from error


def to_native(msg: Message, type_name: str, kind: Any) -> Any:
    """Convert a message of :mod:`~dfs_ros.messages.definitions` to the rclpy class `kind`."""
    from rclpy.serialization import deserialize_message

    return deserialize_message(bytes(serialize(msg, type_name)), kind)


def from_native(msg: Any, type_name: str) -> Message:
    """Convert an rclpy message to one of :mod:`~dfs_ros.messages.definitions`."""
    from rclpy.serialization import serialize_message

    return deserialize(serialize_message(msg), type_name)


def check_service(service_type: str) -> tuple[str, str]:
    """Names of a service's request and response; ValueError without their definitions."""
    request, response = service_parts(service_type)
    return check_type(request), check_type(response)


def native_qos(qos: Qos) -> Any:
    """Convert a profile to a QoSProfile."""
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=qos.depth,
        reliability=ReliabilityPolicy.RELIABLE if qos.reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if qos.latched else DurabilityPolicy.VOLATILE,
    )


def qos_of(profile: Any) -> Qos:
    """Convert a QoSProfile to a profile."""
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    return Qos(
        reliable=profile.reliability != ReliabilityPolicy.BEST_EFFORT,
        depth=max(1, profile.depth),
        latched=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
    )


def qos_overrides() -> Any:
    """Options for the parameters `qos_overrides.TOPIC.publisher.reliability` and so on."""
    from rclpy.qos import QoSPolicyKind
    from rclpy.qos_overriding_options import QoSOverridingOptions

    kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
    return QoSOverridingOptions(kinds)

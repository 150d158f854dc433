"""Parameter services of a node, for `ros2 param` and rqt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dfs_ros.messages.definitions import Message, message

if TYPE_CHECKING:
    from dfs_ros.transport.base import Transport

# rcl_interfaces/msg/ParameterType: number, and the member of ParameterValue that holds such a value
_NOT_SET = 0
_TYPES: dict[type, tuple[int, str]] = {
    bool: (1, "bool_value"),
    int: (2, "integer_value"),
    float: (3, "double_value"),
    str: (4, "string_value"),
}


def serve_parameters(transport: Transport) -> None:
    """Serve `~/get_parameters` and its siblings from `transport.parameters`."""
    parameters = transport.parameters

    def reply(service: str, **fields: Any) -> Message:
        return message(f"rcl_interfaces/srv/{service}_Response", **fields)

    def get(request: Message) -> Message:
        return reply(
            "GetParameters", values=[_value(parameters.get(n)) if _known(n) else _unset() for n in request.names]
        )

    def get_types(request: Message) -> Message:
        import numpy as np

        types = [_TYPES[type(parameters.get(n))][0] if _known(n) else _NOT_SET for n in request.names]
        return reply("GetParameterTypes", types=np.array(types, np.uint8))

    def list_names(request: Message) -> Message:
        chosen = [n for n in parameters.names if not request.prefixes or n.startswith(_prefixes(request))]
        sections = sorted({name.partition(".")[0] for name in chosen})
        result = message("rcl_interfaces/msg/ListParametersResult", names=chosen, prefixes=sections)
        return reply("ListParameters", result=result)

    def describe(request: Message) -> Message:
        return reply("DescribeParameters", descriptors=[_describe(n) for n in request.names])

    def set_each(request: Message) -> Message:
        return reply("SetParameters", results=[_set([one]) for one in request.parameters])

    def set_all(request: Message) -> Message:
        return reply("SetParametersAtomically", result=_set(request.parameters))

    def _known(name: str) -> bool:
        return name in parameters.names

    def _set(wanted: list[Message]) -> Message:
        try:
            parameters.set({one.name: _python_value(one.name, one.value) for one in wanted})
        except ValueError as error:
            return message("rcl_interfaces/msg/SetParametersResult", successful=False, reason=str(error))
        return message("rcl_interfaces/msg/SetParametersResult", successful=True)

    def _describe(name: str) -> Message:
        if not _known(name):
            return message("rcl_interfaces/msg/ParameterDescriptor", name=name)
        description = parameters.describe(name)
        ranges: dict[str, Any] = {}
        if description.bounds is not None:
            bounds = dict(zip(("from_value", "to_value"), description.bounds, strict=True))
            if description.kind is float:
                ranges["floating_point_range"] = [message("rcl_interfaces/msg/FloatingPointRange", **bounds)]
            else:
                ranges["integer_range"] = [message("rcl_interfaces/msg/IntegerRange", **bounds, step=1)]
        return message(
            "rcl_interfaces/msg/ParameterDescriptor",
            name=name,
            type=_TYPES[description.kind][0],
            description=description.text,
            additional_constraints=description.constraints,
            read_only=description.read_only,
            **ranges,
        )

    for name, service, callback in (
        ("get_parameters", "GetParameters", get),
        ("get_parameter_types", "GetParameterTypes", get_types),
        ("list_parameters", "ListParameters", list_names),
        ("describe_parameters", "DescribeParameters", describe),
        ("set_parameters", "SetParameters", set_each),
        ("set_parameters_atomically", "SetParametersAtomically", set_all),
    ):
        transport.create_service(f"~/{name}", f"rcl_interfaces/srv/{service}", callback)


def _prefixes(request: Message) -> tuple[str, ...]:
    return tuple(f"{prefix}." for prefix in request.prefixes)


def _unset() -> Message:
    return message("rcl_interfaces/msg/ParameterValue")


def _value(value: bool | int | float | str) -> Message:
    number, member = _TYPES[type(value)]
    return message("rcl_interfaces/msg/ParameterValue", type=number, **{member: value})


def _python_value(name: str, value: Message) -> bool | int | float | str:
    for number, member in _TYPES.values():
        if value.type == number:
            result: bool | int | float | str = getattr(value, member)
            return result
    raise ValueError(f"{name}: expected a bool, integer, double or string, received parameter type {value.type}")

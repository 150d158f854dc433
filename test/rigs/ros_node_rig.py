"""Nodes of the native ROS 2 transport, in a namespace of their own, and a number to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dfs_ros.messages.convert import message
from dfs_ros.transport import open_transport
from dfs_ros.transport.ros.transport import RosTransport

INT = "std_msgs/msg/Int32"


def integer(number: int) -> Any:
    return message(INT, data=number)


@pytest.fixture
def open_node(namespace: str) -> Iterator[Callable[..., RosTransport]]:
    opened: list[RosTransport] = []

    def make(name: str, *ros_arguments: str, **options: Any) -> RosTransport:
        arguments = ("--ros-args", *ros_arguments) if ros_arguments else ()
        transport = open_transport("ros", name, **{"namespace": namespace, "arguments": arguments} | options)
        assert isinstance(transport, RosTransport)
        opened.append(transport)
        return transport

    yield make
    for transport in opened:
        transport.shutdown()


@pytest.fixture
def talker(open_node: Callable[..., RosTransport]) -> RosTransport:
    return open_node("talker")


@pytest.fixture
def node(open_node: Callable[..., RosTransport]) -> RosTransport:
    return open_node("node")

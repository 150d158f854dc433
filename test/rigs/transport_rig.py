"""What tests of the in-process transport share: its bus, a number to send, and doing all there is to do."""

from __future__ import annotations

import pytest

from dfs_ros.messages.convert import message
from dfs_ros.transport.local import LocalBus, LocalTransport

INT = "std_msgs/msg/Int32"
SECOND = 10**9


def number(value: int) -> object:
    return message(INT, data=value)


@pytest.fixture
def bus() -> LocalBus:
    return LocalBus(start_ns=100 * SECOND)


def drain(transport: LocalTransport) -> int:
    """Spin until there is nothing to do; how many callbacks were made."""
    count = 0
    while transport.spin_once(0):
        count += 1
    return count

"""Another host gets no answer and no hearing unless it is invited; this host's participants always do."""

from __future__ import annotations

import socket

import pytest

from benchmarks.faults import two_hosts
from dfs_ros.transport.dds.this_host import keep_to_this_host, made_for_this_host


@pytest.mark.timeout(300)
def test_a_participant_of_another_host_gets_nothing_unless_it_is_invited() -> None:
    pytest.importorskip("cyclonedds")
    found = two_hosts.results()
    if isinstance(found, str):
        pytest.skip(found)
    closed, invited = found["default"], found["subnet"]
    assert (closed["other host received"], closed["node received from other host"]) == (0, 0)
    assert closed["same host received"] > 0 and closed["node received from same host"] > 0
    assert all(count > 0 for count in invited.values())


def test_sockets_that_are_made_meanwhile_are_limited_and_still_hear_this_host() -> None:
    def pair() -> tuple[socket.socket, socket.socket]:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    before = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    (udp, tcp), limited = made_for_this_host(pair)
    with before, udp, tcp:
        assert limited
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(60)
        before.sendto(b"depth", udp.getsockname())
        assert udp.recv(16) == b"depth"
        with pytest.raises(OSError, match=r"."):
            keep_to_this_host(_Closed())


class _Closed(socket.socket):
    """Socket that no longer is one."""

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.close()

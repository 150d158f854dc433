"""The depth node on simulated time, on a real ROS 2: its clock is /clock, also when that is set back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed, or its setup file is not sourced")
pytest.importorskip("dfs_ros.msg", reason="this package was not built with colcon, or its setup file not sourced")

from live_rig import LiveRig
from node_rig import ERROR, PLANE_M
from ros_rig import namespace, ros_domain

from dfs_ros.config import Config
from dfs_ros.messages.convert import message, time_message
from dfs_ros.transport import open_transport
from dfs_ros.types import FocalStack

__all__ = ["namespace", "ros_domain"]  # fixtures
pytestmark = pytest.mark.usefixtures("ros_domain")


class Clock:
    """Publishes /clock, fifty times a second, which began at `start_ns`."""

    def __init__(self, transport: Any, start_ns: int) -> None:
        self._publisher = transport.create_publisher("/clock", "rosgraph_msgs/msg/Clock")
        self._stop = threading.Event()
        self.set(start_ns)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def set(self, now_ns: int) -> None:
        self._began_ns = now_ns - time.monotonic_ns()

    def now_ns(self) -> int:
        return self._began_ns + time.monotonic_ns()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self._publisher.publish(message("rosgraph_msgs/msg/Clock", clock=time_message(self.now_ns())))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def clock(namespace: str) -> Iterator[Clock]:
    with open_transport("ros", "clock", namespace=namespace) as transport:
        clock = Clock(transport, 5000 * 10**9)
        yield clock
        clock.close()


@pytest.fixture
def live(namespace: str, plane: FocalStack, clock: Clock) -> Iterator[LiveRig]:
    def open_node(name: str, config: Config) -> Any:
        arguments = ("--ros-args", "-p", "use_sim_time:=true") if name == "dfs" else ()
        return open_transport("ros", name, namespace=namespace, config=config, arguments=arguments)

    rig = LiveRig(plane, open_node, {})
    yield rig
    rig.close()


def test_depth_and_silence_follow_the_clock_also_when_it_is_set_back(live: LiveRig, clock: Clock) -> None:
    live.listen("depth/image")
    assert abs(live.transport.now_ns() - clock.now_ns()) < 2 * 10**9
    assert live.next_depth_m(start_ns=clock.now_ns()) == pytest.approx(PLANE_M, rel=0.03)
    assert 5000 <= live.depths()[-1].header.stamp.sec < 5100
    live.forget()
    live.until(lambda: live.state()[0] == ERROR)
    assert 5000 <= live.states[-1].header.stamp.sec < 5100
    clock.set(1000 * 10**9)
    live.forget()
    live.until(lambda: live.states and 1000 <= live.states[-1].header.stamp.sec < 1100)
    assert live.next_depth_m(start_ns=clock.now_ns()) == pytest.approx(PLANE_M, rel=0.03)
    assert 1000 <= live.depths()[-1].header.stamp.sec < 1100
    live.forget()
    live.until(lambda: live.said("no image on", ERROR))  # noticed in the new time, not an hour later
    assert live.state()[2]["clock_reset"] == "1"
    latency_s = float(live.state()[2]["latency_s"])
    assert 0 <= latency_s < 10

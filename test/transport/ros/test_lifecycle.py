"""The lifecycle of native nodes, on a real ROS 2: every transition, twice; refusals; slow and failing configuration."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed, or its setup file is not sourced")
pytest.importorskip("dfs_ros.msg", reason="this package was not built with colcon, or its setup file not sourced")

from live_rig import LiveRig
from node_rig import FAST, PLANE_M
from ros_rig import namespace, ros_domain, until

from dfs_ros.config import Config
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.transport import open_transport
from dfs_ros.transport.ros.transport import RosTransport
from dfs_ros.types import FocalStack

__all__ = ["namespace", "ros_domain"]  # fixtures
pytestmark = pytest.mark.usefixtures("ros_domain")


OpenNode = Callable[[str, Config], RosTransport]


@pytest.fixture
def open_node(namespace: str) -> OpenNode:
    def make(name: str, config: Config) -> RosTransport:
        transport = open_transport("ros", name, namespace=namespace, config=config)
        assert isinstance(transport, RosTransport)
        return transport

    return make


class Asker:
    """Asks for transitions as `ros2 lifecycle` does: by rclpy's own classes."""

    def __init__(self, transport: RosTransport) -> None:
        self._node = transport.native_node
        self._target = f"{transport.namespace}/dfs"
        self._clients: dict[str, Any] = {}

    def _call(self, service: str, kind: str, timeout_s: float = 240, **transition: Any) -> Any:
        import lifecycle_msgs.msg
        import lifecycle_msgs.srv

        service_kind = getattr(lifecycle_msgs.srv, kind)
        if service not in self._clients:
            self._clients[service] = self._node.create_client(service_kind, f"{self._target}/{service}")
        client = self._clients[service]
        assert client.wait_for_service(timeout_s)
        request = service_kind.Request()
        if transition:
            request.transition = lifecycle_msgs.msg.Transition(**transition)
        future = client.call_async(request)
        until(future.done, timeout_s=timeout_s)
        return future.result()

    def change(self, label: str) -> bool:
        return bool(self._call("change_state", "ChangeState", label=label).success)

    def change_by_number(self, number: int) -> bool:
        return bool(self._call("change_state", "ChangeState", id=number).success)

    def state(self) -> str:
        return str(self._call("get_state", "GetState").current_state.label)


@pytest.fixture
def make_live(plane: FocalStack, open_node: OpenNode) -> Iterator[Callable[..., LiveRig]]:
    rigs: list[LiveRig] = []

    def make(**node: Any) -> LiveRig:
        rigs.append(LiveRig(plane, open_node, {"node": node}))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def endpoints(transport: RosTransport) -> tuple[list[str], list[str], int, int]:
    """What a node has, and what grows where something is left behind."""
    node = transport.native_node
    subscriptions = sorted(s.topic_name.removeprefix(transport.namespace) for s in node.subscriptions)
    publishers = sorted(p.topic_name.removeprefix(transport.namespace) for p in node.publishers)
    return subscriptions, publishers, len(list(node.waitables)), len(transport.executor.mailboxes)


def test_all_transitions_twice_leave_nothing_behind(make_live: Callable[..., LiveRig]) -> None:
    live = make_live(autostart=False)
    asker = Asker(live.listener)
    assert asker.state() == "unconfigured"
    assert "/image" not in endpoints(live.transport)[0]  # nothing comes in before it is active
    seen: dict[str, Any] = {}
    estimators: list[weakref.ref[Any]] = []
    for _ in range(3):
        assert asker.change("configure") and asker.state() == "inactive"
        (node,) = [n for n in gc.get_objects() if isinstance(n, DepthNode) and n._transport is live.transport]
        estimators.append(weakref.ref(node._estimator))
        assert asker.change("activate") and asker.state() == "active"
        live.listen(*([] if live.received else ["depth/image"]))
        live.meet()
        assert live.next_depth_m() == pytest.approx(PLANE_M, rel=0.03)
        for state in ("active", "inactive", "unconfigured"):
            if state != "active":
                assert asker.change({"inactive": "deactivate", "unconfigured": "cleanup"}[state])
                assert asker.state() == state
            assert ("/image" in endpoints(live.transport)[0]) == (state == "active")
            assert seen.setdefault(state, endpoints(live.transport)) == endpoints(live.transport)
        gc.collect()
        assert estimators[-1]() is None  # the network is given up
        # The pool of rclpy makes its threads as it needs them.
        names = sorted(t.name for t in threading.enumerate() if not t.name.startswith("ThreadPoolExecutor"))
        assert seen.setdefault("threads", names) == names
    assert asker.change("shutdown") and asker.state() == "finalized"
    live.forget()
    live.until(lambda: live.state()[2].get("state") == "inactive")  # it still says how it is


def test_it_starts_by_itself_and_can_be_paused(make_live: Callable[..., LiveRig]) -> None:
    live = make_live()
    live.listen("depth/image")
    asker = Asker(live.listener)
    assert asker.state() == "active"
    assert live.next_depth_m() == pytest.approx(PLANE_M, rel=0.03)
    assert asker.change("deactivate")
    live.until(lambda: live.publishers["image"].subscription_count() == 0)
    live.send_sweep()
    live.forget()
    live.until(lambda: live.state()[2].get("state") == "inactive")
    assert len(live.depths()) == 1
    assert asker.change("activate")
    live.forget()
    live.meet()
    assert live.next_depth_m() == pytest.approx(PLANE_M, rel=0.03)
    assert asker.change_by_number(7) and asker.state() == "finalized"  # TRANSITION_ACTIVE_SHUTDOWN


def test_transitions_that_the_state_does_not_have_are_refused(make_live: Callable[..., LiveRig]) -> None:
    live = make_live(autostart=False)
    asker = Asker(live.listener)
    for label in ("activate", "deactivate", "cleanup", "no_such_transition"):
        assert not asker.change(label)
    assert not asker.change_by_number(3) and not asker.change_by_number(200)
    assert asker.state() == "unconfigured"
    assert asker.change("configure") and not asker.change("configure") and asker.state() == "inactive"


class Slow:
    """A node whose configuration takes until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.calls: list[str] = []

    def configure(self) -> None:
        self.calls.append("configure")
        assert self.let_go.wait(30)

    def activate(self) -> None:
        self.calls.append("activate")

    def deactivate(self) -> None:
        self.calls.append("deactivate")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def asker(open_node: OpenNode) -> Iterator[Asker]:
    with open_node("asker", Config()) as transport:
        yield Asker(transport)


def test_while_it_configures_everything_else_goes_on(asker: Asker, open_node: OpenNode) -> None:
    slow, ticks = Slow(), []
    with open_node("dfs", Config()) as transport:
        transport.manage(slow)
        transport.create_timer(0.02, lambda: ticks.append(1))
        until(lambda: len(ticks) > 5 and slow.calls == ["configure"], transport)
        assert asker.state() == "configuring"
        assert not asker.change("shutdown")  # another transition is under way
        slow.let_go.set()
        until(lambda: slow.calls == ["configure", "activate"], transport)
        until(lambda: asker.state() == "active")


def test_while_it_configures_it_can_be_shut_down(asker: Asker, open_node: OpenNode) -> None:
    slow = Slow()
    transport = open_node("dfs", Config.from_dict({"node": {"autostart": False}}))
    transport.manage(slow)
    threading.Thread(target=lambda: asker.change("configure"), daemon=True).start()
    until(lambda: slow.calls, transport)
    closing = threading.Thread(target=transport.shutdown, daemon=True)
    closing.start()
    closing.join(20)  # less than it takes to be let go by itself
    assert not closing.is_alive() and not slow.let_go.is_set()
    slow.let_go.set()


def test_a_network_that_cannot_be_loaded_ends_a_node_that_starts_by_itself(open_node: OpenNode) -> None:
    config = Config.from_dict(FAST).updated({"network": {"name": "no_such_network"}})
    with (
        open_node("dfs", config) as transport,
        pytest.raises((ValueError, FileNotFoundError), match="no_such_network"),
        DepthNode(transport),
    ):
        transport.spin()


def test_a_network_that_cannot_be_loaded_leaves_the_node_unconfigured(asker: Asker, open_node: OpenNode) -> None:
    settings = {"network": {"name": "no_such_network"}, "node": {"autostart": False}}
    with open_node("dfs", Config.from_dict(FAST).updated(settings)) as transport, DepthNode(transport):
        spinning = threading.Thread(target=transport.spin)
        spinning.start()
        assert not asker.change("configure")
        assert asker.state() == "unconfigured"
        assert not asker.change("configure")  # and can be tried again
        transport.shutdown()
        spinning.join(60)

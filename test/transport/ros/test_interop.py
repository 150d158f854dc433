"""Native ROS 2 nodes and nodes of the DDS transport hear each other, and look alike to ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed, or its setup file is not sourced")
pytest.importorskip("dfs_ros.msg", reason="this package was not built with colcon, or its setup file not sourced")
pytest.importorskip("cyclonedds", reason="cyclonedds, which has no package for this machine, carries one side")

from live_rig import LiveRig
from node_rig import OUTPUTS, PLANE_M
from ros_rig import namespace, ros_domain, until

from dfs_ros.config import Config
from dfs_ros.messages.convert import CAMERA_INFO, FOCUS, IMAGE, TRIGGER, message
from dfs_ros.transport import open_transport
from dfs_ros.transport.dds.types import type_hash
from dfs_ros.types import FocalStack

__all__ = ["namespace", "ros_domain"]  # fixtures
pytestmark = pytest.mark.usefixtures("ros_domain")


@pytest.fixture
def make_live(namespace: str, plane: FocalStack) -> Iterator[Callable[..., LiveRig]]:
    rigs: list[LiveRig] = []

    def make(**kinds: str) -> LiveRig:
        def open_node(name: str, config: Config) -> Any:
            return open_transport(kinds[name], name, namespace=namespace, config=config)

        rigs.append(LiveRig(plane, open_node, {}))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.mark.parametrize(
    ("camera", "node", "listener"),
    [("ros", "dds", "ros"), ("dds", "ros", "dds"), ("dds", "dds", "ros"), ("ros", "ros", "dds")],
)
def test_camera_depth_node_and_listener_of_either_kind(
    make_live: Callable[..., LiveRig], camera: str, node: str, listener: str
) -> None:
    live = make_live(camera=camera, dfs=node, listener=listener)
    live.listen(*OUTPUTS)
    assert live.next_depth_m() == pytest.approx(PLANE_M, rel=0.03)
    live.until(lambda: all(live.received.values()))
    stamps = {(m[0].header.stamp.sec, m[0].header.stamp.nanosec, m[0].header.frame_id) for m in live.received.values()}
    assert len(stamps) == 1 and next(iter(stamps))[2] == "lens"
    answer = live.listener.call_service(
        "dfs/describe_parameters",
        "rcl_interfaces/srv/DescribeParameters",
        message("rcl_interfaces/srv/DescribeParameters_Request", names=["hypotheses.count"]),
        20,
    )
    assert answer.descriptors[0].description.startswith("Number of depth hypotheses in the range of the scene")


def test_ros_sees_both_kinds_alike(make_live: Callable[..., LiveRig], namespace: str) -> None:
    """Names, types, type hashes and profiles of the same node, once native and once by DDS, to a native third."""
    live = make_live(camera="dds", dfs="ros", listener="ros")
    live.meet()
    seen = live.listener.native_node

    with open_transport("dds", "twin", namespace=namespace) as twin:
        topics = {**OUTPUTS, "image": IMAGE, "camera_info": CAMERA_INFO, "focus": FOCUS}
        for topic in OUTPUTS:
            twin.create_publisher(topic, OUTPUTS[topic])
        for topic in ("image", "camera_info", "focus"):
            twin.create_subscription(topic, topics[topic], print, live.transport.subscriptions[0].qos)
        for topic in topics:
            ask = seen.get_publishers_info_by_topic if topic in OUTPUTS else seen.get_subscriptions_info_by_topic
            name = f"{namespace}/{topic}"
            until(lambda ask=ask, name=name: {"dfs", "twin"} <= {i.node_name for i in ask(name)})
            infos = {i.node_name: i for i in ask(name)}
            ours, theirs = infos["twin"], infos["dfs"]
            assert str(ours.topic_type_hash) == str(theirs.topic_type_hash) == type_hash(topics[topic])
            assert ours.topic_type == theirs.topic_type == topics[topic]
            for policy in ("reliability", "durability", "depth", "history"):
                assert getattr(ours.qos_profile, policy) == getattr(theirs.qos_profile, policy), (topic, policy)
        until(lambda: ("twin", namespace) in seen.get_node_names_and_namespaces())
        services = dict(seen.get_service_names_and_types_by_node("twin", namespace))
        assert services[f"{namespace}/twin/set_parameters"] == ["rcl_interfaces/srv/SetParameters"]


def test_services_of_the_other_kind_answer(namespace: str) -> None:
    import threading

    from dfs_ros.messages.convert import trigger_response

    for server, client in (("ros", "dds"), ("dds", "ros")):
        with open_transport(server, f"server_{server}", namespace=namespace) as serving:
            serving.create_service("~/capture", TRIGGER, lambda request: trigger_response(True, "café"))
            spinning = threading.Thread(target=serving.spin)
            spinning.start()
            with open_transport(client, f"client_{client}", namespace=namespace) as asking:
                name = f"{serving.full_name}/capture"
                answer = asking.call_service(name, TRIGGER, message(f"{TRIGGER}_Request"), 20)
                assert (answer.success, answer.message) == (True, "café")
            serving.shutdown()
            spinning.join(60)

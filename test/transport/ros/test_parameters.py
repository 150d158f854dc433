"""The native ROS 2 transport, on a real ROS 2: names, parameters, QoS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed, or its setup file is not sourced")
pytest.importorskip("dfs_ros.msg", reason="this package was not built with colcon, or its setup file not sourced")

from ros_node_rig import INT, node, open_node, talker
from ros_rig import namespace, ros_domain

from dfs_ros.config import Config
from dfs_ros.messages.convert import IMAGE, message
from dfs_ros.transport.base import RELIABLE, SENSOR_DATA, Qos
from dfs_ros.transport.ros.transport import RosTransport

__all__ = ["namespace", "node", "open_node", "ros_domain", "talker"]  # fixtures
pytestmark = pytest.mark.usefixtures("ros_domain")


def test_names_are_resolved_and_remapped_as_ros_does(open_node: Callable[..., RosTransport], namespace: str) -> None:
    node = open_node("node", "-r", "__node:=eye", "-r", "focus:=lens/focus", remappings={"image": "/camera/image_raw"})
    assert node.full_name == f"{namespace}/eye"
    assert node.resolve("image") == "/camera/image_raw"
    assert node.resolve("~/capture") == f"{namespace}/eye/capture"
    assert node.create_publisher("focus", INT).topic == f"{namespace}/lens/focus"
    assert node.create_subscription("image", IMAGE, print).topic == "/camera/image_raw"
    assert open_node("other", "-r", "__ns:=/robot").full_name == "/robot/other"


def describe(asker: RosTransport, name: str) -> Any:
    kind = "rcl_interfaces/srv/DescribeParameters"
    request = message(f"{kind}_Request", names=[name])
    return asker.call_service(f"{asker.namespace}/node/describe_parameters", kind, request, 20).descriptors[0]


def set_parameters(asker: RosTransport, *, atomically: bool = True, **values: Any) -> list[Any]:
    types = {bool: (1, "bool_value"), int: (2, "integer_value"), float: (3, "double_value"), str: (4, "string_value")}
    parameters = []
    for name, value in values.items():
        number, member = types[type(value)]
        parameter_value = message("rcl_interfaces/msg/ParameterValue", type=number, **{member: value})
        parameters.append(message("rcl_interfaces/msg/Parameter", name=name.replace("__", "."), value=parameter_value))
    kind = "rcl_interfaces/srv/SetParameters" + ("Atomically" if atomically else "")
    service = f"{asker.namespace}/node/set_parameters" + ("_atomically" if atomically else "")
    response = asker.call_service(service, kind, message(f"{kind}_Request", parameters=parameters), 20)
    return [response.result] if atomically else list(response.results)


def test_parameters_say_what_they_are(talker: RosTransport, node: RosTransport) -> None:
    depth = describe(talker, "hypotheses.max_depth_m")
    assert (depth.type, depth.read_only) == (3, False)
    assert depth.description.startswith("Farthest depth to search; 0: none")
    (bounds,) = depth.floating_point_range
    assert (bounds.from_value, bounds.to_value) == (0.0, 10000.0)
    count = describe(talker, "hypotheses.count")
    assert (count.type, count.integer_range[0].from_value, count.integer_range[0].to_value) == (2, 2, 512)
    method = describe(talker, "cost.method")
    assert (method.type, method.read_only) == (4, True)
    assert method.additional_constraints == "one of released, paper, residual"
    names = {name for name in node.parameters.names if not name.startswith(("dds.", "viewer."))}
    declared = {p for p in node.native_node.get_parameters_by_prefix("") if "qos_overrides" not in p}
    assert declared - {"use_sim_time", "start_type_description_service"} == names


def test_live_parameters_change_all_or_none(talker: RosTransport, node: RosTransport) -> None:
    (good,) = set_parameters(talker, hypotheses__count=48, hypotheses__max_depth_m=5)  # whole: means 5.0
    assert (good.successful, good.reason) == (True, "")
    hypotheses = node.parameters.config.hypotheses
    assert (hypotheses.count, hypotheses.max_depth_m) == (48, 5.0)
    assert node.native_node.get_parameter("hypotheses.max_depth_m").value == 5.0
    for nonsense, reason in (
        ({"hypotheses__count": 32, "hypotheses__max_depth_m": -1.0}, "out of range"),
        ({"hypotheses__count": 32, "hypotheses__min_depth_m": 9.0}, "expected min_depth_m < max_depth_m"),
        ({"hypotheses__count": 32, "hypotheses__max_depth_m": float("nan")}, "max_depth_m"),
        ({"hypotheses__count": 32, "network__name": "other"}, "read-only"),
        ({"hypotheses__count": 32, "hypotheses__spacing": "logarithmic"}, "expected one of inverse, linear"),
        ({"hypotheses__count": "many"}, "Wrong parameter type"),
        ({"hypotheses__cuont": 32}, "undeclared parameter"),
    ):
        (refused,) = set_parameters(talker, **nonsense)
        assert not refused.successful and reason in refused.reason, nonsense
    assert node.parameters.config.hypotheses == hypotheses
    assert node.native_node.get_parameter("hypotheses.count").value == 48
    each = set_parameters(talker, atomically=False, hypotheses__count=1, hypotheses__max_depth_m=6.0)
    assert [one.successful for one in each] == [False, True]
    assert node.parameters.get("hypotheses.max_depth_m") == 6.0


def test_parameters_of_the_command_line(open_node: Callable[..., RosTransport], tmp_path: Any) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text("/**:\n  ros__parameters:\n    lens: {f_number: 2}\n    hypotheses: {count: 12}\n")
    base = Config.from_dict({"network": {"name": "none"}})
    arguments = ("--params-file", str(file), "-p", "hypotheses.count:=9")
    config = open_node("node", *arguments, config=base).parameters.config
    assert (config.lens.f_number, config.hypotheses.count, config.network.name) == (2.0, 9, "none")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("hypotheses.cuont:=9", "hypotheses.cuont: unknown setting; did you mean 'count'"),
        ("hypothesis.count:=9", "hypothesis: unknown section; did you mean 'hypotheses'"),
        ("count:=9", "parameter count: no such parameter"),
        ("viewer.port:=9", "parameter viewer.port: no such parameter of this node"),
        ("hypotheses.count:=many", "hypotheses.count: expected int, received 'many'"),
        ("hypotheses.count:=1000", "hypotheses.count: expected 2 to 512, received 1000"),
        ("hypotheses.max_depth_m:=[1.0, 2.0]", "hypotheses.max_depth_m: expected float"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    open_node: Callable[..., RosTransport], argument: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words.replace("(", "\\(")):
        open_node("node", "-p", argument)


def test_ros_arguments_that_make_no_sense_are_refused(open_node: Callable[..., RosTransport]) -> None:
    with pytest.raises(ValueError, match="ROS arguments"):
        open_node("node", "--no-such-option")
    with pytest.raises(ValueError, match="node name: expected letters"):
        open_node("no-de")


def test_the_profile_of_every_topic_can_be_overridden(open_node: Callable[..., RosTransport], namespace: str) -> None:
    number, image = f"qos_overrides.{namespace}/number.publisher", f"qos_overrides.{namespace}/image.subscription"
    node = open_node(
        *("node", "-p", f"{number}.reliability:=best_effort", "-p", f"{number}.depth:=2"),
        *("-p", f"{image}.reliability:=reliable", "-p", f"{image}.depth:=7"),
    )
    assert node.create_publisher("number", INT).qos == Qos(reliable=False, depth=2)
    subscription = node.create_subscription("image", IMAGE, print)
    assert subscription.qos == Qos(reliable=True, depth=7)
    assert node.create_publisher("plain", INT).qos == RELIABLE
    assert node.create_subscription("plain", INT, print).qos == SENSOR_DATA
    node.unsubscribe(subscription)
    assert node.create_subscription("image", IMAGE, print).qos.depth == 7  # and again
    bad = open_node("bad", "-p", f"{number}.reliability:=perhaps")
    with pytest.raises(ValueError, match="perhaps"):
        bad.create_publisher("number", INT)

"""What all transports share, on the in-process one: services, parameters, diagnostics, log."""

from __future__ import annotations

import logging
import threading

import pytest
from transport_rig import INT, SECOND, bus, drain, number

from dfs_ros.config import Config
from dfs_ros.messages.convert import DIAGNOSTICS, TRIGGER, Diagnostic, message, trigger_response
from dfs_ros.transport.base import Qos
from dfs_ros.transport.local import LocalBus, LocalTransport

__all__ = ["bus"]  # fixtures


def test_services_answer_from_the_spin_thread():
    bus = LocalBus()
    server, client = LocalTransport("server", bus, namespace="/robot"), LocalTransport("client", bus)
    callers = []

    def capture(request):
        callers.append(threading.current_thread())
        return trigger_response(True, "took it")

    server.create_service("~/capture", TRIGGER, capture)
    with pytest.raises(ValueError, match="there is one already"):
        server.create_service("~/capture", TRIGGER, capture)
    request = message(f"{TRIGGER}_Request")
    with pytest.raises(TimeoutError, match="no answer within"):
        client.call_service("/robot/server/capture", TRIGGER, request, timeout_s=0.02)
    with pytest.raises(TimeoutError, match="nobody serves it"):
        client.call_service("/capture", TRIGGER, request, timeout_s=0.02)
    thread = threading.Thread(target=server.spin, daemon=True)
    thread.start()
    response = client.call_service("/robot/server/capture", TRIGGER, request, timeout_s=240)
    server.shutdown()
    thread.join(240)
    assert (response.success, response.message) == (True, "took it")
    assert callers == [thread, thread]  # the unanswered call was answered late


def test_parameters_change_as_a_whole(bus):
    node = LocalTransport("node", bus, config=Config.from_dict({"hypotheses": {"count": 32}}))
    assert node.parameters.get("hypotheses.count") == 32
    node.parameters.set({"hypotheses.count": 48, "hypotheses.min_depth_m": 1, "hypotheses.max_depth_m": 10})
    changed = node.parameters.config
    assert (changed.hypotheses.count, changed.hypotheses.min_depth_m) == (48, 1.0)
    for values, match in (
        ({"hypotheses.count": 1}, "expected 2 to 512, received 1"),
        ({"hypotheses.count": 64, "hypotheses.min_depth_m": 20.0}, "min_depth_m < max_depth_m"),
        ({"hypotheses.count": "many"}, "expected int"),
        ({"hypotheses.cuont": 3}, "no 'hypotheses.cuont'"),
        ({"count": 3}, "no 'count'"),
        ({"dds.domain_id": 3}, "cannot change while the node runs"),
    ):
        with pytest.raises(ValueError, match=match):
            node.parameters.set(values)
    assert node.parameters.config is changed


def test_parameter_services_as_ros2_param_calls_them():
    bus = LocalBus()
    node, tool = LocalTransport("node", bus), LocalTransport("tool", bus)
    thread = threading.Thread(target=node.spin, daemon=True)
    thread.start()

    def call(service, **fields):
        kind = "rcl_interfaces/srv/" + "".join(word.capitalize() for word in service.split("_"))
        return tool.call_service(f"/node/{service}", kind, message(f"{kind}_Request", **fields), timeout_s=240)

    def value(**fields):
        return message("rcl_interfaces/msg/ParameterValue", **fields)

    def parameter(name, **fields):
        return message("rcl_interfaces/msg/Parameter", name=name, value=value(**fields))

    names = ["hypotheses.count", "hypotheses.max_depth_m", "cost.method", "confidence.dense", "nothing"]
    got = call("get_parameters", names=names).values
    assert [v.type for v in got] == [2, 3, 4, 1, 0]
    assert (got[0].integer_value, got[1].double_value) == (61, 0.0)
    assert (got[2].string_value, got[3].bool_value) == ("residual", False)
    assert list(call("get_parameter_types", names=names).types) == [2, 3, 4, 1, 0]
    listed = call("list_parameters", prefixes=["hypotheses"]).result
    settings = ("count", "spacing", "min_depth_m", "max_depth_m", "interpolate_to")
    assert set(listed.names) == {f"hypotheses.{n}" for n in settings}
    assert set(names[:4]) <= set(call("list_parameters").result.names)
    count, depth, method, nothing = call("describe_parameters", names=[*names[:3], "nothing"]).descriptors
    assert (count.integer_range[0].from_value, count.integer_range[0].to_value, count.read_only) == (2, 512, False)
    assert depth.floating_point_range[0].to_value == 10000.0 and depth.description.endswith("[m]")
    assert "released" in method.additional_constraints and nothing.type == 0
    results = call(
        "set_parameters",
        parameters=[
            parameter("hypotheses.count", type=2, integer_value=16),
            parameter("hypotheses.count", type=2, integer_value=10**6),
            parameter("hypotheses.count", type=7),
            parameter("nothing", type=1),
        ],
    ).results
    assert [r.successful for r in results] == [True, False, False, False]
    assert "expected 2 to 512" in results[1].reason and "parameter type 7" in results[2].reason
    both = [parameter("hypotheses.count", type=2, integer_value=99), parameter("cost.method", type=4, string_value="x")]
    assert not call("set_parameters_atomically", parameters=both).result.successful
    assert node.parameters.get("hypotheses.count") == 16
    node.shutdown()
    thread.join(240)


def test_diagnostics_once_a_second_with_what_got_lost(bus):
    node, tool = LocalTransport("node", bus), LocalTransport("tool", bus)
    node.add_diagnostic("rate", lambda: Diagnostic("OK", "fine", {"Hz": 5}))
    bus.advance_to(101 * SECOND)
    drain(node)  # nobody listens
    arrays = []
    tool.create_subscription("/diagnostics", DIAGNOSTICS, arrays.append)
    node.create_subscription("n", INT, lambda m: None, Qos(True, 1))
    publisher = node.create_publisher("n", INT)
    for second in (102, 103):
        bus.advance_to(second * SECOND)
        drain(node)
        drain(tool)
        publisher.publish(number(1))
        publisher.publish(number(2))
        publisher.publish(number(3))
    first, second = ({s.name: s for s in array.status} for array in arrays)
    assert first["node: rate"].message == "fine" and first["node: rate"].values[0].value == "5"
    assert first["node: transport"].level == 0
    assert second["node: transport"].level == 1
    assert second["node: transport"].message.startswith("2 messages dropped")
    values = {v.key: v.value for v in second["node: transport"].values}
    assert (values["/n received"], values["/n dropped"], values["/n published"]) == ("3", "2", "3")
    assert arrays[1].header.stamp.sec == 103


def test_log_levels_and_repetition(caplog):
    node = LocalTransport("node")
    with caplog.at_level(logging.DEBUG, logger="dfs_ros"):  # which the command line may have set otherwise
        for i in range(5):
            node.log("warning", f"again {i}", key="again", every_s=60)
            node.log("debug", "always")
        node.log("fatal", "100 % lost")
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == ["again 0"]
    assert sum(r.message == "always" for r in caplog.records) == 5
    assert caplog.records[-1].message == "100 % lost" and caplog.records[-1].name == "dfs_ros.node"
    with pytest.raises(ValueError, match="level: expected one of debug, info"):
        node.log("loud", "x")

"""The in-process transport and what all transports share: names, order of callbacks, drops, services, parameters."""

from __future__ import annotations

import logging
import sys
import threading

import numpy as np
import pytest

from dfs_ros.config import Config
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import LATCHED, RELIABLE, SENSOR_DATA, Qos, TransportError
from dfs_ros.transport.executor import Executor
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.transport.messages import DIAGNOSTICS, IMAGE, TRIGGER, Diagnostic, image_message, message, trigger_response
from dfs_ros.transport.names import parse_remappings, resolve_name

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


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("image", "/robot/image"), ("a/b", "/robot/a/b"), ("/image", "/image"), ("~/capture", "/robot/dfs/capture")],
)
def test_names_resolve_as_in_ros(name, expected):
    assert resolve_name(name, "dfs", "/robot") == expected
    assert LocalTransport("dfs", namespace="robot/").resolve(name) == expected


def test_names_in_the_root_namespace():
    assert [resolve_name(n, "dfs", "/") for n in ("image", "~/capture")] == ["/image", "/dfs/capture"]
    assert LocalTransport("dfs").full_name == "/dfs"
    assert LocalTransport("dfs", namespace="/a/b").full_name == "/a/b/dfs"


def test_remapping_by_written_or_absolute_name():
    by_written = parse_remappings(["image:=/camera/image_raw", "~/capture:=shoot"])
    assert resolve_name("image", "dfs", "/robot", by_written) == "/camera/image_raw"
    assert resolve_name("/robot/image", "dfs", "/robot", by_written) == "/camera/image_raw"
    assert resolve_name("~/capture", "dfs", "/robot", by_written) == "/robot/shoot"
    assert resolve_name("focus", "dfs", "/robot", {"/robot/focus": "lens"}) == "/robot/lens"
    for wrong in ("image", "image:=", ":=image"):
        with pytest.raises(ValueError, match="FROM:=TO"):
            parse_remappings([wrong])


@pytest.mark.parametrize("name", ["", "/", "a b", "a//b", "1a", "a/", "a-b", "a__b", "~", "bäh", "a\n"])
def test_names_that_ros_does_not_allow_are_refused(name):
    with pytest.raises(ValueError, match="name: expected"):
        resolve_name(name, "dfs", "/")
    with pytest.raises(ValueError, match="node name: expected"):
        LocalTransport("a/" + name)


# --- messages --------------------------------------------------------------------------------------------------------


def test_messages_pass_by_reference_to_every_subscription_in_order(bus):
    talker, one, two = (LocalTransport(name, bus) for name in ("talker", "one", "two"))
    received = []
    one.create_subscription("image", IMAGE, lambda msg: received.append(("one", msg)))
    two.create_subscription("image", IMAGE, lambda msg: received.append(("two", msg)))
    publisher = talker.create_publisher("image", IMAGE)
    assert publisher.subscription_count() == 2
    pixels = np.zeros((2, 3), np.uint8)
    msg = image_message(pixels, 7, "cam")
    publisher.publish(msg)
    assert received == []  # nothing runs in the publisher's thread
    assert two.spin_once(0) and one.spin_once(0) and not one.spin_once(0)
    assert [name for name, _ in received] == ["two", "one"]
    assert all(got is msg for _, got in received)
    assert np.shares_memory(received[0][1].data, pixels)


def test_a_slow_node_gets_the_newest_and_the_rest_is_counted(bus):
    talker, listener = LocalTransport("talker", bus), LocalTransport("listener", bus)
    received: list[int] = []
    subscription = listener.create_subscription("n", INT, lambda m: received.append(m.data), Qos(False, depth=3))
    publisher = talker.create_publisher("n", INT)
    for i in range(10):
        publisher.publish(number(i))
    assert drain(listener) == 3
    assert received == [7, 8, 9]
    assert (subscription.received, subscription.dropped, publisher.published) == (10, 7, 10)


@pytest.mark.parametrize(
    ("offered", "requested", "matches"),
    [
        (RELIABLE, RELIABLE, True),
        (RELIABLE, SENSOR_DATA, True),
        (SENSOR_DATA, SENSOR_DATA, True),
        (SENSOR_DATA, RELIABLE, False),
        (RELIABLE, LATCHED, False),
        (LATCHED, RELIABLE, True),
        (LATCHED, LATCHED, True),
    ],
)
def test_qos_matches_as_in_dds_and_mismatches_are_reported(bus, caplog, offered, requested, matches):
    talker, listener = LocalTransport("talker", bus), LocalTransport("listener", bus)
    received: list[int] = []
    subscription = listener.create_subscription("n", INT, lambda m: received.append(m.data), requested)
    publisher = talker.create_publisher("n", INT, offered)
    publisher.publish(number(1))
    drain(listener)
    assert received == [1] * matches
    assert publisher.subscription_count() == subscription.publisher_count() == int(matches)
    assert ("no messages will pass" in caplog.text) is not matches


def test_other_types_and_topics_do_not_match(bus, caplog):
    talker, listener = LocalTransport("talker", bus), LocalTransport("listener", bus)
    listener.create_subscription("n", "std_msgs/msg/Int64", lambda m: pytest.fail("another type"))
    listener.create_subscription("/other/n", INT, lambda m: pytest.fail("another topic"))
    publisher = talker.create_publisher("n", INT)
    publisher.publish(number(1))
    assert drain(listener) == 0 and publisher.subscription_count() == 0
    assert "std_msgs/msg/Int32" in caplog.text and "std_msgs/msg/Int64" in caplog.text
    with pytest.raises(ValueError, match="/n: expected a std_msgs/msg/Int32"):
        publisher.publish(message("std_msgs/msg/Int64", data=1))
    with pytest.raises(ValueError, match="message type: expected"):
        talker.create_publisher("n", "Int32")
    with pytest.raises(ValueError, match=r"qos\.depth"):
        Qos(True, 0)


def test_late_subscriptions_get_what_is_latched(bus):
    talker, listener = LocalTransport("talker", bus), LocalTransport("listener", bus)
    publisher = talker.create_publisher("n", INT, Qos(True, depth=2, latched=True))
    for i in range(4):
        publisher.publish(number(i))
    latched: list[int] = []
    volatile: list[int] = []
    listener.create_subscription("n", INT, lambda m: latched.append(m.data), Qos(True, 5, latched=True))
    listener.create_subscription("n", INT, lambda m: volatile.append(m.data), RELIABLE)
    drain(listener)
    publisher.publish(number(4))
    drain(listener)
    assert (latched, volatile) == ([2, 3, 4], [4])


def test_a_value_error_refuses_one_message_and_the_node_goes_on(bus, caplog):
    talker, listener = LocalTransport("talker", bus), LocalTransport("listener", bus)
    received: list[int] = []

    def take(msg):
        if msg.data < 0:
            raise ValueError("expected 0 or more")
        received.append(msg.data)

    subscription = listener.create_subscription("n", INT, take)
    publisher = talker.create_publisher("n", INT)
    for value in (1, -1, -2, 2):
        publisher.publish(number(value))
    assert drain(listener) == 4
    assert (received, subscription.refused) == ([1, 2], 2)
    refusals = [r for r in caplog.records if "message refused: expected 0 or more" in r.message]
    assert len(refusals) == 1 and refusals[0].levelname == "ERROR"  # one line, not one a message


def test_other_exceptions_end_the_spinning(bus):
    talker, listener = LocalTransport("talker", bus), LocalTransport("listener", bus)
    listener.create_subscription("n", INT, lambda m: 1 // m.data)
    talker.create_publisher("n", INT).publish(number(0))
    with pytest.raises(ZeroDivisionError):
        listener.spin()
    assert not listener.spin_once(0)  # and it can be spun again


def test_publishing_from_many_threads_loses_nothing():
    bus = LocalBus()
    talker, listener = LocalTransport("talker", bus), LocalTransport("listener", bus)
    received: list[int] = []
    threads_seen = set()

    def take(msg):
        threads_seen.add(threading.current_thread())
        received.append(msg.data)
        if len(received) == 400:
            listener.shutdown()

    listener.create_subscription("n", INT, take, Qos(True, 400))
    publisher = talker.create_publisher("n", INT)
    threads = [
        threading.Thread(target=lambda k=k: [publisher.publish(number(100 * k + i)) for i in range(100)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    listener.spin()
    for thread in threads:
        thread.join()
    assert sorted(received) == list(range(400))
    assert threads_seen == {threading.current_thread()}
    for k in range(4):  # each thread's messages stay in order
        mine = [v for v in received if v // 100 == k]
        assert mine == sorted(mine)


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_set_clock_makes_timers_and_messages_come_in_order(bus):
    node = LocalTransport("node", bus)
    events: list[object] = []
    node.create_timer(1.0, lambda: events.append(("tick", node.now_ns() // SECOND)))
    node.create_subscription("n", INT, lambda m: events.append(m.data), RELIABLE)
    publisher = node.create_publisher("n", INT)
    assert drain(node) == 0
    publisher.publish(number(1))
    bus.advance_to(101 * SECOND)
    publisher.publish(number(2))
    assert drain(node) == 3
    assert events == [1, ("tick", 101), 2]
    bus.advance_to(105 * SECOND + SECOND // 2)
    assert drain(node) == 1  # calls missed are not made up for
    bus.advance_to(106 * SECOND)
    assert drain(node) == 1
    assert events[3:] == [("tick", 105), ("tick", 106)]
    with pytest.raises(ValueError, match="or later"):
        bus.advance_to(0)
    with pytest.raises(ValueError, match="machine's clock"):
        LocalBus().advance_to(0)
    with pytest.raises(ValueError, match="period_s"):
        node.create_timer(0, print)


def test_timers_on_the_machines_clock_keep_their_rate_and_stop():
    node = LocalTransport("node")
    times = []

    def tick():
        times.append(node.now_ns())
        if len(times) == 5:
            timer.cancel()
            node.create_timer(0.05, node.shutdown)

    started = node.now_ns()
    timer = node.create_timer(0.01, tick)
    node.spin()
    assert len(times) == 5  # cancelled from within its own callback
    assert times[-1] - started >= 0.049 * SECOND  # five periods, however late each call came


def test_a_busy_timer_does_not_starve_messages(bus):
    node = LocalTransport("node", bus)
    seen: list[str] = []
    node.create_timer(0.1, lambda: seen.append("timer") or bus.advance_to(bus.now_ns() + SECOND))
    node.create_subscription("n", INT, lambda m: seen.append("message"), Qos(True, 50))
    publisher = node.create_publisher("n", INT)
    bus.advance_to(bus.now_ns() + SECOND)
    for i in range(3):
        publisher.publish(number(i))
    for _ in range(6):
        node.spin_once(0)
    assert seen.count("message") == 3


def test_spin_once_waits_no_longer_than_it_is_told():
    node = LocalTransport("node")
    assert node.spin_once(0.01) is False
    threading.Timer(0.02, lambda: node.call_soon(lambda: None)).start()
    assert node.spin_once(5) is True


def test_spinning_twice_is_refused():
    executor = Executor()
    problems = []

    def again():
        try:
            executor.run_once(0)
        except RuntimeError as error:
            problems.append(str(error))

    executor.call_soon(again)
    executor.run_once(1)
    assert problems and "one thread" in problems[0]
    executor.call_soon(lambda: None)
    assert executor.run_once(0)


# --- services, parameters, diagnostics -------------------------------------------------------------------------------


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
    thread = threading.Thread(target=server.spin)
    thread.start()
    response = client.call_service("/robot/server/capture", TRIGGER, request, timeout_s=5)
    server.shutdown()
    thread.join(5)
    assert (response.success, response.message) == (True, "took it")
    assert callers == [thread, thread]  # the unanswered call was answered late


def test_parameters_change_as_a_whole_and_tell_the_node(bus):
    node = LocalTransport("node", bus, config=Config.from_dict({"hypotheses": {"count": 32}}))
    seen: list[Config] = []
    node.parameters.on_change(seen.append)
    assert node.parameters.get("hypotheses.count") == 32
    node.parameters.set({"hypotheses.count": 48, "hypotheses.min_depth_m": 1})
    assert seen == []  # told by the spin thread
    assert drain(node) == 1
    assert (seen[0].hypotheses.count, seen[0].hypotheses.min_depth_m) == (48, 1.0)
    assert seen[0] is node.parameters.config
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
    assert node.parameters.config is seen[0] and drain(node) == 0


def test_parameter_services_as_ros2_param_calls_them():
    bus = LocalBus()
    node, tool = LocalTransport("node", bus), LocalTransport("tool", bus)
    thread = threading.Thread(target=node.spin)
    thread.start()

    def call(service, **fields):
        kind = "rcl_interfaces/srv/" + "".join(word.capitalize() for word in service.split("_"))
        return tool.call_service(f"/node/{service}", kind, message(f"{kind}_Request", **fields), timeout_s=5)

    def value(**fields):
        return message("rcl_interfaces/msg/ParameterValue", **fields)

    def parameter(name, **fields):
        return message("rcl_interfaces/msg/Parameter", name=name, value=value(**fields))

    names = ["hypotheses.count", "hypotheses.max_depth_m", "cost.method", "confidence.dense", "nothing"]
    got = call("get_parameters", names=names).values
    assert [v.type for v in got] == [2, 3, 4, 1, 0]
    assert (got[0].integer_value, got[1].double_value) == (64, 10.0)
    assert (got[2].string_value, got[3].bool_value) == ("residual", False)
    assert list(call("get_parameter_types", names=names).types) == [2, 3, 4, 1, 0]
    listed = call("list_parameters", prefixes=["hypotheses"]).result
    assert set(listed.names) == {f"hypotheses.{n}" for n in ("count", "spacing", "min_depth_m", "max_depth_m")}
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
    thread.join(5)


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


# --- coming and going ------------------------------------------------------------------------------------------------


def test_shutdown_ends_spin_and_leaves_the_bus(bus):
    talker = LocalTransport("talker", bus)
    publisher = talker.create_publisher("n", INT)
    received: list[int] = []
    with LocalTransport("listener", bus) as listener:
        subscription = listener.create_subscription("n", INT, lambda m: received.append(m.data))
        publisher.publish(number(1))
        threading.Timer(0.02, listener.shutdown).start()
        listener.spin()
    assert received == [1]
    assert listener.is_shutdown and publisher.subscription_count() == 0
    publisher.publish(number(2))
    assert listener.spin_once(0) is False and subscription.publisher_count() == 0
    listener.shutdown()  # again: harmless
    talker.shutdown()
    publisher.publish(number(3))
    assert (publisher.published, publisher.subscription_count()) == (2, 0)
    assert bus.publishers == [] and bus.subscriptions == [] and bus.services == {} and bus.executors == []


def test_closing_a_subscription_drops_what_waits(bus):
    node = LocalTransport("node", bus)
    subscription = node.create_subscription("n", INT, lambda m: pytest.fail("closed"))
    publisher = node.create_publisher("n", INT)
    publisher.publish(number(1))
    subscription.close()
    subscription.close()
    publisher.publish(number(2))
    assert drain(node) == 0 and publisher.subscription_count() == 0 and subscription.received == 1


def test_open_transport_says_what_is_wrong(monkeypatch):
    with pytest.raises(ValueError, match="expected one of auto, ros, dds, local, received 'zenoh'"):
        open_transport("zenoh", "node")
    assert isinstance(open_transport("local", "node"), LocalTransport)
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(TransportError, match=r"native ROS 2 cannot be used.*rclpy.*use transport dds"):
        open_transport("ros", "node")
    monkeypatch.setitem(sys.modules, "cyclonedds", None)
    for kind in ("dds", "auto"):
        with pytest.raises(TransportError, match="install ROS 2, source its setup file"):
            open_transport(kind, "node")

"""The in-process transport: messages, drops, timers, order of callbacks, coming and going."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
from transport_rig import INT, SECOND, bus, drain, number

from dfs_ros.messages.convert import DIAGNOSTICS, IMAGE, Diagnostic, image_message, message
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import LATCHED, RELIABLE, SENSOR_DATA, Qos, TransportError
from dfs_ros.transport.executor import Executor
from dfs_ros.transport.local import LocalBus, LocalTransport

__all__ = ["bus"]  # fixtures

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
    assert (received, subscription.faults["refused"]) == ([1, 2], 2)
    refusals = [r for r in caplog.records if "message refused: expected 0 or more" in r.message]
    assert len(refusals) == 1 and refusals[0].levelname == "ERROR"  # one line, not one a message


def test_what_must_end_the_spinning_does_so_after_earlier_work(bus):
    talker, listener = LocalTransport("talker", bus), LocalTransport("listener", bus)
    received: list[int] = []
    listener.create_subscription("n", INT, lambda m: received.append(1 // m.data))
    publisher = talker.create_publisher("n", INT)
    publisher.publish(number(0))
    publisher.publish(number(1))
    listener.end(OSError("the disk is full"))
    with pytest.raises(OSError, match="the disk is full"):
        listener.spin()
    assert received == [1]
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
        times.append(node.steady_ns())
        if len(times) == 5:
            timer.cancel()
            node.create_timer(0.05, node.shutdown)

    started = node.steady_ns()  # the clock of timers, which is never set
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


def test_spin_once_waits_no_longer_than_it_is_told(bus):
    node = LocalTransport("node", bus)  # no timer is due by a clock that stands
    assert node.spin_once(0.01) is False
    threading.Timer(0.02, lambda: node.call_soon(lambda: None)).start()
    assert node.spin_once(240) is True


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


# --- coming and going ------------------------------------------------------------------------------------------------


def test_shutdown_ends_spin_and_leaves_the_bus(bus):
    talker = LocalTransport("talker", bus)
    publisher = talker.create_publisher("n", INT)
    received: list[int] = []
    with LocalTransport("listener", bus) as listener:
        ending = threading.Timer(0.02, listener.shutdown)

        def take(msg):
            received.append(msg.data)
            ending.start()

        subscription = listener.create_subscription("n", INT, take)
        publisher.publish(number(1))
        listener.spin()
        ending.join()
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


def test_diagnostics_carry_the_namespace() -> None:
    bus = LocalBus(start_ns=10**18)
    names: list[str] = []
    listener = LocalTransport("listener", bus)
    listener.create_subscription("/diagnostics", DIAGNOSTICS, lambda msg: names.extend(s.name for s in msg.status))
    for namespace in ("/", "/left"):
        node = LocalTransport("dfs", bus, namespace=namespace)
        node.add_diagnostic("depth", lambda: Diagnostic("OK", "", {}))
        bus.advance_to(bus.now_ns() + 10**9)
        while node.spin_once(0) or listener.spin_once(0):
            pass
    assert {"dfs: depth", "dfs: transport", "left/dfs: depth", "left/dfs: transport"} == set(names)

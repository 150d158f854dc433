"""The native ROS 2 transport, on a real ROS 2: values, drops, services, time, shutdown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed, or its setup file is not sourced")
pytest.importorskip("dfs_ros.msg", reason="this package was not built with colcon, or its setup file not sourced")

from ros_node_rig import INT, integer, node, open_node, talker
from ros_rig import namespace, ros_domain, until

from dfs_ros.messages.convert import FOCUS, IMAGE, TRIGGER, image_message, message, stamp_ns, trigger_response
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import LATCHED, RELIABLE, Qos, TransportError
from dfs_ros.transport.ros.transport import RosTransport

__all__ = ["namespace", "node", "open_node", "ros_domain", "talker"]  # fixtures
pytestmark = pytest.mark.usefixtures("ros_domain")

CLOCK = "rosgraph_msgs/msg/Clock"

# --- values ----------------------------------------------------------------------------------------------------------


def test_images_arrive_byte_by_byte_in_the_thread_that_spins(talker: RosTransport, node: RosTransport) -> None:
    received, threads = [], set()
    node.create_subscription("image", IMAGE, lambda m: received.append(m) or threads.add(threading.get_ident()))
    publisher = talker.create_publisher("image", IMAGE)
    until(publisher.subscription_count)
    pixels = np.arange(480 * 640 * 3, dtype=np.uint32).reshape(480, 640, 3)
    for i in range(3):
        stamp = 1_700_000_000_123_456_789 + i * 33_333_333
        publisher.publish(image_message((pixels * (i + 1) % 251).astype(np.uint8), stamp, "optical"))
        until(lambda wanted=i + 1: len(received) == wanted, node)
        assert stamp_ns(received[i].header.stamp) == stamp
        assert (received[i].header.frame_id, received[i].encoding) == ("optical", "rgb8")
        np.testing.assert_array_equal(received[i].data.reshape(480, 640, 3), pixels * (i + 1) % 251)
    assert threads == {threading.get_ident()}
    assert publisher.published == 3


def test_rclpy_reads_what_we_write_and_we_what_rclpy_writes(node: RosTransport) -> None:
    """Against rclpy's own classes, whose code made them from the definitions that ROS installs."""
    from array import array

    import rclpy.serialization
    from sensor_msgs.msg import Image

    from dfs_ros.messages.definitions import deserialize, serialize

    pixels = np.arange(3 * 5, dtype=np.uint8).reshape(3, 5)
    native = rclpy.serialization.deserialize_message(
        bytes(serialize(image_message(pixels, 12_000_000_034, "x"), IMAGE)), Image
    )
    assert (native.height, native.width, native.step, native.encoding) == (3, 5, 5, "mono8")
    assert (native.header.stamp.sec, native.header.stamp.nanosec) == (12, 34)
    assert native.data == array("B", range(15))
    back = deserialize(rclpy.serialization.serialize_message(native), IMAGE)
    np.testing.assert_array_equal(back.data, pixels.reshape(-1))


def test_focus_metadata_has_the_type_of_the_built_package(talker: RosTransport, node: RosTransport) -> None:
    received: list[Any] = []
    node.create_subscription("focus", FOCUS, received.append)
    publisher = talker.create_publisher("focus", FOCUS)
    until(publisher.subscription_count)
    publisher.publish(message(FOCUS, focus_diopters=1.25, raw_unit="steps", sweep_id=7, index=2, count=5))
    until(lambda: received, node)
    assert (received[0].focus_diopters, received[0].raw_unit) == (1.25, "steps")
    assert (received[0].sweep_id, received[0].index, received[0].count) == (7, 2, 5)


def test_a_type_that_is_not_installed_is_named(node: RosTransport) -> None:
    from dfs_ros.transport.ros.native import native_class

    with pytest.raises(TransportError, match=r"no_such_msgs/msg/A: no such type in this ROS 2.*install ros-"):
        native_class("no_such_msgs/msg/A")


@pytest.mark.parametrize(("latched", "expected"), [(True, [4, 5]), (False, [5])])
def test_a_late_subscription_gets_what_was_latched(
    talker: RosTransport, node: RosTransport, latched: bool, expected: list[int]
) -> None:
    publisher = talker.create_publisher("latched", INT, LATCHED)
    for i in range(5):
        publisher.publish(integer(i))
    received: list[int] = []
    node.create_subscription("latched", INT, lambda m: received.append(m.data), Qos(True, 5, latched))
    until(publisher.subscription_count)
    until(lambda: len(received) == len(expected) - 1, node)
    publisher.publish(integer(5))
    until(lambda: len(received) == len(expected), node)
    assert received == expected


# --- drops and bad data ----------------------------------------------------------------------------------------------


def test_what_a_busy_node_misses_is_counted_and_the_newest_win(talker: RosTransport, node: RosTransport) -> None:
    received: list[int] = []
    subscription = node.create_subscription("busy", INT, lambda m: received.append(m.data), Qos(True, 3))
    publisher = talker.create_publisher("busy", INT, Qos(True, 50))
    until(publisher.subscription_count)
    for i in range(20):
        publisher.publish(integer(i))
        until(lambda wanted=i + 1: subscription.received == wanted)  # busy: not spinning
    while node.spin_once(0):
        pass
    assert received == [17, 18, 19]
    assert (subscription.received, subscription.dropped) == (20, 17)


def test_a_message_that_makes_no_sense_is_counted_and_the_next_one_arrives(
    talker: RosTransport, node: RosTransport
) -> None:
    received: list[str] = []
    subscription = node.create_subscription("text", "std_msgs/msg/String", lambda m: received.append(m.data), RELIABLE)
    publisher = talker.create_publisher("text", "std_msgs/msg/String")
    until(publisher.subscription_count)
    publisher.native.publish(b"\0\1\0\0" + b"\5\0\0\0" + b"\xff\xfe\xfd\xfc\0" + bytes(3))  # no UTF-8
    publisher.publish(message("std_msgs/msg/String", data="good"))
    until(lambda: received, node)
    assert (received, subscription.faults["malformed"], subscription.received) == (["good"], 1, 2)


def test_a_message_of_another_type_is_refused(talker: RosTransport) -> None:
    publisher = talker.create_publisher("number", INT)
    with pytest.raises(ValueError, match="expected a std_msgs/msg/Int32, received"):
        publisher.publish(message("std_msgs/msg/Bool"))
    with pytest.raises(ValueError, match="a value does not fit"):
        talker.create_subscription("number", INT, print)
        until(publisher.subscription_count)
        publisher.publish(integer(2**40))


def test_no_callback_ends_the_node_whether_it_refuses_or_fails(talker: RosTransport, node: RosTransport) -> None:
    def judge(msg: Any) -> None:
        if msg.data == 1:
            raise ValueError("not this one")
        if msg.data == 2:
            raise ZeroDivisionError("a bug")

    subscription = node.create_subscription("judged", INT, judge, RELIABLE)
    publisher = talker.create_publisher("judged", INT)
    until(publisher.subscription_count)
    for i in (1, 0, 2):
        publisher.publish(integer(i))
    until(lambda: subscription.faults["failed"] == 1, node)
    assert (subscription.received, subscription.faults["refused"]) == (3, 1)


def test_nothing_is_sent_without_a_subscription_nor_received_after_close(
    talker: RosTransport, node: RosTransport
) -> None:
    publisher = talker.create_publisher("quiet", INT)
    publisher.publish(integer(1))
    assert publisher.published == 0
    received: list[Any] = []
    subscription = node.create_subscription("quiet", INT, received.append, RELIABLE)
    until(publisher.subscription_count)
    assert until(subscription.publisher_count) == 1
    node.unsubscribe(subscription)
    until(lambda: publisher.subscription_count() == 0)
    assert (node.subscriptions, subscription.publisher_count()) == ([], 0)
    publisher.publish(integer(2))
    assert publisher.published == 0 and received == []


# --- services and time -----------------------------------------------------------------------------------------------


def test_services_are_answered_at_once_or_later(talker: RosTransport, node: RosTransport) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        node.create_service("~/now", TRIGGER, lambda request: trigger_response(True, "café"))
        node.create_service("~/later", TRIGGER, lambda r: pool.submit(lambda: trigger_response(False, "no")))
        spinning = threading.Thread(target=node.spin)
        spinning.start()
        ask = message(f"{TRIGGER}_Request")
        answers = [talker.call_service(f"{node.full_name}/{name}", TRIGGER, ask, 20) for name in ("now", "later")]
        assert [(a.success, a.message) for a in answers] == [(True, "café"), (False, "no")]
        with pytest.raises(TimeoutError, match="nobody serves it"):
            talker.call_service("nothing", TRIGGER, ask, 0.05)
        node.shutdown()
        spinning.join(60)
        assert not spinning.is_alive()


def test_timers_repeat_and_can_be_cancelled(node: RosTransport) -> None:
    calls: list[int] = []
    timer = node.create_timer(0.05, lambda: calls.append(len(calls)))
    until(lambda: len(calls) == 6, node)
    timer.cancel()
    while node.spin_once(0.2):
        pass
    assert len(calls) <= 7
    with pytest.raises(ValueError, match="period_s: expected over 0"):
        node.create_timer(0.0, print)


def test_the_clock_is_that_of_the_simulation_where_it_is_said_so(
    talker: RosTransport, open_node: Callable[..., RosTransport]
) -> None:
    node = open_node("node", "-p", "use_sim_time:=true")
    ticks: list[int] = []
    node.create_timer(1.0, lambda: ticks.append(node.now_ns()))
    publisher = talker.create_publisher("/clock", CLOCK)
    until(publisher.subscription_count)

    def show(seconds: float) -> None:
        nanoseconds = round(seconds * 1e9)
        stamp = message("builtin_interfaces/msg/Time", sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        publisher.publish(message(CLOCK, clock=stamp))
        until(lambda: node.now_ns() == nanoseconds, node)

    show(100.0)
    for seconds in (101.5, 102.5):
        show(seconds)
        until(lambda s=seconds: ticks and ticks[-1] == round(s * 1e9), node)
    show(10.0)  # set back: the timer goes on in the new time
    before = len(ticks)
    for seconds in (11.5, 12.5, 13.5):
        show(seconds)
    until(lambda: len(ticks) >= before + 1, node)
    assert ticks[-1] <= 13_500_000_000


def test_shutdown_ends_waiting_and_sending_and_can_be_repeated(node: RosTransport) -> None:
    publisher = node.create_publisher("number", INT)
    subscription = node.create_subscription("number", INT, print)
    threading.Timer(0.2, node.shutdown).start()
    node.spin()
    node.shutdown()
    assert node.is_shutdown
    publisher.publish(integer(1))
    assert (publisher.published, publisher.subscription_count(), subscription.publisher_count()) == (0, 0, 0)
    node.log("warning", "after the end")


def test_auto_takes_native_ros_where_it_is(namespace: str) -> None:
    from dfs_ros.transport import chosen_kind

    assert chosen_kind("auto") == "ros"
    with open_transport("auto", "node", namespace=namespace) as transport:
        assert isinstance(transport, RosTransport)

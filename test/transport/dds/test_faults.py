"""The DDS transport under drops, bad data and a hung peer."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import threading
import time

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="cyclonedds, which has no package for this machine, carries this transport")

from dds_rig import DOMAIN, INT, SETTINGS, Peer, cyclonedds_uri, node, peer, until, until_met

from dfs_ros.messages.convert import IMAGE, image_message
from dfs_ros.transport.base import RELIABLE, Qos

__all__ = ["cyclonedds_uri", "node", "peer"]  # fixtures


def test_what_a_busy_node_misses_is_counted(node, peer):
    received: list[int] = []
    subscription = node.create_subscription("busy", INT, lambda m: received.append(m.data), Qos(True, 3))
    peer.run("""
busy = node.create_publisher("busy", "std_msgs/msg/Int32", Qos(True, 50))
until(lambda: busy.subscription_count())
""")
    until_met(subscription)
    deadline = time.monotonic() + 240
    for i in range(20):  # one by one: those that come while the receiving thread waits for a core displace each other
        peer.run(f"busy.publish(message('std_msgs/msg/Int32', data={i}))")
        while subscription.received <= i:
            assert time.monotonic() < deadline, "timeout"
            time.sleep(0.001)  # busy: not spinning
    until(node, lambda: len(received) >= 3)
    assert not node.spin_once(0.1)
    assert received == [17, 18, 19]
    assert (subscription.received, subscription.dropped) == (20, 17)


def test_a_message_that_cannot_be_decoded_is_counted_and_the_next_one_arrives(node, peer, caplog):
    received: list[str] = []
    subscription = node.create_subscription("text", "std_msgs/msg/String", lambda m: received.append(m.data), RELIABLE)
    peer.run("""
from dfs_ros.transport.dds.wire import write
text = node.create_publisher("text", "std_msgs/msg/String")
until(lambda: text.subscription_count())
""")
    until_met(subscription)
    peer.run("""
for _ in range(3):
    assert write(text.writer, bytearray(b"\\0\\1\\0\\0" + b"\\5\\0\\0\\0" + b"\\xff\\xfe\\xfd\\xfc\\0" + bytes(3))) == 0
text.publish(message("std_msgs/msg/String", data="good"))
""")
    until(node, lambda: received)
    assert (received, subscription.faults["malformed"], subscription.received) == (["good"], 3, 4)
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1 and "not a std_msgs/msg/String" in told[0]


def test_cdr_that_does_not_fit_the_type_never_reaches_the_node(node, peer):
    received: list[int] = []
    subscription = node.create_subscription("image_garbage", IMAGE, lambda m: received.append(m.width), Qos(True, 50))
    peer.run("""
import random
from cyclonedds.idl import make_idl_struct, types
from cyclonedds.pub import DataWriter
from cyclonedds.topic import Topic
from dfs_ros.transport.dds.types import dds_qos
from dfs_ros.transport.dds.wire import write
from dfs_ros.messages.definitions import serialize

# the name of an image, but any bytes may be in it
good = bytes(serialize(image_message(np.zeros((1, 4, 3), np.uint8), 0, "cam"), IMAGE))
octets = types.array[types.uint8, len(good) - 4]
octets = make_idl_struct("Image_", "sensor_msgs.msg.dds_.Image_", {"bytes": octets})
topic = node.resolve("image_garbage")
garbage = DataWriter(node._participant, Topic(node._participant, "rt" + topic, octets), dds_qos(RELIABLE, IMAGE))
until(lambda: garbage.get_matched_subscriptions())
""")
    until_met(subscription)
    peer.run("""
dice = random.Random(1)
sent = []
for i in range(40):
    cdr = bytearray(good if i % 2 else good[:4] + dice.randbytes(len(good) - 4))
    if i % 2:
        cdr[dice.choice([12, 28, 44])] = 255  # a string or sequence longer than the data
    sent.append(write(garbage, cdr))
sent.append(write(garbage, bytearray(good)))
result = sent
""")
    until(node, lambda: received)
    assert received == [4]
    assert subscription.received == 1


def test_garbage_on_the_sockets_is_ignored(node, peer):
    received: list[int] = []
    subscription = node.create_subscription("after_garbage", INT, lambda m: received.append(m.data), RELIABLE)
    dice = random.Random(2)
    header = b"RTPS\x02\x05\x01\x10" + bytes(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(7410 + 250 * DOMAIN, 7410 + 250 * DOMAIN + 6):
            for _ in range(100):
                body = dice.randbytes(dice.randint(0, 200))
                kind, flags, length = dice.choice([6, 7, 8, 9, 14, 21, 22]), dice.randint(0, 255), dice.randint(0, 200)
                submessage = struct.pack("<BBH", kind, flags, length) + body
                sender.sendto(dice.choice([body, header + body, header + submessage]), ("127.0.0.1", port))
    peer.run("""
after = node.create_publisher("after_garbage", "std_msgs/msg/Int32")
until(lambda: after.subscription_count())
""")
    until_met(subscription)
    peer.run("after.publish(message('std_msgs/msg/Int32', data=7))")
    until(node, lambda: received == [7])


def test_a_hung_subscriber_holds_up_nobody(node):
    hung = Peer(SETTINGS)
    try:
        hung.run("""
numbers = []
images = node.create_subscription("image", IMAGE, lambda m: numbers.append(int(m.header.frame_id)), RELIABLE)
""")
        publisher = node.create_publisher("image", IMAGE)
        until(node, publisher.subscription_count)
        hung.run("until(images.publisher_count)")
        os.kill(hung.process.pid, signal.SIGSTOP)
        pixels = np.zeros((1000, 1000, 3), np.uint8)

        def publish() -> None:
            for i in range(40):  # 120 MB, of which a depth of 5 is kept for the subscriber
                publisher.publish(image_message(pixels, 0, str(i)))

        publishing = threading.Thread(target=publish, daemon=True)
        publishing.start()
        publishing.join(240)
        assert not publishing.is_alive()
        os.kill(hung.process.pid, signal.SIGCONT)
        numbers = hung.run("until(lambda: numbers and numbers[-1] == 39)\nresult = numbers")
        assert numbers[-5:] == [35, 36, 37, 38, 39]
        assert (publisher.published, publisher.dropped) == (40, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(hung.process.pid, signal.SIGCONT)
        assert hung.close() == 0

"""The DDS transport between real processes: values, stamps, discovery, latching, coming and going."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import threading
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="cyclonedds, which has no package for this machine, carries this transport")

from dds_rig import CONFIG, DOMAIN, INT, NAMESPACE, SETTINGS, Peer, cyclonedds_uri, node, peer, until, until_met

from benchmarks import transport
from dfs_ros.config import Config
from dfs_ros.messages.convert import FOCUS, IMAGE, TRIGGER, message, trigger_response
from dfs_ros.messages.definitions import deserialize
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import LATCHED, RELIABLE, Qos, TransportError
from dfs_ros.transport.dds.transport import DISCOVERY_INFO, DdsTransport
from dfs_ros.transport.dds.types import dds_qos, idl_type, type_hash
from dfs_ros.transport.dds.wire import Receiver, take, user_data_value

__all__ = ["cyclonedds_uri", "node", "peer"]  # fixtures

# --- values ----------------------------------------------------------------------------------------------------------


def test_images_and_focus_of_another_process_arrive_whole(node, peer):
    images: list[Any] = []
    focus: list[Any] = []
    threads = set()

    def keep(msg: Any) -> None:
        images.append(msg)
        threads.add(threading.get_ident())

    subscriptions = [
        node.create_subscription("image", IMAGE, keep, RELIABLE),
        node.create_subscription("focus", FOCUS, focus.append, RELIABLE),
    ]
    peer.run("""
pixels = np.arange(480 * 640 * 3, dtype=np.uint32).reshape(480, 640, 3)
image, focus = node.create_publisher("image", IMAGE), node.create_publisher("focus", FOCUS)
until(lambda: image.subscription_count() and focus.subscription_count())
""")
    for subscription in subscriptions:
        until_met(subscription)
    peer.start("""
for i in range(5):
    stamp = 1_700_000_000_123_456_789 + i * 33_333_333
    image.publish(image_message((pixels * (i + 1) % 251).astype(np.uint8), stamp, "optical"))
    focus.publish(focus_message(FocusMetadata(stamp, 0.5 * i, lens_state=LensState.STATIONARY, sweep_id=3, index=i,
                                              count=5, exposure_ns=10_000_000), "optical"))
result = [image.published, focus.published]
""")
    until(node, lambda: len(images) == 5 and len(focus) == 5)
    assert peer.finish() == [5, 5]
    from dfs_ros.messages.convert import focus_from_message, image_from_message, stamp_ns

    pixels = np.arange(480 * 640 * 3, dtype=np.uint32).reshape(480, 640, 3)
    for i, (image, lens) in enumerate(zip(images, map(focus_from_message, focus), strict=True)):
        stamp = 1_700_000_000_123_456_789 + i * 33_333_333
        assert (stamp_ns(image.header.stamp), lens.stamp_ns) == (stamp, stamp)
        assert image.header.frame_id == "optical"
        np.testing.assert_array_equal(image_from_message(image), pixels * (i + 1) % 251)
        assert (lens.focus_diopters, lens.sweep_id, lens.index, lens.count) == (0.5 * i, 3, i, 5)
        assert lens.exposure_ns == 10_000_000 and lens.lens_state.name == "STATIONARY" and np.isnan(lens.f_number)
    assert threads == {threading.get_ident()}  # callbacks are made by the thread that spins


def test_services_are_called_both_ways_and_parameters_over_the_wire(node, peer):
    served: list[str] = []
    node.create_service("~/capture", TRIGGER, lambda request: served.append("x") or trigger_response(True, "café"))
    peer.start(f"""
answers = [node.call_service("{NAMESPACE}/node/capture", TRIGGER, message(TRIGGER + "_Request"), 240) for _ in range(2)]
result = [[a.success, a.message] for a in answers]
""")
    until(node, lambda: len(served) == 2)
    assert peer.finish() == [[True, "café"]] * 2
    peer.start(
        "until(lambda: node.parameters.get('hypotheses.count') != 61)\nresult = node.parameters.config.to_dict()"
    )
    kind = "rcl_interfaces/srv/SetParameters"
    value = message("rcl_interfaces/msg/ParameterValue", type=2, integer_value=17)
    parameter = message("rcl_interfaces/msg/Parameter", name="hypotheses.count", value=value)
    request = message(f"{kind}_Request", parameters=[parameter])
    response = node.call_service(f"{NAMESPACE}/peer/set_parameters", kind, request, 240)
    assert response.results[0].successful
    assert peer.finish()["hypotheses"]["count"] == 17
    with pytest.raises(TimeoutError, match="nobody serves it"):
        node.call_service("nothing", TRIGGER, message(f"{TRIGGER}_Request"), 0.05)


@pytest.mark.parametrize(("latched", "expected"), [(True, [3, 4, 5]), (False, [5])])
def test_a_late_subscription_gets_what_was_latched_if_it_asks_for_it(node, peer, latched, expected):
    peer.run(f"""
latched = node.create_publisher("latched_{latched}", "std_msgs/msg/Int32", Qos(True, 2, latched=True))
for i in range(5):
    latched.publish(message("std_msgs/msg/Int32", data=i))
""")
    received: list[int] = []
    qos = Qos(True, 5, latched)
    subscription = node.create_subscription(f"latched_{latched}", INT, lambda m: received.append(m.data), qos)
    until(node, lambda: len(received) == len(expected) - 1)
    peer.run("until(lambda: latched.subscription_count())")
    until_met(subscription)
    peer.run("latched.publish(message('std_msgs/msg/Int32', data=5))")
    until(node, lambda: len(received) == len(expected))
    assert received == expected


# --- what ROS sees ---------------------------------------------------------------------------------------------------


def test_ros_sees_a_node_with_its_endpoints(node, peer):
    from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant, BuiltinTopicDcpsPublication
    from cyclonedds.topic import Topic

    peer.run("seen = node.create_publisher('seen', IMAGE)\nnode.create_subscription('seen_too', FOCUS, print)")
    participant = node._participant
    topic = Topic(participant, "ros_discovery_info", idl_type(DISCOVERY_INFO))
    infos: list[Any] = []
    receiver = Receiver(participant, topic, dds_qos(Qos(True, 50, True), DISCOVERY_INFO), 50, lambda *_: None)

    def peers() -> list[Any]:
        infos.extend(deserialize(cdr, DISCOVERY_INFO) for cdr, _ in take(receiver.reader, 50))
        return [(i, n) for i in infos for n in i.node_entities_info_seq if n.node_name == "peer"]

    until(node, peers)
    info, listed = peers()[-1]
    assert listed.node_namespace == NAMESPACE
    whose = bytes(info.gid.data)
    writers = {bytes(gid.data[:16]) for gid in listed.writer_gid_seq}

    publications: dict[bytes, Any] = {}
    endpoints = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)

    def endpoint() -> Any:
        publications.update({e.key.bytes: e for e in endpoints.take(100) if e.participant_key.bytes == whose})
        return [e for e in publications.values() if e.topic_name == f"rt{NAMESPACE}/seen"]

    until(node, endpoint)
    (seen,) = endpoint()
    assert seen.type_name == "sensor_msgs::msg::dds_::Image_"
    assert user_data_value(seen, "typehash") == type_hash(IMAGE)
    assert seen.key.bytes in writers
    topics = {publications[gid].topic_name for gid in writers if gid in publications}
    assert {f"rr{NAMESPACE}/peer/get_parametersReply", "rt/rosout"} <= topics
    participants = BuiltinDataReader(participant, BuiltinTopicDcpsParticipant).take(100)
    (who,) = [p for p in participants if p.key.bytes == whose]
    assert user_data_value(who, "enclave") == "/"


def test_log_lines_go_to_rosout(node, peer):
    lines: list[Any] = []
    node.create_subscription("/rosout", "rcl_interfaces/msg/Log", lines.append, Qos(True, 50, latched=True))
    peer.run("node.log('warning', 'lens stuck')")
    until(node, lambda: any(line.msg == "lens stuck" for line in lines))
    (line,) = [line for line in lines if line.msg == "lens stuck"]
    assert (line.level, line.name) == (30, f"{NAMESPACE[1:]}/peer")


def test_qos_that_does_not_match_is_reported(node, peer, caplog):
    subscription = node.create_subscription("mismatch", INT, lambda m: pytest.fail("no match"), RELIABLE)
    peer.run("mismatch = node.create_publisher('mismatch', 'std_msgs/msg/Int32', SENSOR_DATA)")
    until(node, lambda: f" {NAMESPACE}/mismatch: reliability of another node does not match" in caplog.text)
    assert subscription.publisher_count() == 0


# --- coming and going ------------------------------------------------------------------------------------------------


def test_opening_and_closing_leaves_nothing_behind():
    def open_and_close() -> None:
        with DdsTransport("node", namespace=NAMESPACE, config=CONFIG) as node:
            publisher = node.create_publisher("n", INT, LATCHED)
            subscription = node.create_subscription("n", INT, lambda m: None, LATCHED)
            publisher.publish(message(INT, data=1))
            ending = threading.Timer(0.05, node.shutdown)
            ending.start()
            node.spin()
            ending.join()
        node.shutdown()
        publisher.publish(message(INT, data=2))
        assert (publisher.subscription_count(), subscription.publisher_count(), node.spin_once(0)) == (0, 0, False)
        assert publisher.published == 1

    open_and_close()
    gc.collect()  # what earlier tests left open
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))  # noqa: PTH208
    for _ in range(3):
        open_and_close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before  # noqa: PTH208


def test_interrupting_a_spinning_node_ends_it_and_others_notice(node):
    subscription = node.create_subscription("n", INT, lambda m: None)
    other = Peer(SETTINGS)
    other.run("publisher = node.create_publisher('n', 'std_msgs/msg/Int32')")
    until(node, lambda: subscription.publisher_count() == 1)
    other.start("""
node.call_soon(lambda: print(json.dumps("spinning"), flush=True))
try:
    node.spin()
except KeyboardInterrupt:
    result = "interrupted"
""")
    assert other.finish() == "spinning"
    other.process.send_signal(signal.SIGINT)
    assert other.finish() == "interrupted"
    assert other.close() == 0
    until(node, lambda: subscription.publisher_count() == 0)


def test_closing_a_subscription(node):
    publisher = node.create_publisher("n", INT)
    subscription = node.create_subscription("n", INT, lambda m: pytest.fail("closed"))
    until(node, publisher.subscription_count)
    subscription.close()
    until(node, lambda: publisher.subscription_count() == 0)
    publisher.publish(message(INT, data=1))
    assert not node.spin_once(0.1)
    assert publisher.published == 0  # nobody to serialise for


def test_auto_is_dds_where_there_is_no_ros(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with caplog.at_level("INFO"), open_transport("auto", "node", namespace=NAMESPACE, config=CONFIG) as transport:
        assert isinstance(transport, DdsTransport)
        assert (transport.domain_id, transport.full_name) == (DOMAIN, f"{NAMESPACE}/node")
    assert "DDS without ROS 2" in caplog.text and "rclpy" in caplog.text


def test_wrong_use_is_refused(node):
    publisher = node.create_publisher("n", INT)
    with pytest.raises(ValueError, match=f"{NAMESPACE}/n: expected a {INT}, received"):
        publisher.publish(message("std_msgs/msg/Int64"))
    with pytest.raises(ValueError, match="has the topic with type std_msgs/msg/Int32 already"):
        node.create_subscription("n", "std_msgs/msg/Int64", print)
    with pytest.raises(ValueError, match="message type: expected"):
        node.create_publisher("m", "Int32")
    with pytest.raises(ValueError, match="period_s"):
        node.create_timer(-1, print)
    other = Config.from_dict({"dds": SETTINGS["dds"] | {"receive_buffer_bytes": 2**21}})
    with pytest.raises(TransportError, match="open in this process with other settings"):
        open_transport("dds", "other", config=other)
    nowhere = Config.from_dict({"dds": {"interface": "nosuch0", "domain_id": DOMAIN - 1}})
    with pytest.raises(TransportError, match=r"cannot be opened.*interface"):
        open_transport("dds", "other", config=nowhere)


# --- benchmark -------------------------------------------------------------------------------------------------------


def test_benchmark_record(tmp_path, capsys):
    config, output = tmp_path / "config.yaml", tmp_path / "record.json"
    config.write_text(json.dumps(SETTINGS))
    options = ["--width=64", "--height=48", "--rate=50", "--duration=0.1", f"--config={config}", f"--output={output}"]
    assert transport.main(options) == 0
    record = json.loads(output.read_text())
    # As many as a queue holds: none is lost, however long this process waits for a core.
    assert (record["sent"], record["received"], record["missed"]) == (RELIABLE.depth, RELIABLE.depth, 0)
    assert 0 < record["latency_p50_ms"] <= record["latency_p99_ms"] <= record["latency_max_ms"]
    assert "5 of 5 received, 0 missed" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--rate: expected over 0"):
        transport.run(argparse.Namespace(width=1, height=1, rate=0, duration=1))

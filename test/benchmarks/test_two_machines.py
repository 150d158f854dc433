"""Two machines: what a listener counts, and what is held against it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.heard import Heard
from benchmarks.two_machines import Case, judged
from dfs_ros.messages.convert import (
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    Diagnostic,
    depth_message,
    diagnostics_message,
    focus_message,
)
from dfs_ros.simulation.scenes import demo_scene
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import FocusMetadata

START_NS = 10**18
SIZE = (80, 60)


class Told:
    """Camera and node of a namespace, whose messages are made up, and their listener."""

    def __init__(self) -> None:
        bus = LocalBus(start_ns=START_NS)
        self.listener, node = LocalTransport("listener", bus), LocalTransport("dfs", bus, namespace="/left")
        topics = {"focus": FOCUS, "depth/image": IMAGE, "depth/sigma": IMAGE, "/diagnostics": DIAGNOSTICS}
        self.publishers = {topic: node.create_publisher(topic, kind) for topic, kind in topics.items()}
        self.heard = Heard(self.listener, "/left", SIZE)

    def publish(self, topic: str, msg: object) -> None:
        self.publishers[topic].publish(msg)
        while self.listener.spin_once(0):
            pass

    def sent(self, number: int) -> None:
        stamp = START_NS + number
        focus = FocusMetadata(stamp, 1.0, sweep_id=number // 5, index=number % 5, count=5)
        self.publish("focus", focus_message(focus, "camera"))

    def node(self, number: int, text: str = "", **counts: float) -> None:
        """Diagnostics of the node at the time of an image, and of another camera's."""
        statuses = {"left/dfs: depth": Diagnostic("OK", text, counts), "dfs: depth": Diagnostic("OK", "", {"late": 99})}
        self.publish("/diagnostics", diagnostics_message(statuses, START_NS + number))

    def depth(self, error: float, relative_sigma: float) -> None:
        depth_m = demo_scene(*SIZE).depth_m * np.float32(1.0 + error)
        self.publish("depth/image", depth_message(depth_m, START_NS, "camera"))
        self.publish("depth/sigma", depth_message(depth_m * np.float32(relative_sigma), START_NS, "camera"))


def told_of(received: int, dropped: int, text: str = "") -> Told:
    told = Told()
    told.sent(0)
    told.node(0, received=1)
    for number in range(1, 101):
        told.sent(number)
    told.node(100, text, received=1 + received, dropped=dropped)
    return told


def test_images_are_counted_from_diagnostics_to_diagnostics() -> None:
    counts = told_of(90, 10).heard.counts()
    assert (counts["sent"], counts["received"], counts["dropped"], counts["late"]) == (100, 90, 10, 0)


@pytest.mark.parametrize(
    ("received", "dropped", "text", "case", "fault"),
    [
        (90, 10, "", Case("", most_lost=1.0, harms=True), ""),
        (90, 0, "", Case("", most_lost=1.0), "100 images were sent, but 90 received and 0 lost"),
        (0, 0, "no image on /image for 9 s", Case("", most_lost=1.0, harms=True), ""),
        (90, 10, "", Case(""), "10 images lost"),
        (100, 0, "", Case("", harms=True), "shows nothing"),
    ],
)
def test_images_must_be_accounted_for(received: int, dropped: int, text: str, case: Case, fault: str) -> None:
    told = told_of(received, dropped, text)
    told.depth(0.0, 0.01)
    _, faults = judged("x", told.heard, case)
    assert len(faults) == bool(fault) and fault in "".join(faults)


@pytest.mark.parametrize(
    ("error", "relative_sigma", "dropped", "wrong"),
    [(0.02, 0.001, 0, False), (-0.04, 0.1, 0, True), (0.08, 0.05, 10, False), (0.08, 0.03, 10, True)],
)
def test_planes_are_right_or_doubtful(error: float, relative_sigma: float, dropped: int, wrong: bool) -> None:
    """Over 3 % off is wrong; with lost images, only if it is over two sigma, too."""
    told = told_of(100 - dropped, dropped)
    told.depth(error, relative_sigma)
    row, faults = judged("x", told.heard, Case("", most_lost=1.0))
    assert [fault for fault in faults if "plane" in fault] == (
        [f"x: a plane is up to {100 * abs(error):.1f} % off"] if wrong else []
    )
    assert row["planes"] == len(demo_scene(*SIZE).plane_depth_m)
    assert row["in sigma"] == pytest.approx(abs(error) / (1 + error) / relative_sigma, abs=0.06)


def test_no_depth_is_a_fault_where_nothing_may_be_lost() -> None:
    row, faults = judged("x", told_of(100, 0).heard, Case(""))
    assert faults == ["x: no depth image"] and math.isnan(row["worst %"])

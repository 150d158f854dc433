"""The viewer's process: topics in, page out. Real messages, transport and server; the clock is set by the tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from viewer_browser import Browser

from dfs_ros.config import Config, ViewerConfig
from dfs_ros.messages.compressed import compressed_message
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    TRIGGER,
    Diagnostic,
    camera_info_message,
    depth_message,
    diagnostics_message,
    focus_message,
    image_message,
    message,
    trigger_response,
)
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import FocusMetadata
from dfs_ros.viewer.app import ViewerApp, capture, run
from dfs_ros.viewer.viewer import Viewer

MS = 10**6
START_NS = 10**18
SIZE = (12, 20)
PINHOLE = Intrinsics(25.0, 24.0, 9.0, 6.5)
TOPICS = {
    "image": IMAGE,
    "focus": FOCUS,
    "depth/image": IMAGE,
    "depth/sigma": IMAGE,
    "depth/confidence": IMAGE,
    "depth/camera_info": CAMERA_INFO,
    "all_in_focus/image": IMAGE,
    "true_depth/image": IMAGE,
    "/diagnostics": DIAGNOSTICS,
}


class Setup:
    """A camera and depth node's side of a bus with the viewer on it, and a browser that looks."""

    def __init__(self, viewer: Viewer, browser: Browser) -> None:
        self.bus = LocalBus(start_ns=START_NS)
        self.node = LocalTransport("dfs", self.bus)
        self.publishers = {topic: self.node.create_publisher(topic, kind) for topic, kind in TOPICS.items()}
        self.transport = LocalTransport("viewer", self.bus)
        self.viewer, self.app = viewer, ViewerApp(self.transport, viewer, nodes=("dfs", "camera"))
        self.browser = browser

    def publish(self, topic: str, msg: Any) -> None:
        self.publishers[topic].publish(msg)
        self.spin()

    def spin(self) -> None:
        while self.transport.spin_once(0):
            pass

    def advance(self, milliseconds: int) -> None:
        self.bus.advance_to(self.bus.now_ns() + milliseconds * MS)
        self.spin()

    def shows(self, *texts: str) -> None:
        """Wait until all of these stand on the page."""
        self.browser.until(lambda: all(text in self.browser.text for text in texts))

    def depth(
        self, stamp_ns: int, depth_m: float, *leave_out: str, encoding: str = "32FC1", sigma_m: float = 0.0
    ) -> np.ndarray:
        """Publish one result of the depth node; returns its all-in-focus image."""
        depth = np.full(SIZE, depth_m, np.float32)
        depth[0] = np.nan
        sharp = np.full((*SIZE, 3), round(depth_m * 10), np.uint8)
        parts = {
            "depth/sigma": depth_message(0 * depth + sigma_m if sigma_m else 0.1 * depth, stamp_ns, "camera"),
            "depth/confidence": depth_message(np.full(SIZE, 0.5, np.float32), stamp_ns, "camera"),
            "depth/image": depth_message(depth, stamp_ns, "camera", encoding),
            "all_in_focus/image": image_message(sharp, stamp_ns, "camera"),
            "depth/camera_info": camera_info_message(PINHOLE, SIZE, stamp_ns, "camera"),
        }
        for topic, msg in parts.items():
            if topic not in leave_out:
                self.publish(topic, msg)
        return sharp


@pytest.fixture
def setup() -> Iterator[Setup]:
    with Viewer(ViewerConfig(port=0, rate_hz=30)) as viewer, Browser(viewer) as browser:
        yield Setup(viewer, browser)


def median_depth(browser: Browser) -> Callable[[float], bool]:
    return lambda z: len(browser.points) > 0 and bool(np.median(browser.points[:, 2]) == np.float32(z))


def test_results_are_shown_by_stamp(setup: Setup) -> None:
    sharp = setup.depth(START_NS, 2.0)
    setup.browser.until(lambda: len(setup.browser.points) == 11 * 20)  # the first row has no depth
    np.testing.assert_array_equal(setup.browser.colors, sharp[1:].reshape(-1, 3))
    np.testing.assert_allclose(setup.browser.points[0], ((0 - 9) / 25 * 2, (1 - 6.5) / 24 * 2, 2), rtol=1e-6)


@pytest.mark.parametrize("missing", ["depth/sigma", "depth/confidence", "all_in_focus/image"])
def test_results_without_some_topic_are_shown_when_the_next_begin(setup: Setup, missing: str) -> None:
    is_at = median_depth(setup.browser)
    setup.depth(START_NS, 2.0, missing)
    setup.depth(START_NS + 100 * MS, 3.0, missing)
    setup.browser.until(lambda: is_at(2.0))
    setup.depth(START_NS + 200 * MS, 4.0, missing)
    setup.browser.until(lambda: is_at(3.0))


def test_the_error_against_the_true_depth_of_the_stamp(setup: Setup) -> None:
    truth = np.full((2 * SIZE[0], 2 * SIZE[1]), 1.9, np.float32)  # larger, as of a node that reduces images
    truth[:, 10:] = 1.6  # 3/4 of the width, over 3 sigma of 0.06
    for stamp, truth_m in ((START_NS, truth), (START_NS + 100 * MS, truth + 1)):
        setup.publish("true_depth/image", depth_message(truth_m, stamp, "camera"))
    setup.depth(START_NS, 2.0, sigma_m=0.06)
    setup.advance(600)
    setup.shows("Against the true depth: median error 400 mm, 25.0 %; 25 % within 3 sigma")
    setup.depth(START_NS + 200 * MS, 2.0)  # of no truth
    setup.advance(600)
    setup.browser.until(lambda: "Against the true depth" not in setup.browser.text)


def test_a_late_part_does_not_disturb_the_next_set(setup: Setup) -> None:
    is_at = median_depth(setup.browser)
    later = START_NS + 100 * MS
    setup.depth(START_NS, 2.0, "depth/sigma")
    sharp = setup.depth(later, 3.0, "all_in_focus/image")  # shows the one before as it is
    setup.publish("depth/sigma", depth_message(np.full(SIZE, 0.1, np.float32), START_NS, "camera"))
    setup.publish("all_in_focus/image", image_message(sharp, later, "camera"))
    setup.browser.until(lambda: is_at(3.0) and np.array_equal(setup.browser.colors, sharp[1:].reshape(-1, 3)))


def test_millimetres(setup: Setup) -> None:
    setup.depth(START_NS, 2.0, encoding="16UC1")
    setup.browser.until(lambda: len(setup.browser.points) == 11 * 20)
    assert setup.browser.points[0, 2] == 2.0


def test_images_wait_for_their_focus(setup: Setup) -> None:
    image = np.zeros(SIZE, np.uint8)
    lens = {"focal_length_m": 0.0043, "f_number": 1.8, "count": 5}
    setup.publish("image", image_message(image, START_NS, "camera"))
    setup.publish("focus", focus_message(FocusMetadata(START_NS, 2.5, **lens), "camera"))
    setup.shows("2.5 dioptres = 0.4 m")
    later = START_NS + 33 * MS
    setup.publish("focus", focus_message(FocusMetadata(later, 0.5, **lens), "camera"))  # before its image
    setup.publish("image", image_message(image, later, "camera"))
    setup.shows("0.5 dioptres = 2 m")
    setup.advance(500)
    setup.shows("camera · 20 × 12 mono8 · f = 4.3 mm · f/1.8 · 5 images a sweep")


def test_images_without_focus_are_shown_too(setup: Setup) -> None:
    for i in range(6):
        setup.publish("image", image_message(np.zeros(SIZE, np.uint8), START_NS + i * MS, ""))
    setup.shows("focus unknown")


def test_lens_position_of_camera_ros_is_focus(setup: Setup) -> None:
    stamp = START_NS + 5 * MS
    setup.publish("image", image_message(np.zeros(SIZE, np.uint8), stamp, "camera"))
    metadata = diagnostics_message({"libcamera": Diagnostic("OK", "", {"LensPosition": "1.25"})}, stamp)
    setup.publish("/diagnostics", metadata)
    setup.shows("1.25 dioptres = 0.8 m")


def test_rates_latency_drops_and_warnings(setup: Setup) -> None:
    setup.advance(500)
    for i in range(20):  # 20 Hz in, 4 Hz out, each depth 150 ms after its image
        now = setup.bus.now_ns()
        setup.publish("image", image_message(np.zeros(SIZE, np.uint8), now, "camera"))
        setup.publish("focus", focus_message(FocusMetadata(now, 1.0 + i), "camera"))
        if i % 5 == 4:
            setup.depth(now - 150 * MS, 2.0)
        setup.advance(50)
    images = {"received": 95, "used": 90, "late": 2, "no_focus": 1, "dropped": 5, "bad_image": 3}
    stacks = {"stacks": 18, "published": 4, "superseded": 12, "failed": 1}
    diagnostics = {
        "dfs: depth": Diagnostic("OK", "fine", images | stacks),
        "dfs: transport": Diagnostic("WARN", "slow <b>", {"/image dropped": 4}),
        "dfs: lens": Diagnostic("ERROR", "stuck"),
        "wheels: motor": Diagnostic("ERROR", "not ours", {"late": 1000, "received": 1000}),
        "left/dfs: depth": Diagnostic("ERROR", "of another camera", {"received": 1000}),
    }
    setup.publish("/diagnostics", diagnostics_message(diagnostics, setup.bus.now_ns()))
    setup.advance(500)
    # Since the first status, 1.5 s ago: 20 images and 4 depth images.
    setup.shows(f">{20 / 1.5:.1f}<", f">{4 / 1.5:.1f}<", ">150<", "dfs: lens: stuck", "slow &lt;b&gt;", ">8.0<")
    text = setup.browser.text
    assert text.index("stuck") < text.index("slow")
    account = (
        "in stacks <em>90</em> + never arrived <em>5</em> + late <em>2</em> + no focus <em>1</em> + waiting <em>2</em>"
    )
    assert f"Images sent <em>100</em> = {account}<" in text
    account = "depth images <em>4</em> + superseded by a newer one <em>12</em> + failed <em>1</em>"
    assert f"Stacks <em>18</em> = {account} + under way or not wanted <em>1</em><" in text
    assert "Messages not used: bad image <em>3</em> · lost by a full queue or the network <em>4</em><" in text
    assert "not ours" not in text and "of another camera" not in text


def test_compressed_images_in_a_namespace() -> None:
    settings = Config.from_dict({"node": {"image_transport": "compressed"}})
    with Viewer(ViewerConfig(port=0, rate_hz=30)) as viewer, Browser(viewer) as browser:
        bus = LocalBus(start_ns=START_NS)
        transport = LocalTransport("viewer", bus, namespace="/left", config=settings)
        ViewerApp(transport, viewer, nodes=("dfs",))
        node = LocalTransport("dfs", bus, namespace="/left")
        node.create_publisher("image/compressed", COMPRESSED).publish(
            compressed_message(np.zeros((*SIZE, 3), np.uint8), START_NS, "camera")
        )
        node.create_publisher("focus", FOCUS).publish(focus_message(FocusMetadata(START_NS, 2.5), "camera"))
        diagnostics = node.create_publisher("/diagnostics", DIAGNOSTICS)
        counts = {"/left/image/compressed dropped": 3}
        diagnostics.publish(diagnostics_message({"left/dfs: transport": Diagnostic("OK", "", counts)}, START_NS))
        bus.advance_to(START_NS + 600 * MS)
        while transport.spin_once(0):
            pass
        wanted = ("2.5 dioptres = 0.4 m", "camera · 20 × 12 rgb8; jpeg", "by a full queue or the network <em>3</em>")
        browser.until(lambda: all(text in browser.text for text in wanted))


def test_silence_is_a_warning(setup: Setup) -> None:
    setup.advance(500)
    for _ in range(12):
        setup.publish("image", image_message(np.zeros(SIZE, np.uint8), setup.bus.now_ns(), "camera"))
        setup.advance(500)
    setup.shows("Nothing on /depth/image for 6 s")
    setup.node.shutdown()
    setup.advance(6000)
    setup.shows("The camera is not running: nobody publishes /image")


def test_what_is_old_is_dimmed_and_says_since_when(setup: Setup) -> None:
    """Old: over 2 s, and over three periods of the topic."""
    for i in range(3):  # a depth each second
        sharp = setup.depth(START_NS + i * 1000 * MS, 9.0)
        setup.advance(500)
        setup.advance(500)
    setup.advance(1500)
    setup.shows(">3<")
    assert "STALE" not in setup.browser.text  # 2.5 s after the last
    setup.advance(1500)
    since = time.strftime("%H:%M:%S", time.localtime((START_NS + 2500 * MS) * 1e-9))
    setup.shows(f"STALE: nothing new since {since}, 4 s")
    setup.browser.until(lambda: (setup.browser.colors == sharp[1:].reshape(-1, 3) // 3).all())
    sharp = setup.depth(START_NS + 9000 * MS, 9.0)
    setup.browser.until(lambda: (setup.browser.colors == sharp[1:].reshape(-1, 3)).all())
    setup.browser.until(lambda: "STALE" not in setup.browser.text)


def test_stamps_of_another_clock_give_no_latency(setup: Setup) -> None:
    setup.depth(START_NS - 10**17, 2.0)
    setup.advance(500)
    setup.shows("Latency</i><b>–<")


def test_wrong_messages_are_refused_and_the_viewer_goes_on(setup: Setup) -> None:
    setup.publish("image", message(IMAGE, header=message("std_msgs/msg/Header"), encoding="jpeg", width=4, height=4))
    setup.publish("focus", focus_message(FocusMetadata(0, 1.0), "camera"))
    setup.publish("depth/camera_info", camera_info_message(PINHOLE, (3, 3), START_NS, "camera"))
    setup.depth(START_NS, 2.0, "depth/camera_info")
    assert sum(s.faults["refused"] for s in setup.transport.subscriptions) == 2
    setup.depth(START_NS + MS, 3.0)
    setup.browser.until(lambda: len(setup.browser.points) == 11 * 20)


def test_a_button_captures_a_stack_where_the_node_is(setup: Setup) -> None:
    answers = [trigger_response(True, "/data/stacks/<1>"), trigger_response(False, "node.captures_per_minute: 10")]
    setup.node.create_service("~/capture", TRIGGER, lambda request: answers.pop(0))
    setup.viewer.offer_capture(partial(capture, setup.transport, "dfs"))
    for left, words in ((1, "Captured: /data/stacks/&lt;1&gt;"), (0, "No stack: node.captures_per_minute: 10")):
        setup.browser.until(lambda: setup.browser.control("Capture stack").get("disabled") is False)
        setup.browser.set("Capture stack", True)
        while len(answers) > left:
            setup.node.spin_once(0.005)
        setup.shows(words)


def test_a_capture_without_a_depth_node_says_so() -> None:
    transport = LocalTransport("viewer", config=Config.from_dict({"stack": {"max_span_s": 0.01}}))
    assert capture(transport, "dfs") == "No stack: service /dfs/capture: nobody serves it"


def test_run_ends_with_the_transport() -> None:
    transport = LocalTransport("viewer")
    topics: list[str] = []

    def look_and_stop() -> None:
        topics.extend(s.topic for s in transport.subscriptions)
        transport.shutdown()

    transport.call_soon(look_and_stop)
    run(transport, Config(viewer=ViewerConfig(port=0)))
    assert set(topics) == {transport.resolve(topic) for topic in TOPICS}

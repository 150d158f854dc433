"""Images are decoded and assembled for those alone who ask for what is made of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_rig import CAMERA, OK, OUTPUTS, PLANE_M, SIZE, Rig

from dfs_ros.io.stack_folder import load_stack
from dfs_ros.messages.convert import (
    TRIGGER,
    camera_info_message,
    depth_from_message,
    focus_message,
    image_message,
    message,
    stamp_ns,
)
from dfs_ros.node import depth_node
from dfs_ros.optics.pinhole import intrinsics


class Decoder:
    """The node's decoder, which counts its calls."""

    def __init__(self, decode: Callable[..., Any]) -> None:
        self._decode = decode
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self._decode(*arguments)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    counting = Decoder(depth_node.decoded)
    monkeypatch.setattr(depth_node, "decoded", counting)
    return counting


class Request:
    """A call of ~/capture, by a thread of its own; the node answers in the test's."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._answers: list[Any] = []
        queue = rig.bus.services["/dfs/capture", TRIGGER]
        before = queue.received
        self._thread = threading.Thread(target=self._call)
        self._thread.start()
        while queue.received == before:
            time.sleep(0.001)
        rig.spin()

    def _call(self) -> None:
        request = message(f"{TRIGGER}_Request")
        self._answers.append(self._rig.listener.call_service("/dfs/capture", TRIGGER, request, 240))

    @property
    def answered(self) -> bool:
        return bool(self._answers)

    def answer(self) -> Any:
        self._thread.join(240)
        return self._answers[0]


def stop_listening(rig: Rig) -> None:
    for subscription in tuple(rig.listener.subscriptions):
        if subscription.topic.removeprefix("/") in OUTPUTS:
            rig.listener.unsubscribe(subscription)


def test_without_subscribers_images_are_counted_and_not_decoded(make_rig: Callable[..., Rig], decoder: Decoder) -> None:
    rig = make_rig()
    for _ in range(3):
        rig.send_sweep()
    level, text, values = rig.status()
    assert (level, text) == (OK, "ready; nobody subscribes to depth")
    assert (values["ignored"], values["received"], values["stacks"], decoder.calls) == ("9", "0", "0", 0)
    assert float(values["images_hz"]) > 0
    assert rig.transport.subscriptions[0].received == 9
    rig.listen("depth/image")
    rig.send_sweep()
    level, text, values = rig.status()
    assert (level, text, values["published"]) == (OK, "computing depth", "1")
    assert (values["ignored"], values["received"], decoder.calls) == ("9", "3", 3)


@pytest.mark.parametrize("output", list(OUTPUTS))
def test_a_subscriber_to_any_output_counts(make_rig: Callable[..., Rig], output: str) -> None:
    rig = make_rig()
    rig.listen(output)
    rig.send_sweep()
    assert len(rig.received[output]) == 1


def test_the_next_whole_sweep_is_used(make_rig: Callable[..., Rig]) -> None:
    """Who comes in the midst of a sweep does not get the rest of it, though that would make a stack."""
    rig = make_rig({"stack": {"min_frames": 2, "min_coverage": 0.0}})
    for i in range(3):
        if i == 1:
            rig.listen("depth/image")
        rig.send_frame(i)
        rig.advance(33)
    rig.sweeps += 1
    stamps = rig.send_sweep()
    assert [stamp_ns(m.header.stamp) for m in rig.depths()] == [stamps[1]]
    level, text, values = rig.status()
    assert (level, text) == (OK, "computing depth")
    assert (values["ignored"], values["incomplete"], values["used"]) == ("1", "2", "3")


def test_a_sweep_after_a_pause_is_whole(make_rig: Callable[..., Rig]) -> None:
    """As of a lens that sweeps when it is told to: there is no other sweep to wait for."""
    rig = make_rig()
    for i in range(3):
        rig.send_frame(i, count=0)
    rig.advance(2100)
    rig.listen("depth/image")
    for i in range(3):
        rig.send_frame(i, count=0)
        rig.advance(33)
    for _ in range(4):
        rig.advance(1000)
    assert len(rig.depths()) == 1


def test_what_was_taken_is_given_up_when_the_last_subscriber_goes(
    make_rig: Callable[..., Rig], decoder: Decoder
) -> None:
    rig = make_rig()
    rig.listen("depth/image")
    for _ in range(2):
        rig.send_sweep()
    rig.send_frame(0)
    rig.send_frame(1, stamp=rig.bus.now_ns() + 10**6)
    rig.send("image", image_message(rig.stack.images[2], rig.bus.now_ns() + 2 * 10**6, "lens"))  # before its focus
    stop_listening(rig)
    rig.send_frame(2, stamp=rig.bus.now_ns() + 3 * 10**6)
    level, text, values = rig.status()
    assert (level, text) == (OK, "ready; nobody subscribes to depth")
    assert (values["given_up"], values["ignored"], values["used"], decoder.calls) == ("3", "1", "6", 9)
    rig.sweeps += 1
    rig.listen("depth/image")
    rig.send_sweep()
    assert len(rig.depths()) == 3
    assert rig.status()[0] == OK


def test_commands_to_the_lens_are_heard_while_nobody_asks(make_rig: Callable[..., Rig]) -> None:
    """The focus of the first image for a subscriber was commanded before he came."""
    lens = {"focal_length_m": CAMERA.focal_length_m, "f_number": CAMERA.f_number}
    rig = make_rig({"node": {"focus_source": "commands"}, "stack": {"size": 3}, "lens": lens})
    command = rig.focus(0, rig.bus.now_ns(), count=0)
    rig.send("focus", focus_message(command, "lens", source="COMMANDED"))
    rig.advance(3000)
    rig.listen("depth/image")
    for i in (0, 1, 2, 0):
        if i:
            command = rig.focus(i, rig.bus.now_ns(), count=0)
            rig.send("focus", focus_message(command, "lens", source="COMMANDED"))
        stamp = rig.bus.now_ns() + 10**6
        rig.send("camera_info", camera_info_message(intrinsics(CAMERA, SIZE), SIZE, stamp, "lens"))
        rig.send("image", image_message(rig.stack.images[i], stamp, "lens"))
        rig.advance(33)
    assert len(rig.depths()) == 1
    assert np.nanmedian(depth_from_message(rig.depths()[0])) == pytest.approx(PLANE_M, rel=0.03)


# -- ~/capture without subscribers -------------------------------------------------------------------------------------


def test_capture_takes_the_next_stack(make_rig: Callable[..., Rig], tmp_path: Path, decoder: Decoder) -> None:
    rig = make_rig({"node": {"capture_folder": str(tmp_path)}})
    rig.send_sweep()
    requests = [Request(rig), Request(rig)]
    assert not any(request.answered for request in requests)
    stamps = rig.send_sweep()
    answers = [request.answer() for request in requests]
    rig.send_sweep()
    assert decoder.calls == 3  # of the captured sweep alone
    assert answers[0].success and answers[0].message == answers[1].message
    captured = load_stack(answers[0].message)
    assert captured.stamp_ns.tolist() == stamps
    np.testing.assert_array_equal(captured.images, rig.stack.images)
    assert rig.status()[2]["published"] == "0"


def test_capture_does_not_take_a_stack_of_before(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig({"node": {"capture_folder": str(tmp_path)}})
    rig.listen("depth/image")
    rig.send_sweep()
    stop_listening(rig)
    request = Request(rig)
    assert not request.answered
    stamps = rig.send_sweep()
    assert load_stack(request.answer().message).stamp_ns.tolist() == stamps


def test_capture_without_images_is_answered_by_the_transports_clock(
    make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = make_rig({"node": {"capture_folder": str(tmp_path)}})
    rig.send_sweep()
    rig.advance(7000)
    request = Request(rig)
    for _ in range(6):
        assert not request.answered
        rig.advance(1000)
    rig.advance(1000)
    answer = request.answer()
    assert (answer.success, answer.message) == (False, "no focal stack within 6 s: no image came")
    assert list(tmp_path.iterdir()) == []
    again = Request(rig)  # is asked anew, and for a time of its own
    rig.send_sweep()
    assert again.answer().success


def test_capture_of_images_that_make_no_stack_is_answered(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    request = Request(rig)
    for _ in range(70):
        rig.send("image", image_message(rig.stack.images[0], rig.bus.now_ns(), "lens"))
        rig.advance(100)
    assert (
        request.answer().message == "no focal stack within 6 s: images come, but make no stack; /diagnostics says why"
    )
    assert int(rig.status()[2]["no_focus"]) > 0


def test_capture_of_an_inactive_node_is_refused_and_of_one_that_is_deactivated_answered(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    request = Request(rig)
    rig.node.deactivate()
    assert request.answer().message == "the node was deactivated"
    assert Request(rig).answer().message == "the node is inactive and takes no images; activate it first"

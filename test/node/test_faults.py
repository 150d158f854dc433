"""What is wrong on the wire: counted and said by the depth node, never a crash, never depth."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from node_rig import CAMERA, ERROR, MS, OK, SIZE, START_NS, WARN, Rig

from dfs_ros.messages.convert import (
    CAMERA_INFO,
    camera_info_message,
    focus_message,
    image_message,
    message,
    stamp_ns,
)
from dfs_ros.optics.pinhole import Intrinsics, intrinsics
from dfs_ros.types import LensState


def with_fields(msg: Any, **fields: Any) -> Any:
    return dataclasses.replace(msg, **fields)


def bad_images(image: np.ndarray) -> dict[str, tuple[Any, str]]:
    good = image_message(image, START_NS, "lens")
    return {
        "encoding": (with_fields(good, encoding="jpeg2000"), "encoding: expected one of"),
        "no encoding": (with_fields(good, encoding=""), "encoding: expected one of"),
        "too little data": (with_fields(good, data=np.asarray(good.data)[:-1]), "received a step of"),
        "too much data": (with_fields(good, height=good.height - 1), "received a step of"),
        "short rows": (with_fields(good, step=good.step - 1), "received a step of"),
        "no pixels": (with_fields(good, width=0, height=0, step=0, data=np.zeros(0, np.uint8)), "received a step of"),
        "tiny": (image_message(np.zeros((8, 8), np.uint8), START_NS, "lens"), "at least 16 x 16 pixels"),
        "huge": (with_fields(good, width=20000, height=20000), "at most 50 megapixels, received 20000 x 20000"),
    }


@pytest.mark.parametrize("what", list(bad_images(np.zeros((*SIZE, 3), np.uint8))))
def test_images_that_cannot_be_read_are_counted_and_refused(rig: Rig, what: str) -> None:
    bad, words = bad_images(rig.stack.images[0])[what]
    rig.send("image", bad)
    level, text, values = rig.status()
    assert level == ERROR
    assert words in text
    assert values["bad_image"] == "1"
    assert values["received"] == "0"
    assert rig.status("dfs: transport")[2]["/image refused"] == "1"
    rig.send_sweep()
    assert len(rig.depths()) == 1


def wrong_size(rig: Rig) -> None:
    rig.info = camera_info_message(intrinsics(CAMERA.scaled(2.0), (144, 192)), (144, 192), START_NS, "lens")


def uncalibrated(rig: Rig) -> None:
    rig.info = message(CAMERA_INFO, height=SIZE[0], width=SIZE[1])


def not_a_number(rig: Rig) -> None:
    rig.info = camera_info_message(Intrinsics(math.nan, 1.0, 0.0, 0.0), SIZE, START_NS, "lens")


def no_f_number(rig: Rig) -> None:
    rig.lens = dataclasses.replace(CAMERA)
    object.__setattr__(rig.lens, "f_number", math.nan)


def negative_f_number(rig: Rig) -> None:
    rig.lens = dataclasses.replace(CAMERA)
    object.__setattr__(rig.lens, "f_number", -2.0)


def millimetres(rig: Rig) -> None:
    rig.lens = dataclasses.replace(CAMERA)
    object.__setattr__(rig.lens, "focal_length_m", 4.3)


@pytest.mark.parametrize(
    ("spoil", "cause", "words"),
    [
        (wrong_size, "wrong_camera_info", "camera_info is of 192 x 144 pixels, the images have 96 x 72"),
        (uncalibrated, "bad_camera_info", "expected a calibrated camera"),
        (not_a_number, "bad_camera_info", "expected a calibrated camera"),
        (no_f_number, "no_lens", "the f-number of the lens is unknown"),
        (negative_f_number, "no_lens", "the f-number of the lens is unknown"),
    ],
)
def test_no_depth_without_a_known_camera(rig: Rig, spoil: Callable[[Rig], None], cause: str, words: str) -> None:
    spoil(rig)
    rig.send_sweep()
    level, text, values = rig.status()
    assert level == ERROR
    assert words in text
    assert int(values[cause]) > 0
    assert rig.depths() == []
    rig.info, rig.lens = None, CAMERA
    rig.send_sweep()
    assert len(rig.depths()) == 1
    assert rig.status()[0] == OK


def test_a_focal_length_in_millimetres_is_refused(rig: Rig) -> None:
    millimetres(rig)
    rig.send_sweep()
    level, _, values = rig.status()
    assert (level, rig.depths()) == (ERROR, [])
    assert values["bad_focus"] == "3"  # no lens of 25 m


@pytest.mark.parametrize("focus", [math.nan, math.inf, -math.inf, -0.5, 50.0])
def test_focus_that_makes_no_sense_is_counted_and_makes_no_depth(rig: Rig, focus: float) -> None:
    rig.send_sweep(focus_diopters=focus)
    level, text, values = rig.status()
    assert level == ERROR
    assert "images come, but make no stack: focus NaN, infinite, negative or inside the focal length (3)" in text
    assert values["invalid_focus"] == "3"
    assert rig.depths() == []


def test_images_without_focus_are_reported(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"stack": {"max_pending": 4}})
    rig.listen("depth/image")
    for i in range(12):
        rig.send("image", image_message(rig.stack.images[i % 3], rig.bus.now_ns(), "lens"))
        rig.advance(30)
    level, text, values = rig.status()
    assert (level, values["no_focus"]) == (ERROR, "8")
    assert "its focus metadata did not come in time (8)" in text
    assert rig.depths() == []


def test_a_stamp_that_jumps_back_starts_anew(rig: Rig) -> None:
    rig.send_sweep()
    rig.send_frame(0)
    rig.send_frame(1, stamp=rig.bus.now_ns() + 30 * MS)
    for i in range(3):  # the camera restarted with its clock at zero
        rig.send_frame(i, stamp=(i + 1) * 33 * MS)
    level, text, values = rig.status()
    assert (level, values["clock_reset"], values["incomplete"]) == (WARN, "1", "2")
    assert "times the images' clock was set back (1)" in text
    assert [stamp_ns(m.header.stamp) for m in rig.depths()][1:] == [2 * 33 * MS]


def test_moving_lens_and_lost_images_are_told_apart(rig: Rig) -> None:
    rig.send_sweep(lens_state=LensState.MOVING)
    level, text, values = rig.status()
    assert (level, values["moving"]) == (ERROR, "3")
    assert "the lens moved during the exposure (3)" in text
    rig.send_frame(0)
    rig.advance(67)
    rig.send_frame(2)
    rig.advance(33)
    rig.sweeps += 1
    rig.send_sweep()
    level, text, values = rig.status()
    assert (level, values["dropped"]) == (WARN, "1")
    assert "images that the driver numbered and that never came (1)" in text


def test_another_image_size_starts_anew(rig: Rig) -> None:
    rig.send_sweep()
    small = rig.stack.images[:, :48, :64]
    rig.info = camera_info_message(intrinsics(CAMERA, (48, 64)), (48, 64), START_NS, "lens")
    rig.stack = dataclasses.replace(rig.stack, images=np.ascontiguousarray(small))
    rig.send_sweep()
    assert [(m.height, m.width) for m in rig.depths()] == [SIZE, (48, 64)]
    assert rig.status()[2]["wrong_size"] == "1"


def test_silence_is_reported_and_ends_the_stack_at_hand(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.listen("depth/image")
    level, text, _ = rig.status()
    assert (level, text) == (OK, "computing depth")
    for i in (0, 1, 2, 1):  # unnumbered: only the next sweep would tell that the first is over
        rig.send_frame(i, count=0)
        rig.advance(30)
    assert rig.depths() == []
    for _ in range(4):
        rig.advance(1000)
    assert len(rig.depths()) == 1
    level, text, _ = rig.status()
    assert level == ERROR
    assert re.fullmatch(r"no image on /image for \d s", text)
    rig.camera.shutdown()
    assert rig.status()[1].endswith("s: nobody publishes it")


def test_focus_without_images_points_at_the_network(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({})
    rig.listen("depth/image")
    rig.send_sweep()
    for _ in range(60):  # more than may wait for their image
        rig.advance(100)
        rig.send("focus", focus_message(rig.focus(0, rig.bus.now_ns()), "lens"))
    level, text, _ = rig.status()
    assert level == ERROR
    hint = "but their focus comes: the network loses large messages, set node.reliable_input"
    assert re.fullmatch(rf"no image on /image for \d+ s, {hint}", text)


@pytest.mark.parametrize("reliable", [False, True])
@pytest.mark.parametrize("image_transport", ["raw", "compressed"])
def test_inputs_are_asked_for_as_set(make_rig: Callable[..., Rig], reliable: bool, image_transport: str) -> None:
    rig = make_rig({"node": {"reliable_input": reliable, "image_transport": image_transport}})
    image = "/image" if image_transport == "raw" else "/image/compressed"
    asked = {s.topic: s.qos.reliable for s in rig.transport.subscriptions}
    assert [asked[topic] for topic in (image, "/camera_info", "/focus")] == 3 * [reliable]


def test_images_that_cannot_be_read_do_not_keep_a_stack_open(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.listen("depth/image")
    for i in range(3):
        rig.send_frame(i, count=0)
        rig.advance(30)
    for _ in range(40):
        rig.send(
            "image", with_fields(image_message(rig.stack.images[0], rig.bus.now_ns(), "lens"), encoding="jpeg2000")
        )
        rig.advance(100)
    assert len(rig.depths()) == 1


def test_the_camera_stops_and_comes_back(rig: Rig) -> None:
    rig.send_sweep()
    rig.send_frame(0)
    for _ in range(5):
        rig.advance(1000)
    level, text, _ = rig.status()
    assert (level, text.startswith("no image on /image for ")) == (ERROR, True)
    rig.sweeps += 1
    rig.send_sweep()
    assert len(rig.depths()) == 2
    level, _, values = rig.status()
    assert (level, values["incomplete"]) == (WARN, "1")  # of the sweep in which it stopped two images never came
    rig.send_sweep()
    assert rig.status()[0] == OK


def test_the_focus_stops_and_comes_back(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"stack": {"max_pending": 4}})
    rig.listen("depth/image")
    rig.send_sweep()
    assert rig.status()[0] == OK
    for i in range(9):
        rig.send("image", image_message(rig.stack.images[i % 3], rig.bus.now_ns(), "lens"))
        rig.advance(33)
    level, text, values = rig.status()
    assert (level, values["no_focus"], values["early"]) == (ERROR, "5", "0")
    assert "its focus metadata did not come in time (5)" in text
    rig.send_sweep()
    assert len(rig.depths()) == 2
    level, _, values = rig.status()
    assert (level, values["no_focus"]) == (WARN, "9")  # those that still waited are given up
    rig.send_sweep()
    assert rig.status()[0] == OK
    assert len(rig.depths()) == 3


def test_the_last_subscriber_goes_and_another_comes(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.listen("depth/image")
    rig.send_sweep()
    subscription = next(s for s in rig.listener.subscriptions if s.topic == "/depth/image")
    rig.listener.unsubscribe(subscription)
    rig.send_sweep()
    level, text, values = rig.status()
    assert (level, text, values["published"], values["stacks"]) == (
        *(OK, "ready; nobody subscribes to depth"),
        *("1", "1"),
    )
    rig.listen("depth/image")
    rig.send_sweep()
    assert len(rig.depths()) == 2
    assert rig.status()[2]["published"] == "2"


def test_joining_a_camera_in_the_middle_of_its_sweep_is_no_fault(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.listen("depth/image")
    rig.send("image", image_message(rig.stack.images[0], rig.bus.now_ns(), "lens"))  # its focus was not yet received
    rig.advance(33)
    rig.send_frame(2)
    rig.advance(33)
    rig.sweeps += 1
    rig.send_sweep()
    level, text, values = rig.status()
    assert (level, text) == (OK, "computing depth")
    assert (values["early"], values["dropped"], values["no_focus"], values["incomplete"]) == ("1", "0", "0", "1")
    rig.node.deactivate()
    rig.node.activate()
    rig.sweeps += 1
    for i in (1, 2):
        rig.send_frame(i)
        rig.advance(33)
    rig.sweeps += 1
    rig.send_sweep()
    assert rig.status()[2]["dropped"] == "0"
    assert len(rig.depths()) == 2

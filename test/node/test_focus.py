"""Focus that is commanded and not reported: schedules by trigger and by time, commands as they are published."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_rig import CAMERA, ERROR, FOCUS_DIOPTERS, MS, OK, PLANE_M, SIZE, START_NS, WARN, Rig

from dfs_ros.config import Config, ScheduleConfig
from dfs_ros.messages.convert import FOCUS, camera_info_message, depth_from_message, focus_message, image_message
from dfs_ros.node.commanded_focus import LensCommands, schedule_of
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.transport.base import SENSOR_DATA
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import FocusMetadata, LensState

LENS = {"focal_length_m": CAMERA.focal_length_m, "f_number": CAMERA.f_number}
POSITIONS = ",".join(map(str, FOCUS_DIOPTERS))
PERIOD_NS = 33 * MS


def settings(**schedule: Any) -> ScheduleConfig:
    return Config.from_dict({"schedule": {"focus_diopters": "2.0, 1.0, 0.5", **schedule}}).schedule


def focus_at(schedule: Any, times_ms: Sequence[float]) -> list[tuple[float, int, int, int, bool]]:
    found = [schedule.focus_of(START_NS + round(t * MS)) for t in times_ms]
    return [(f.focus_diopters, f.sweep_id, f.index, f.count, f.lens_state == LensState.MOVING) for f in found]


# -- on the camera's trigger -------------------------------------------------------------------------------------------


def test_each_image_is_at_the_next_position() -> None:
    schedule = schedule_of(settings(rate_hz=100))
    assert focus_at(schedule, [0, 10, 20, 30, 40]) == [
        (2.0, 0, 0, 3, False),
        (1.0, 0, 1, 3, False),
        (0.5, 0, 2, 3, False),
        (2.0, 1, 0, 3, False),
        (1.0, 1, 1, 3, False),
    ]


def test_several_images_at_a_position_of_which_the_first_wait_for_the_lens() -> None:
    schedule = schedule_of(settings(rate_hz=100, frames_per_step=3, settle_s=0.015))
    found = focus_at(schedule, range(0, 90, 10))
    assert [focus for focus, *_ in found] == [2.0] * 3 + [1.0] * 3 + [0.5] * 3
    assert [index for _, _, index, _, _ in found] == list(range(9))
    assert [moving for *_, moving in found] == [True, True, False] * 3


def test_lost_images_shift_nothing_and_late_or_repeated_ones_neither() -> None:
    schedule = schedule_of(settings(rate_hz=100))
    assert [f for f, *_ in focus_at(schedule, [0, 10, 51, 40, 51, 60])] == [2.0, 1.0, 0.5, 1.0, 0.5, 2.0]


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(-2e-4, 2e-4), st.integers(0, 2**32))
def test_whatever_is_lost_the_rest_keeps_its_focus(lost: list[bool], drift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    schedule = schedule_of(settings(rate_hz=30))
    for i, missing in enumerate([False, *lost]):
        stamp = START_NS + round(i * (1 + drift) / 30 * 1e9 + rng.uniform(-0.1, 0.1) / 30 * 1e9 * (i > 0))
        if not missing:
            assert schedule.focus_of(stamp).focus_diopters == (2.0, 1.0, 0.5)[i % 3]


@pytest.mark.parametrize("step_ms", [14, 4_000_000])
def test_when_the_stamps_do_not_tell_the_position_there_is_no_focus_from_then_on(step_ms: float) -> None:
    schedule = schedule_of(settings(rate_hz=100))
    found = focus_at(schedule, [0, 10, 10 + step_ms, 20 + step_ms, 30 + step_ms])
    assert [f for f, *_ in found[:2]] == [2.0, 1.0]
    assert all(math.isnan(f) for f, *_ in found[2:])
    assert focus_at(schedule, [-9000, -8990])[1][0] == 1.0  # the clock at zero: camera and lens started anew


@pytest.mark.parametrize("step_s", [3600.0, 3650 * 86_400.0])
@pytest.mark.parametrize("lost", [0, 1, 4])
def test_after_the_clock_was_set_ahead_the_focus_is_found_again(step_s: float, lost: int) -> None:
    rng = np.random.default_rng(lost)
    schedule = schedule_of(settings(rate_hz=30))
    found = []
    for i in (*range(70), *range(70 + lost, 120)):
        stamp = START_NS + round(i / 30 * 1e9 + (step_s * 1e9 if i >= 70 else 0))
        received = round((i / 30 + rng.exponential(0.02)) * 1e9)  # late by two thirds of a period, and often by more
        found.append((schedule.focus_of(stamp, received).focus_diopters, (2.0, 1.0, 0.5)[i % 3]))
    assert all(focus == expected for focus, expected in (*found[:70], *found[79:]))
    assert all(math.isnan(focus) for focus, _ in found[70:79])


def test_a_pause_is_no_step_of_the_clock() -> None:
    schedule = schedule_of(settings(rate_hz=100))
    times_ms = [0, 10, 20, 3_600_020, 3_600_030]
    found = [schedule.focus_of(START_NS + t * MS, t * MS).focus_diopters for t in times_ms]
    assert found[:3] == [2.0, 1.0, 0.5] and all(math.isnan(focus) for focus in found[3:])


# -- by the clock ------------------------------------------------------------------------------------------------------


def test_positions_by_time() -> None:
    timed = settings(trigger="time", step_s=0.1, settle_s=0.03, exposure_s=0.02)
    found = focus_at(schedule_of(timed), [0, 40, 79, 81, 99, 100, 131, 250, 299, 330, 10_140])
    assert [(f, moving) for f, _, _, _, moving in found] == [
        (2.0, True),
        (2.0, False),
        (2.0, False),
        (2.0, True),  # the next command comes during its exposure
        (2.0, True),
        (1.0, True),
        (1.0, False),
        (0.5, False),
        (0.5, True),
        (2.0, False),
        (0.5, False),
    ]
    assert {count for _, _, _, count, _ in found} == {0}  # the assembler finds the sweeps from the focus


@pytest.mark.parametrize("step_s", [-3600, -11, 11, 3600])
def test_positions_by_time_are_unknown_after_the_clock_was_set(step_s: int) -> None:
    schedule = schedule_of(settings(trigger="time", step_s=0.1))
    steady_ns = 5 * 10**9
    assert schedule.focus_of(START_NS, steady_ns) == schedule.focus_of(START_NS, steady_ns)
    slow = schedule.focus_of(START_NS + 9_000 * MS, steady_ns + 100 * MS)  # a burst after a busy time
    assert slow is not None and slow.focus_diopters == 2.0
    for after_ms in (0, 100):
        stamp_ns = START_NS + step_s * 10**9 + (9_100 + after_ms) * MS
        found = schedule.focus_of(stamp_ns, steady_ns + (200 + after_ms) * MS)
        assert found is not None and math.isnan(found.focus_diopters)


def test_positions_by_time_from_a_known_start() -> None:
    timed = settings(trigger="time", step_s=0.1, start_ns=START_NS + 50 * MS)
    assert [f for f, *_ in focus_at(schedule_of(timed), [-60, 0, 49, 51, 151])] == [1.0, 0.5, 0.5, 2.0, 1.0]


# -- commands ----------------------------------------------------------------------------------------------------------


def command(ms: float, focus: float, **fields: Any) -> FocusMetadata:
    return FocusMetadata(START_NS + round(ms * MS), focus, **fields)


def test_the_last_command_before_the_exposure_counts() -> None:
    commands = LensCommands(settings(settle_s=0.05, exposure_s=0.01))
    assert commands.focus_of(START_NS) is None
    commands.add(command(100, 2.0, sweep_id=3, index=1, count=5, focal_length_m=0.01))
    assert commands.focus_of(START_NS + 99 * MS) is None
    commands.add(command(300, 1.0))
    assert focus_at(commands, [120, 150, 289, 291, 310, 350]) == [
        (2.0, 0, 0, 0, True),
        (2.0, 0, 0, 0, False),
        (2.0, 0, 0, 0, False),
        (2.0, 0, 0, 0, True),
        (1.0, 0, 0, 0, True),
        (1.0, 0, 0, 0, False),
    ]
    image = commands.focus_of(START_NS + 160 * MS)
    assert image is not None
    assert (image.stamp_ns, image.focal_length_m, image.exposure_ns) == (START_NS + 160 * MS, 0.01, 10 * MS)


def test_a_command_to_where_the_lens_is_moves_nothing() -> None:
    commands = LensCommands(settings(settle_s=0.05))
    for ms in (0, 200, 210):
        commands.add(command(ms, 2.0))
    assert focus_at(commands, [215])[0] == (2.0, 0, 0, 0, False)


def test_commands_of_a_clock_that_was_set_back() -> None:
    commands = LensCommands(settings())
    for ms, focus in ((1000, 2.0), (1100, 1.0), (5, 0.5), (20, 2.0)):
        commands.add(command(ms, focus))
    assert [f for f, *_ in focus_at(commands, [10, 30, 1200])] == [0.5, 2.0, 2.0]


# -- settings that make no sense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"focus_diopters": ""}, "expected 2 to 64 positions, two of them different, received ''"),
        ({"focus_diopters": "1.0"}, "expected 2 to 64 positions"),
        ({"focus_diopters": "1.0, 1.0"}, "two of them different"),
        ({"focus_diopters": ",".join(map(str, range(65)))}, "expected 2 to 64 positions"),
        ({"focus_diopters": "1.0; 2.0"}, "expected numbers with commas between"),
        ({"focus_diopters": "1.0, -2.0"}, "expected dioptres of 0 (infinity) or more"),
        ({"focus_diopters": "1.0, nan"}, "expected finite dioptres"),
        ({}, "schedule.rate_hz: expected images per second over 0"),
        ({"rate_hz": 30, "settle_s": 0.034}, "schedule.settle_s: expected less than the 0.0333333 s of 1 images"),
        (
            {"trigger": "time", "step_s": 0.1, "settle_s": 0.08, "exposure_s": 0.02},
            "schedule.step_s: expected more than",
        ),
    ],
)
def test_a_node_does_not_start_with_nonsense(schedule: dict[str, Any], words: str) -> None:
    values = {"schedule": {"focus_diopters": "2.0,1.0", **schedule}, "node": {"focus_source": "schedule"}}
    config = Config.from_dict(values)
    with pytest.raises(ValueError) as error:
        DepthNode(LocalTransport("dfs", LocalBus(0), config=config))
    assert words in str(error.value)


# -- in the node -------------------------------------------------------------------------------------------------------


def send_image(rig: Rig, i: int) -> int:
    stamp = rig.bus.now_ns()
    rig.send("camera_info", camera_info_message(intrinsics(CAMERA, SIZE), SIZE, stamp, "lens"))
    rig.send("image", image_message(rig.stack.images[i], stamp, "lens"))
    return stamp


def near_plane(depth: Any) -> bool:
    return bool(np.nanmedian(depth_from_message(depth)) == pytest.approx(PLANE_M, rel=0.03))


def scheduled(make_rig: Callable[..., Rig], **schedule: Any) -> Rig:
    values = {"focus_diopters": POSITIONS, "rate_hz": 1e9 / PERIOD_NS, **schedule}
    rig = make_rig({"node": {"focus_source": "schedule"}, "schedule": values, "lens": LENS})
    rig.listen("depth/image")
    return rig


def test_depth_from_a_schedule_and_lost_images_are_counted(make_rig: Callable[..., Rig]) -> None:
    rig = scheduled(make_rig)
    for number in range(15):
        if number not in (4, 5, 10):
            send_image(rig, number % 3)
        rig.advance(33)
    assert len(rig.depths()) == 3  # of the sweeps 0, 2 and 4; of 1 and 3 too few images came
    assert all(map(near_plane, rig.depths()))
    level, text, values = rig.status()
    assert (level, values["dropped"], values["incomplete"]) == (WARN, "3", "3")
    assert "images that the driver numbered and that never came (3)" in text


def test_images_while_the_lens_moves_are_left_out(make_rig: Callable[..., Rig]) -> None:
    rig = scheduled(make_rig, frames_per_step=2, settle_s=0.02)
    for number in range(12):
        # The first image of each step is of another focus: it would spoil the depth.
        send_image(rig, (number // 2 + (1 if number % 2 == 0 else 0)) % 3)
        rig.advance(33)
    assert len(rig.depths()) == 2
    assert all(map(near_plane, rig.depths()))
    assert rig.status()[2]["moving"] == "6"


def test_an_irregular_camera_gives_no_depth_and_says_why(make_rig: Callable[..., Rig]) -> None:
    rig = scheduled(make_rig)
    for number in range(9):
        send_image(rig, number % 3)
        rig.advance(33 if number < 3 else 50)
    assert len(rig.depths()) == 1
    level, text, values = rig.status()
    assert (level, values["invalid_focus"]) == (WARN, "4")  # of five, of which the last waits for one more
    assert "focus NaN" in text
    for number in range(3):
        send_image(rig, number)
        rig.advance(33)
    assert rig.status()[0] == ERROR


def test_depth_from_commands(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"node": {"focus_source": "commands"}, "schedule": {"settle_s": 0.05}, "stack": {"size": 3}})
    rig.listen("depth/image")
    for number in range(7):  # the first of a sweep tells that the last one is over
        focus = FocusMetadata(rig.bus.now_ns(), FOCUS_DIOPTERS[number % 3], **LENS)
        rig.send("focus", focus_message(focus, "lens", source="COMMANDED"))
        rig.advance(20)
        send_image(rig, (number + 1) % 3)  # on its way: of any focus
        rig.advance(40)
        send_image(rig, number % 3)
        rig.advance(20)
    assert len(rig.depths()) == 2
    assert all(map(near_plane, rig.depths()))
    level, _, values = rig.status()
    assert (level, values["moving"]) == (OK, "7")


def test_images_before_the_first_command_wait_in_vain(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"node": {"focus_source": "commands"}, "stack": {"max_pending": 4}})
    rig.listen("depth/image")
    for number in range(10):
        send_image(rig, number % 3)
        rig.advance(33)
    level, text, values = rig.status()
    assert (level, values["no_focus"]) == (ERROR, "6")
    assert "its focus metadata did not come in time (6)" in text


def test_commands_that_could_get_lost_are_not_taken(
    make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig({"node": {"focus_source": "commands"}})
    publisher = rig.camera.create_publisher("focus", FOCUS, SENSOR_DATA)
    assert publisher.subscription_count() == 0
    assert "/focus: no messages will pass" in caplog.text
    assert rig.publishers["focus"].subscription_count() == 1

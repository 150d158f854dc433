"""StackAssembler by example: image and focus find each other; what is unusable is counted and never mixed in."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from places import ROOT
from stack_rig import IMAGE, NAN, PERIOD_NS, add_frame, feed, foci, frame, metadata, nonzero, numbered, told

from dfs_ros.config import Config, StackConfig
from dfs_ros.stacks.assembler import EVENTS, OUTCOMES, FrameStack, StackAssembler
from dfs_ros.types import FocusMetadata, LensState

# -- pairing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0, 1, 4, -1, -4])
def test_image_and_focus_meet_whichever_comes_first(lag: int) -> None:
    frames = numbered(6, [0.5, 1.0, 1.5, 2.0, 2.5])
    assembler = StackAssembler()
    stacks: list[FrameStack] = []
    for i in range(-4, len(frames) + 4):
        if 0 <= i < len(frames):
            stacks += assembler.add_image(frames[i].stamp_ns, IMAGE)
        if 0 <= i - lag < len(frames):
            stacks += assembler.add_focus(metadata(frames[i - lag], magnification=1.25))
    assert [stack.sweep_id for stack in stacks] == [0, 1, 2, 3, 4, 5]
    first = stacks[0].frames[2]
    assert (first.focus_diopters, first.index, first.count, first.magnification) == (1.5, 2, 5, 1.25)
    assert nonzero(assembler) == {"used": 30, "received": 30, "stacks": 6}


def test_focus_must_have_the_exact_stamp_unless_a_tolerance_is_set() -> None:
    frames = numbered(1, [0.5, 1.0, 1.5])
    for tolerance, expected in ((0, []), (999_999, []), (1_000_000, [[0.5, 1.0, 1.5]])):
        assembler = StackAssembler(StackConfig(match_tolerance_ns=tolerance))
        stacks = []
        for f in frames:
            stacks += assembler.add_image(f.stamp_ns, IMAGE)
            stacks += assembler.add_focus(metadata(f, stamp_ns=f.stamp_ns + 1_000_000))
        assert foci(stacks) == expected
        assert assembler.pending == (0 if expected else 3)
        assert {f.stamp_ns for stack in stacks for f in stack.frames} <= {f.stamp_ns for f in frames}


def test_tolerance_takes_the_nearest() -> None:
    assembler = StackAssembler(
        StackConfig(match_tolerance_ns=12_000_000, reorder_frames=0, mode="sliding", min_frames=2)
    )
    for stamp_ns, focus in ((-10_000_000, 9.0), (4_000_000, 1.0), (30_000_000, 2.0)):
        assembler.add_focus(FocusMetadata(stamp_ns, focus))
    stacks = assembler.add_image(0, IMAGE) + assembler.add_image(PERIOD_NS, IMAGE)
    assert foci(stacks) == [[1.0, 2.0]]


def test_image_without_focus_is_given_up_when_a_newer_one_is_passed_on() -> None:
    frames = numbered(2, [0.5, 1.0, 1.5, 2.0])
    assembler = StackAssembler()
    for f in frames:
        assembler.add_image(f.stamp_ns, IMAGE)
    stacks = [s for f in frames if f is not frames[5] for s in assembler.add_focus(metadata(f))]
    assert foci(stacks) == [[0.5, 1.0, 1.5, 2.0]]
    assert nonzero(assembler) == {"used": 4, "no_focus": 1, "received": 8, "stacks": 1}
    assert assembler.add_focus(metadata(frames[5])) == [], "too late"
    assert assembler.counts["unmatched_focus"] == 1


def test_waiting_images_and_metadata_are_bounded() -> None:
    assembler = StackAssembler(StackConfig(max_pending=4))
    for i in range(10):
        assembler.add_image(i * PERIOD_NS, IMAGE)
    assert nonzero(assembler) == {"no_focus": 6, "received": 10} and assembler.pending == 4
    assembler = StackAssembler(StackConfig(max_pending=4))
    for i in range(10):
        assembler.add_focus(FocusMetadata(i * PERIOD_NS, 1.0))
    assert nonzero(assembler) == {"unmatched_focus": 6}
    assert assembler.add_image(5 * PERIOD_NS, IMAGE) == [] and assembler.add_image(6 * PERIOD_NS, IMAGE) == []
    assert assembler.flush() == []
    assert nonzero(assembler) == {"no_focus": 1, "incomplete": 1, "received": 2, "unmatched_focus": 6}


def test_metadata_that_comes_twice_does_no_harm() -> None:
    frames = numbered(2, [0.5, 1.0, 1.5])
    assembler = StackAssembler()
    stacks = []
    for f in frames:
        stacks += assembler.add_focus(metadata(f)) + assembler.add_focus(metadata(f))
        stacks += assembler.add_image(f.stamp_ns, IMAGE) + assembler.add_focus(metadata(f))
    assert foci(stacks) == [[0.5, 1.0, 1.5]] * 2
    assert nonzero(assembler) == {"used": 6, "received": 6, "stacks": 2, "unmatched_focus": 12}


# -- what must not be in a stack -------------------------------------------------------------------


def test_duplicates() -> None:
    frames = numbered(2, [0.5, 1.0, 1.5, 2.0])
    again = frame(20, 1.5, (1, 2, 4), stamp_ns=frames[6].stamp_ns + 1)  # same place in the sweep, another stamp
    assembler = StackAssembler()
    stacks = feed(assembler, [frames[0], *frames[:2], frames[1], *frames[2:7], again, again, frames[7], frames[3]])
    assert [told(stack.frames) for stack in stacks] == [told(frames[:4]), told(frames[4:])]
    assert nonzero(assembler) == {"used": 8, "duplicate": 5, "received": 13, "stacks": 2}


def test_duplicate_of_an_image_that_waits() -> None:
    assembler = StackAssembler()
    assert [assembler.add_image(5, IMAGE) for _ in range(3)] == [[], [], []]
    assert nonzero(assembler) == {"duplicate": 2, "received": 3}
    assert assembler.pending == 1


def test_late_images() -> None:
    frames = numbered(3, [0.5, 1.0, 1.5, 2.0])
    assembler = StackAssembler()
    stacks = feed(assembler, [*frames[:5], *frames[6:9], frames[5], *frames[9:]])
    assert foci(stacks) == [[0.5, 1.0, 1.5, 2.0], [0.5, 1.5, 2.0], [0.5, 1.0, 1.5, 2.0]]
    assert nonzero(assembler) == {"used": 11, "late": 1, "received": 12, "stacks": 3, "dropped": 1}


def test_neighbours_that_change_places_do_not_matter() -> None:
    frames = numbered(3, [0.5, 1.0, 1.5, 2.0])
    swapped = frames.copy()
    for i in (1, 3, 6, 8):
        swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
    given, expected = (feed(StackAssembler(), each) for each in (swapped, frames))
    assert [told(stack.frames) for stack in given] == [told(stack.frames) for stack in expected] != []


def test_a_whole_sweep_that_is_overtaken_is_waited_for() -> None:
    frames = numbered(3, [0.5, 1.0])
    arrived = [frames[i] for i in (0, 1, 4, 2, 3, 5)]
    assert [s.sweep_id for s in feed(StackAssembler(StackConfig(reorder_frames=2)), arrived)] == [0, 1, 2]


def test_moving_lens() -> None:
    frames = numbered(2, [0.5, 1.0, 1.5, 2.0])
    changes: dict[int, dict[str, object]] = {
        1: {"lens_state": LensState.MOVING},
        4: {"focus_start_diopters": 0.4, "focus_end_diopters": 0.6},
        6: {"focus_start_diopters": 1.4, "focus_end_diopters": 1.6, "lens_state": LensState.STATIONARY},
        7: {"focus_start_diopters": 2.0, "focus_end_diopters": 2.01},
    }
    assembler = StackAssembler(StackConfig(min_coverage=0.5))
    stacks = []
    for i, f in enumerate(frames):
        assembler.add_image(f.stamp_ns, IMAGE)
        stacks += assembler.add_focus(metadata(f, **changes.get(i, {})))
    assert foci(stacks) == [[0.5, 1.5, 2.0], [1.0, 1.5, 2.0]]
    assert [stack.complete for stack in stacks] == [False, False]
    assert nonzero(assembler) == {"used": 6, "moving": 2, "received": 8, "stacks": 2}, "moving frames are not lost ones"


@pytest.mark.parametrize("focus", [NAN, float("inf"), -0.1, 25.0])
@pytest.mark.parametrize("alone", [True, False])
def test_impossible_focus(focus: float, alone: bool) -> None:
    frames = numbered(1, [0.5, 1.0, focus, 2.0])
    assembler = StackAssembler()
    stacks = []
    for f in frames:
        if alone:
            assembler.add_image(f.stamp_ns, IMAGE)
            stacks += assembler.add_focus(metadata(f, focal_length_m=0.05))
        else:
            stacks += add_frame(assembler, dataclasses.replace(f, focal_length_m=0.05))
    assert foci(stacks) == [[0.5, 1.0, 2.0]]
    assert nonzero(assembler) == {"used": 3, "invalid_focus": 1, "received": 4, "stacks": 1}


def test_unknown_focal_length_and_magnification_of_a_message_left_empty() -> None:
    assembler = StackAssembler(StackConfig(mode="sliding", min_frames=2, reorder_frames=0))
    stacks = []
    for i in range(2):
        assembler.add_image(i, IMAGE)
        stacks += assembler.add_focus(FocusMetadata(i, float(i), focal_length_m=0.0, magnification=0.0))
    assert foci(stacks) == [[0.0, 1.0]]
    assert np.isnan([f.magnification for f in stacks[0].frames]).all()


@pytest.mark.parametrize("mode", ["sweep", "sliding"])
def test_other_image_size_starts_anew(mode: str) -> None:
    frames = numbered(5, [0.5, 1.0, 1.5, 2.0])
    for i in range(10, 20):  # from the middle of the third sweep
        frames[i] = frame(i, frames[i].focus_diopters, (i // 4, i % 4, 4), image=np.zeros((16, 20, 3), np.uint8))
    assembler = StackAssembler(StackConfig(mode=mode))
    stacks = feed(assembler, frames)
    shapes = [{f.image.shape for f in stack.frames} for stack in stacks]
    assert all(len(shape) == 1 for shape in shapes)
    assert shapes[0] == {(16, 20)} and shapes[-1] == {(16, 20, 3)}
    expected = {"received": 20, "wrong_size": 1}
    if mode == "sweep":
        expected |= {"used": 16, "incomplete": 4, "stacks": 4}
    else:
        expected |= {"used": 20, "stacks": 16}
    assert nonzero(assembler) == expected


@pytest.mark.parametrize("mode", ["sweep", "sliding"])
def test_bag_that_loops(mode: str) -> None:
    """The same stamps again are neither duplicates nor late, and no stack spans the seam."""
    loop = numbered(8, [0.5, 1.0, 1.5, 2.0])[:30]
    assembler = StackAssembler(StackConfig(mode=mode))
    stacks: list[FrameStack] = []
    for n in range(3):
        for f in loop:
            stacks += assembler.add_focus(metadata(f))
            stacks += assembler.add_image(f.stamp_ns, np.full((16, 16), n, np.uint8))
    loops_of = [{int(f.image[0, 0]) for f in stack.frames} for stack in stacks]
    assert all(len(loops) == 1 for loops in loops_of)
    each = 7 if mode == "sweep" else 28
    assert [sum(loops == {n} for loops in loops_of) for n in range(3)] == [each] * 3
    counts = nonzero(assembler)
    assert counts["clock_reset"] == 2
    assert counts.get("duplicate", 0) == counts.get("late", 0) == counts.get("no_focus", 0) == 0


def test_focus_from_before_a_clock_reset_is_not_paired_with_an_image_after() -> None:
    assembler = StackAssembler(StackConfig(mode="sliding", min_frames=2, reorder_frames=0))
    assembler.add_focus(FocusMetadata(PERIOD_NS, 9.0))  # its image is lost
    assembler.add_focus(FocusMetadata(60 * PERIOD_NS, 1.0))
    assembler.add_image(60 * PERIOD_NS, IMAGE)
    assembler.add_image(0, IMAGE)
    assembler.add_image(PERIOD_NS, IMAGE)
    stacks = assembler.add_focus(FocusMetadata(0, 2.0)) + assembler.add_focus(FocusMetadata(PERIOD_NS, 3.0))
    assert foci(stacks) == [[2.0, 3.0]]


def test_image_from_before_a_clock_reset_is_not_paired_with_focus_after() -> None:
    assembler = StackAssembler()
    assembler.add_focus(FocusMetadata(5 * PERIOD_NS, 1.0))
    for time in (10, 60):  # their focus is lost
        assembler.add_image(time * PERIOD_NS, IMAGE)
    for time in (70, 0, 10):
        assembler.add_focus(FocusMetadata(time * PERIOD_NS, 1.0))
    assert nonzero(assembler) == {"no_focus": 2, "received": 2, "unmatched_focus": 2}


def test_one_wild_stamp_costs_a_sweep_and_no_more() -> None:
    frames = numbered(4, [0.5, 1.0, 1.5, 2.0])
    wild = frame(0, 1.0, (1, 1, 4), stamp_ns=10**18)
    assembler = StackAssembler()
    stacks = feed(assembler, [*frames[:5], wild, *frames[5:]])
    assert [stack.sweep_id for stack in stacks if stack.complete] == [0, 2, 3]
    assert assembler.counts["clock_reset"] == 1


def test_input_of_the_wrong_kind_is_refused_and_not_counted() -> None:
    assembler = StackAssembler()
    with pytest.raises(TypeError, match="expected a uint8 array, received float64"):
        assembler.add_image(0, np.zeros((16, 16)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 16 x 16"):
        assembler.add_image(0, np.zeros((4, 4), np.uint8))
    with pytest.raises(TypeError):
        assembler.add_image(0.5, IMAGE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="received 1"):
        StackAssembler(StackConfig(size=1))
    assert nonzero(assembler) == {}


def test_counters_are_all_described_and_read_only() -> None:
    counts = StackAssembler().counts
    assert set(counts) == set(OUTCOMES) | set(EVENTS)
    with pytest.raises(TypeError):
        counts["used"] = 1  # type: ignore[index]


def test_flush_gives_out_what_is_there_and_goes_on() -> None:
    assembler = StackAssembler()
    frames = numbered(2, [0.5, 1.0, 1.5, 2.0])
    assert feed(assembler, frames[:3]) == []
    (stack,) = assembler.flush()
    assert foci([stack]) == [[0.5, 1.0, 1.5]] and not stack.complete
    assert assembler.flush() == [] and assembler.pending == 0
    assert foci(feed(assembler, frames[3:])) == [[0.5, 1.0, 1.5, 2.0]]


# -- agreement with other files --------------------------------------------------------------------


def test_lens_states_are_those_of_the_message() -> None:
    text = (ROOT / "msg" / "FrameFocus.msg").read_text()
    states = {name: int(value) for name, value in re.findall(r"uint8 (STATIONARY|MOVING|UNKNOWN)=(\d+)", text)}
    assert states == {state.name: state.value for state in LensState}
    assert LensState(77) is LensState.UNKNOWN


def test_settings_are_checked_by_the_configuration() -> None:
    assert Config.from_dict({"stack": {"mode": "sliding", "max_span_s": 1}}).stack == StackConfig(
        "sliding", max_span_s=1.0
    )
    for wrong in ({"mode": "both"}, {"min_frames": 1}, {"max_span_s": 0.0}, {"max_pending": 0}):
        with pytest.raises(ValueError, match=f"stack.{next(iter(wrong))}"):
            Config.from_dict({"stack": wrong})

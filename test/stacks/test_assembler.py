"""StackAssembler by example: each way images can come."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stack_rig import PERIOD_NS, add_frame, feed, foci, frame, nonzero, numbered, told, unnumbered

from dfs_ros.config import StackConfig
from dfs_ros.stacks.assembler import StackAssembler
from dfs_ros.types import Camera, FocalStack

# -- whole sweeps ----------------------------------------------------------------------------------


def test_numbered_sweep_is_given_out_with_its_last_frame_and_fits_a_focal_stack() -> None:
    assembler = StackAssembler()
    frames = numbered(2, [0.5, 1.0, 1.5, 2.0])
    assert [len(add_frame(assembler, f)) for f in frames] == [0, 0, 0, 1, 0, 0, 0, 1]
    (sweep,) = feed(StackAssembler(), frames[:4])
    assert told(sweep.frames) == told(frames[:4])
    assert (sweep.newest_stamp_ns, sweep.sweep_id, sweep.complete) == (3 * PERIOD_NS, 0, True)
    stack = FocalStack.from_frames(list(sweep.frames), Camera(0.005, 2.0, 4e-6))
    assert stack.focus_diopters.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert nonzero(assembler) == {"used": 8, "received": 8, "stacks": 2}


def test_numbered_sweeps_in_any_focus_order() -> None:
    assembler = StackAssembler()
    stacks = feed(assembler, numbered(2, [1.0, 5.0, 2.0, 4.0, 3.0]))
    assert foci(stacks) == [[1.0, 5.0, 2.0, 4.0, 3.0]] * 2
    assert all(stack.complete for stack in stacks)


def test_both_ways_of_a_sweep_under_one_number_give_the_newest_image_of_each_focus() -> None:
    assembler = StackAssembler()
    assert foci(feed(assembler, numbered(1, [1.0, 2.0, 3.0, 3.0, 2.0, 1.0]))) == [[3.0, 2.0, 1.0]]
    assert nonzero(assembler) == {"used": 3, "same_focus": 3, "received": 6, "stacks": 1}


def test_triangular_sweeps_are_found_from_the_focus_and_share_the_turn() -> None:
    assembler = StackAssembler()
    assert unnumbered(assembler, [1, 2, 3, 4, 3, 2, 1, 2, 3, 4, 3]) == [[1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 3, 4]]
    assert nonzero(assembler) == {"used": 10, "incomplete": 1, "received": 11, "stacks": 3}


def test_triangular_sweeps_with_two_images_at_the_turn_use_both() -> None:
    assembler = StackAssembler()
    frames = [frame(i, f) for i, f in enumerate([1, 2, 3, 3, 2, 1, 1, 2, 3])]
    stacks = feed(assembler, frames) + assembler.flush()
    assert [[f.stamp_ns // PERIOD_NS for f in stack.frames] for stack in stacks] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert nonzero(assembler) == {"used": 9, "received": 9, "stacks": 3}


def test_a_lens_that_lingers_gives_the_last_image_of_each_position() -> None:
    # Three images at each position, 4 at the turn: a driver may report the position an image early.
    focus = [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 2, 2, 2, 1, 1, 1]
    assembler = StackAssembler()
    stacks = feed(assembler, [frame(i, f) for i, f in enumerate(focus)]) + assembler.flush()
    assert [[f.stamp_ns // PERIOD_NS for f in stack.frames] for stack in stacks] == [[2, 5, 9], [9, 12, 15]]
    assert nonzero(assembler) == {"used": 5, "same_focus": 11, "received": 16, "stacks": 2}


def test_a_lens_that_lingers_with_a_known_size() -> None:
    focus = [1, 1, 2, 2, 3, 3, 1, 1, 2, 2, 3, 3, 1, 1]
    assembler = StackAssembler(StackConfig(size=3))
    stacks = feed(assembler, [frame(i, f) for i, f in enumerate(focus)])
    assert [[f.stamp_ns // PERIOD_NS for f in stack.frames] for stack in stacks] == [[1, 3, 5], [7, 9, 11]]
    # One size less than the sweep has: the next stack starts anew.
    assembler = StackAssembler(StackConfig(size=2, min_frames=2))
    stacks = feed(assembler, [frame(i, f) for i, f in enumerate([1, 1, 2, 2, 3, 3, 4, 4, 1, 1])])
    assert [[f.stamp_ns // PERIOD_NS for f in stack.frames] for stack in stacks] == [[1, 3], [5, 7]]


def test_triangular_sweeps_of_very_uneven_steps() -> None:
    # Even in metres: the step back from the near end is four fifths of the whole range.
    up = [0.43, 0.6, 1.0, 3.2]
    assert unnumbered(StackAssembler(), [*up, *up[-2::-1], *up[1:]]) == [up, up[::-1], up]


@pytest.mark.parametrize("sweep", [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [3.2, 1.0, 0.6, 0.43]])
def test_saw_tooth_sweeps_are_found_from_the_focus(sweep: list[float]) -> None:
    assembler = StackAssembler()
    assert unnumbered(assembler, sweep * 3) == [sweep] * 3
    assert nonzero(assembler) == {"used": 12, "received": 12, "stacks": 3}
    fly_back_is_no_sweep = StackAssembler(StackConfig(min_frames=2, min_coverage=0.0))
    assert unnumbered(fly_back_is_no_sweep, sweep * 3) == [sweep] * 3


def test_focus_noise_makes_no_turns() -> None:
    noise = [0.004, -0.008, 0.006, -0.004, 0.008, -0.006, 0.002]
    dwelling = [1, 1, 1, 1.5, 1.5, 2, 2, 2, 2.5, 2.5, 1, 1, 1.5, 1.5, 2, 2, 2.5]
    stacks = unnumbered(StackAssembler(), [f + noise[i % 7] for i, f in enumerate(dwelling)])
    assert [np.round(stack, 1).tolist() for stack in stacks] == [[1, 1.5, 2, 2.5], [1, 1.5, 2, 2.5]]


def test_steps_under_the_tolerance_add_up_to_positions() -> None:
    (stack,) = unnumbered(StackAssembler(), np.arange(0, 0.3, 0.008))
    assert len(stack) == 13 and min(np.diff(stack)) == pytest.approx(0.024)


def test_size_ends_an_unnumbered_sweep_without_waiting_for_the_next() -> None:
    assembler = StackAssembler(StackConfig(size=4, reorder_frames=0))
    triangle = [1, 2, 3, 4, 3, 2, 1, 2, 3, 4]
    given = [foci(add_frame(assembler, frame(i, f))) for i, f in enumerate(triangle)]
    assert given[3] == [[1, 2, 3, 4]] and given[6] == [[4, 3, 2, 1]] and given[9] == [[1, 2, 3, 4]]
    assert sum(map(len, given)) == 3
    assert unnumbered(StackAssembler(StackConfig(size=3)), [1, 2, 3, 4, 5, 6, 1]) == [[1, 2, 3], [4, 5, 6]]


def test_sweeps_of_more_images_than_a_stack_holds_are_cut() -> None:
    assembler = StackAssembler(StackConfig(max_span_s=100))
    stacks = feed(assembler, numbered(1, np.linspace(0, 10, 100))) + assembler.flush()
    assert [len(stack.frames) for stack in stacks] == [64]
    assert [stack.complete for stack in stacks] == [False]
    assert nonzero(assembler)["incomplete"] == 36  # the rest covers too little


@pytest.mark.parametrize("place", [True, False])
def test_lost_frame_leaves_a_usable_sweep(place: bool) -> None:
    frames = numbered(4, [0.5, 1.0, 1.5, 2.0, 2.5])
    if not place:
        frames = [frame(i, f.focus_diopters) for i, f in enumerate(frames)]
    del frames[7]  # 1.5 of the second sweep
    assembler = StackAssembler()
    stacks = feed(assembler, frames) + assembler.flush()
    assert [len(stack) for stack in foci(stacks)] == [5, 4, 5, 5]
    assert [stack.complete for stack in stacks[:3]] == [True, not place, True]
    assert assembler.counts["dropped"] == place


@pytest.mark.parametrize(("lost", "why"), [((8, 9), "range not covered"), ((6, 7, 8), "too few frames")])
def test_sweep_that_misses_too_much_is_incomplete(lost: tuple[int, ...], why: str) -> None:
    frames = numbered(3, [0.5, 1.0, 1.5, 2.0, 2.5])
    assembler = StackAssembler()
    stacks = feed(assembler, [f for i, f in enumerate(frames) if i not in lost])
    assert [stack.sweep_id for stack in stacks] == [0, 2], why
    assert nonzero(assembler)["incomplete"] == 5 - len(lost) and assembler.counts["dropped"] == len(lost)


def test_sweep_over_a_smaller_range_is_refused_only_at_first() -> None:
    lost_ends = [f for f in numbered(6, [0.5, 1.0, 1.5, 2.0, 2.5]) if f.sweep_id == 0 or f.index not in (3, 4)]
    stacks = feed(StackAssembler(), lost_ends)
    assert [stack.sweep_id for stack in stacks] == [0, 3, 4]  # 5 is still open


def test_whole_sweeps_of_two_images_need_no_min_frames() -> None:
    assert foci(feed(StackAssembler(), numbered(2, [0.5, 2.0]))) == [[0.5, 2.0]] * 2
    assert unnumbered(StackAssembler(StackConfig(size=2)), [1, 2, 1, 2]) == [[1, 2], [2, 1], [1, 2]]


def test_sweep_id_that_never_changes_does_not_stop_the_stacks() -> None:
    positions = [0.5, 1.0, 1.5, 2.0, 2.5]
    frames = [frame(i, positions[i % 5], (7, i % 5, 5)) for i in range(500)]
    assembler = StackAssembler()
    stacks = feed(assembler, frames)
    assert len(stacks) >= 7  # one every max_span_s, over 16.7 s
    assert nonzero(assembler)["duplicate"] > 400


# -- sliding window --------------------------------------------------------------------------------


def test_sliding_saw_tooth_gives_a_stack_for_every_frame() -> None:
    assembler = StackAssembler(StackConfig(mode="sliding"))
    stacks = feed(assembler, numbered(2, [1.0, 2.0, 3.0, 4.0]))[1:]
    assert foci(stacks) == [[1, 2, 3, 4], [2, 3, 4, 1], [3, 4, 1, 2], [4, 1, 2, 3], [1, 2, 3, 4]]
    assert [stack.newest_stamp_ns // PERIOD_NS for stack in stacks] == [3, 4, 5, 6, 7]
    assert stacks[1].frames[0] is stacks[0].frames[1], "frames are shared, so that spectra can be kept"


def test_sliding_triangular_holds_the_newest_image_of_each_focus() -> None:
    assembler = StackAssembler(StackConfig(mode="sliding", reorder_frames=0))
    stacks = feed(assembler, [frame(i, f) for i, f in enumerate([1, 2, 3, 4, 3, 2, 1, 2, 3])])
    assert foci(stacks)[1:] == [
        [1, 2, 3, 4],
        [1, 2, 4, 3],
        [1, 4, 3, 2],
        [4, 3, 2, 1],
        [4, 3, 1, 2],
        [4, 1, 2, 3],
    ]
    assert nonzero(assembler) == {"used": 9, "received": 9, "stacks": 7}


def test_sliding_window_is_bounded_in_size_and_says_what_is_missing() -> None:
    assembler = StackAssembler(StackConfig(mode="sliding", size=3, reorder_frames=0))
    stacks = feed(assembler, [frame(i, 0.1 * i) for i in range(6)])
    assert [[f.stamp_ns // PERIOD_NS for f in stack.frames] for stack in stacks] == [
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [3, 4, 5],
    ]
    stacks = feed(StackAssembler(StackConfig(mode="sliding", size=2, min_frames=3)), numbered(1, [1.0, 2.0, 3.0]))
    assert foci(stacks) == [[1, 2], [2, 3]], "size limits min_frames too"
    stacks = feed(StackAssembler(StackConfig(mode="sliding")), numbered(1, [1.0, 2.0, 3.0, 4.0]))
    assert [stack.complete for stack in stacks] == [False, True]


def test_lens_that_stands_still_gives_no_stack() -> None:
    for mode in ("sweep", "sliding"):
        assembler = StackAssembler(StackConfig(mode=mode))
        assert unnumbered(assembler, [1.0] * 200) == []
        assert assembler.counts["same_focus"] >= 195 and nonzero(assembler)["received"] == 200


@pytest.mark.parametrize("mode", ["sweep", "sliding"])
@pytest.mark.parametrize("with_numbers", [True, False])
@pytest.mark.parametrize("after", [[4, 5, 6], [2, 1, 0.5], [1, 2, 3]], ids=["going on", "turned", "from the start"])
def test_frames_before_a_pause_are_not_mixed_with_those_after(
    mode: str, with_numbers: bool, after: list[float]
) -> None:
    times = [0, 1, 2, 100, 101, 102]  # a pause of 3.3 s
    frames = [
        frame(time, focus, (0, i, 6) if with_numbers else None)
        for i, (time, focus) in enumerate(zip(times, [1, 2, 3, *after], strict=True))
    ]
    assembler = StackAssembler(StackConfig(mode=mode, min_coverage=0.0))
    stacks = feed(assembler, frames) + assembler.flush()
    assert foci(stacks) == [[1, 2, 3], after]
    assert all(stack.newest_stamp_ns - stack.frames[0].stamp_ns < 1e9 for stack in stacks)


def test_lens_that_waits_before_it_moves_on_starts_the_sweep_with_the_last_image() -> None:
    dwell = [frame(i, 1.0) for i in range(100)]
    sweep = [frame(100 + i, f) for i, f in enumerate([2.0, 3.0, 4.0])]
    assembler = StackAssembler()
    (stack,) = feed(assembler, dwell + sweep) + assembler.flush()
    assert [f.stamp_ns // PERIOD_NS for f in stack.frames] == [99, 100, 101, 102]


def test_sweeps_of_which_nothing_came_count_as_dropped_unless_the_driver_renumbers() -> None:
    frames = numbered(6, [0.5, 1.0, 1.5])
    assembler = StackAssembler()
    feed(assembler, [f for f in frames if f.sweep_id in (0, 3, 5)])
    assert assembler.counts["dropped"] == 3 * 3
    restarted = [dataclasses.replace(f, sweep_id=10**6 * f.sweep_id) for f in frames]
    assembler = StackAssembler()
    feed(assembler, restarted)
    assert assembler.counts["dropped"] == 0


@pytest.mark.parametrize("lost", ["focus", "order"])
def test_an_image_that_came_without_its_number_is_not_counted_as_dropped_too(lost: str) -> None:
    assembler = StackAssembler(StackConfig(reorder_frames=0))
    late = None
    for i, f in enumerate(numbered(4, [0.5, 1.0, 1.5])):
        if i == 4 and lost == "order":
            late = f
            continue
        if i == 4:
            assembler.add_image(f.stamp_ns, f.image)  # its focus never comes
            continue
        add_frame(assembler, f)
        if late is not None:
            add_frame(assembler, late)
            late = None
    outcome = "no_focus" if lost == "focus" else "late"
    assert assembler.counts[outcome] == 1 and assembler.counts["dropped"] == 0
    assert assembler.counts["received"] == 12

"""StackAssembler told of what it cannot see: images that nobody wants, silence, original sizes, lenses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from stack_rig import IMAGE, PERIOD_NS, feed, foci, frame, nonzero, numbered

from dfs_ros.config import StackConfig
from dfs_ros.stacks.assembler import FrameStack, StackAssembler
from dfs_ros.types import FocusMetadata

POSITIONS = [0.5, 1.0, 1.5, 2.0, 2.5]
SECOND_NS = 10**9
ANY_REST = StackConfig(min_frames=2, min_coverage=0.0)


def send(assembler: StackAssembler, i: int, focus: float, *, place: Any = (0, 0, 0), **image: Any) -> list[FrameStack]:
    """Image and focus at time i, in periods."""
    lens = {name: image.pop(name) for name in ("focal_length_m", "f_number", "focus_sigma_diopters") if name in image}
    metadata = FocusMetadata(i * PERIOD_NS, focus, sweep_id=place[0], index=place[1], count=place[2], **lens)
    return assembler.add_focus(metadata) + assembler.add_image(i * PERIOD_NS, image.pop("pixels", IMAGE), **image)


# -- images that nobody wants ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", range(1, 5))
def test_the_rest_of_a_numbered_sweep_makes_no_stack(ignored: int) -> None:
    assembler = StackAssembler(StackConfig(min_frames=2))
    frames = numbered(2, POSITIONS)
    for f in frames[:ignored]:
        assembler.ignore_image(f.stamp_ns)
    assert foci(feed(assembler, frames[ignored:])) == [POSITIONS]
    assert nonzero(assembler) == {
        **{"ignored": ignored, "received": 10 - ignored, "incomplete": 5 - ignored},
        **{"used": 5, "stacks": 1},
    }


def test_a_sweep_that_is_whole_after_all_makes_a_stack() -> None:
    assembler = StackAssembler()
    frames = numbered(2, POSITIONS)
    for f in frames[:5]:
        assembler.ignore_image(f.stamp_ns)
    assert foci(feed(assembler, frames[5:])) == [POSITIONS]


@pytest.mark.parametrize("size", [0, 5])
def test_the_rest_of_an_unnumbered_sweep_makes_no_stack(size: int) -> None:
    there_and_back = [*POSITIONS, *POSITIONS[-2::-1], *POSITIONS[1:]]
    assembler = StackAssembler(StackConfig(size=size))
    assembler.ignore_image(0)
    stacks = feed(assembler, [frame(i, f) for i, f in enumerate(there_and_back) if i]) + assembler.flush()
    assert foci(stacks) == [POSITIONS[::-1], POSITIONS]


def test_only_the_first_sweep_is_left_out_even_if_all_miss_an_image() -> None:
    assembler = StackAssembler()
    assembler.ignore_image(-1)
    stacks = feed(assembler, [f for f in numbered(3, POSITIONS) if f.index != 2])
    assert [stack.sweep_id for stack in stacks] == [1]  # the third is still open
    assert nonzero(assembler)["incomplete"] == 4


@pytest.mark.parametrize("pause_s", [1.9, 2.1])
def test_after_a_pause_a_sweep_is_whole(pause_s: float) -> None:
    assembler = StackAssembler()
    assembler.ignore_image(-round(pause_s * SECOND_NS))
    stacks = feed(assembler, [frame(i, f) for i, f in enumerate(POSITIONS)]) + assembler.flush()
    assert foci(stacks) == ([POSITIONS] if pause_s > 2.0 else [])


def test_sliding_stacks_begin_at_once() -> None:
    assembler = StackAssembler(StackConfig(mode="sliding"))
    frames = numbered(1, POSITIONS)
    assembler.ignore_image(frames[0].stamp_ns)
    assert foci(feed(assembler, frames[1:])) == [POSITIONS[1:4], POSITIONS[1:]]


def test_what_was_taken_before_is_given_up() -> None:
    assembler = StackAssembler()
    feed(assembler, numbered(1, POSITIONS)[:3])  # in the grouping
    assembler.add_image(3 * PERIOD_NS, IMAGE)  # waits for its focus
    assembler.add_focus(FocusMetadata(4 * PERIOD_NS, 2.5))
    for i in (5, 6):
        assembler.ignore_image(i * PERIOD_NS)
    assert assembler.pending == 0
    assert nonzero(assembler) == {"given_up": 4, "ignored": 2, "received": 4, "unmatched_focus": 1}


# -- silence -----------------------------------------------------------------------------------------------------------


def sweep_received(assembler: StackAssembler, start_ns: int) -> list[FrameStack]:
    """An unnumbered sweep: nothing but the next one, or silence, tells that it is over."""
    return [
        stack
        for i, focus in enumerate(POSITIONS)
        for stack in send(assembler, i, focus, received_ns=start_ns + i * PERIOD_NS)
    ]


@pytest.mark.parametrize("start_ns", [5 * SECOND_NS, 10**18])
def test_silence_ends_the_stack_at_hand(start_ns: int) -> None:
    assembler = StackAssembler()
    assert sweep_received(assembler, start_ns) == []
    last_ns = start_ns + 4 * PERIOD_NS
    assert assembler.end_on_silence(last_ns + 2 * SECOND_NS) == []
    assert foci(assembler.end_on_silence(last_ns + 2 * SECOND_NS + 1)) == [POSITIONS]
    assert assembler.end_on_silence(last_ns + 9 * SECOND_NS) == []
    assert nonzero(assembler) == {"used": 5, "received": 5, "stacks": 1}


def test_a_clock_that_begins_or_is_set_back_is_no_silence() -> None:
    assembler = StackAssembler()
    for i, focus in enumerate(POSITIONS):
        send(assembler, i, focus, received_ns=0)  # a simulation's clock, before it began
    assert assembler.end_on_silence(10**18) == []
    assert assembler.end_on_silence(10**18 + SECOND_NS) == []
    assert assembler.end_on_silence(7 * SECOND_NS) == []  # set back
    assert assembler.end_on_silence(9 * SECOND_NS) == []
    assert foci(assembler.end_on_silence(9 * SECOND_NS + 1)) == [POSITIONS]


def test_without_the_time_of_receipt_nothing_is_ended() -> None:
    assembler = StackAssembler()
    for i, focus in enumerate(POSITIONS):
        send(assembler, i, focus)
    assert [assembler.end_on_silence(i * 100 * SECOND_NS) for i in range(3)] == [[], [], []]


# -- one camera a stack ------------------------------------------------------------------------------------------------


def test_originals_of_two_sizes_are_not_mixed_though_they_look_alike() -> None:
    """As JPEGs of 384 x 288 decoded at half their size, and images of 192 x 144."""
    assembler = StackAssembler(ANY_REST)
    stacks: list[FrameStack] = []
    for i in range(10):
        size = (32, 40) if i < 7 else IMAGE.shape[:2]
        stacks += send(assembler, i, POSITIONS[i % 5], place=(i // 5, i % 5, 5), original_size_px=size)
    assert [{f.original_size_px for f in stack.frames} for stack in stacks] == [{(32, 40)}, {(32, 40)}, {(16, 20)}]
    assert [f.scale for f in stacks[0].frames] == [0.5] * 5
    assert nonzero(assembler) == {"used": 10, "received": 10, "stacks": 3, "wrong_size": 1}


def lenses(stacks: Sequence[FrameStack]) -> list[list[tuple[float, float]]]:
    return [[(f.focal_length_m, f.f_number) for f in stack.frames] for stack in stacks]


@pytest.mark.parametrize(
    "after", [{"focal_length_m": 0.03, "f_number": 2.0}, {"focal_length_m": 0.02, "f_number": 2.8}]
)
def test_another_lens_starts_anew(after: dict[str, float]) -> None:
    before = {"focal_length_m": 0.02, "f_number": 2.0}
    assembler = StackAssembler(ANY_REST)
    stacks: list[FrameStack] = []
    for i in range(10):
        stacks += send(assembler, i, POSITIONS[i % 5], place=(i // 5, i % 5, 5), **(before if i < 8 else after))
    changed = (after["focal_length_m"], after["f_number"])
    assert lenses(stacks) == [[(0.02, 2.0)] * 5, [(0.02, 2.0)] * 3, [changed] * 2]
    assert assembler.counts["lens_changed"] == 1


def test_a_focal_length_that_breathes_is_one_lens_and_a_slow_zoom_is_not() -> None:
    breathing, zoom = StackAssembler(), StackAssembler(StackConfig(min_frames=2))
    for i, focus in enumerate(POSITIONS):
        send(breathing, i, focus, place=(0, i, 5), focal_length_m=0.02 / (1 - 0.02 * focus))
        send(zoom, i, focus, place=(0, i, 5), focal_length_m=0.02 * 1.02**i)
    assert nonzero(breathing) == {"used": 5, "received": 5, "stacks": 1}
    assert zoom.counts["lens_changed"] == 1


def test_what_the_driver_says_of_the_lens_travels_with_the_frame() -> None:
    assembler = StackAssembler(StackConfig(min_frames=2))
    said = {"focal_length_m": 0.02, "f_number": 1.8, "focus_sigma_diopters": 0.0}
    (stack,) = [s for i in range(2) for s in send(assembler, i, POSITIONS[i], place=(0, i, 2), **(said if i else {}))]
    silent, told = stack.frames
    assert np.isnan([silent.focal_length_m, silent.f_number, silent.focus_sigma_diopters]).all()
    assert (told.focal_length_m, told.f_number, told.focus_sigma_diopters) == (0.02, 1.8, 0.0)

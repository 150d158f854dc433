"""What holds of StackAssembler whatever sweeps come: invariants of every stack, order, two plain models."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from stack_property_rig import (
    IMAGE,
    check_conservation,
    check_stack,
    focus_sequences,
    frames_of,
    identities,
    modes,
    repeatable,
)
from stack_rig import PERIOD_NS, feed

from dfs_ros.config import StackConfig
from dfs_ros.stacks.assembler import FrameStack, StackAssembler
from dfs_ros.types import FocusMetadata, Frame


def test_the_check_of_stacks_rejects_wrong_ones() -> None:
    good = [Frame(IMAGE, 0.1 * i, i * PERIOD_NS) for i in range(4)]
    config = StackConfig()
    check_stack(FrameStack(tuple(good), 3 * PERIOD_NS, None, True), config)
    wrong = [
        Frame(IMAGE, 0.09, 4 * PERIOD_NS),
        Frame(IMAGE, 0.4, 3 * PERIOD_NS),
        Frame(IMAGE, 0.4, 100 * PERIOD_NS),
        Frame(IMAGE, float("nan"), 4 * PERIOD_NS),
        Frame(IMAGE, 0.4, 4 * PERIOD_NS, lens_moving=True),
        Frame(np.zeros((16, 17), np.uint8), 0.4, 4 * PERIOD_NS),
        Frame(IMAGE, 0.4, 4 * PERIOD_NS, sweep_id=1, index=0, count=5),
    ]
    for frame in wrong:
        with pytest.raises(AssertionError):
            check_stack(FrameStack((*good, frame), frame.stamp_ns, None, True), config)


@repeatable
@given(focus_sequences(), st.booleans(), modes)
def test_every_frame_of_every_sweep_is_used(
    sequence: tuple[list[list[float]], float], numbered: bool, mode: str
) -> None:
    passes, noise = sequence
    frames = frames_of(passes, noise, numbered)
    config = StackConfig(mode=mode, min_frames=3)
    assembler = StackAssembler(config)
    stacks = feed(assembler, frames) + assembler.flush()
    for stack in stacks:
        check_stack(stack, config)
    used = {f.stamp_ns for stack in stacks for f in stack.frames}
    assert used == {f.stamp_ns for f in frames}
    assert assembler.counts["used"] == len(frames) and assembler.pending == 0
    if mode == "sweep":
        assert len(stacks) == len(passes)


@repeatable
@given(focus_sequences("saw-tooth"), st.integers(0, 2))
def test_unnumbered_sweeps_are_those_that_a_numbering_driver_would_tell(
    sequence: tuple[list[list[float]], float], seed: int
) -> None:
    passes, noise = sequence
    found, told = (StackAssembler(), StackAssembler())
    ours = feed(found, frames_of(passes, noise, False, seed)) + found.flush()
    drivers = feed(told, frames_of(passes, noise, True, seed))
    assert [[f.stamp_ns for f in s.frames] for s in ours] == [[f.stamp_ns for f in s.frames] for s in drivers]


# -- order -----------------------------------------------------------------------------------------


def displaced(frames: list[Frame], window: int, rng: random.Random) -> list[Frame]:
    """A permutation in which no frame comes after more than `window` newer ones."""
    waiting, arrived = list(frames), []
    overtaken = {f.stamp_ns: 0 for f in frames}
    while waiting:
        stuck = [f for f in waiting if overtaken[f.stamp_ns] >= window]
        # Up to the first that must not be overtaken once more.
        choices = waiting[: waiting.index(stuck[0]) + 1] if stuck else waiting
        chosen = rng.choice(choices[: window + 1])
        for older in waiting[: waiting.index(chosen)]:
            overtaken[older.stamp_ns] += 1
        waiting.remove(chosen)
        arrived.append(chosen)
    return arrived


@repeatable
@given(focus_sequences(), st.booleans(), modes, st.integers(0, 4), st.randoms(use_true_random=False), st.data())
def test_order_of_arrival_within_the_window_does_not_matter(
    sequence: tuple[list[list[float]], float],
    numbered: bool,
    mode: str,
    window: int,
    rng: random.Random,
    data: st.DataObject,
) -> None:
    frames = frames_of(*sequence, numbered)
    lost = data.draw(st.sets(st.integers(0, len(frames) - 1), max_size=3))
    frames = [f for i, f in enumerate(frames) if i not in lost]
    config = StackConfig(mode=mode, reorder_frames=window, clock_reset_s=3600)
    outcomes = []
    for arrived in (frames, displaced(frames, window, rng)):
        event(f"displaced: {arrived != frames}")
        assembler = StackAssembler(config)
        stacks = feed(assembler, arrived) + assembler.flush()
        outcomes.append((identities(stacks), dict(assembler.counts)))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1]["late"] == 0


@repeatable
@given(focus_sequences(), st.booleans(), modes, st.lists(st.booleans(), max_size=60))
def test_images_and_metadata_interleaved_in_any_way_give_the_stacks_of_whole_frames(
    sequence: tuple[list[list[float]], float], numbered: bool, mode: str, image_first: list[bool]
) -> None:
    frames = frames_of(*sequence, numbered)
    config = StackConfig(mode=mode, max_pending=256)
    expected_of, assembler = StackAssembler(config), StackAssembler(config)
    expected = feed(expected_of, frames) + expected_of.flush()
    images, focus = list(frames), list(frames)
    choices = iter(image_first)
    stacks = []
    while images or focus:
        if not focus or (images and next(choices, True)):
            frame = images.pop(0)
            stacks += assembler.add_image(frame.stamp_ns, frame.image)
        else:
            frame = focus.pop(0)
            place = {"sweep_id": frame.sweep_id, "index": frame.index, "count": frame.count} if numbered else {}
            stacks += assembler.add_focus(FocusMetadata(frame.stamp_ns, frame.focus_diopters, **place))  # type: ignore[arg-type]
    stacks += assembler.flush()
    assert identities(stacks) == identities(expected)
    assert dict(assembler.counts) == dict(expected_of.counts)


# -- plain models ----------------------------------------------------------------------------------


@repeatable
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40), st.sampled_from([16, 16, 16, 20])), max_size=40),
    st.integers(2, 4),
    st.sampled_from([0, 4, 5]),
)
def test_sliding_stacks_agree_with_a_search_through_all_frames(
    steps: list[tuple[int, int, int]], min_frames: int, size: int
) -> None:
    """Brute force: of the last frames of one size within the span, the newest of each position."""
    config = StackConfig("sliding", size=size, min_frames=min_frames, max_span_s=1.0, reorder_frames=0)
    frames, time = [], 0
    for position, pause, width in steps:
        time += pause * 50_000_000
        frames.append(Frame(np.zeros((16, width), np.uint8), 0.1 * position, time))
    expected = []
    for i in range(len(frames)):
        newest: dict[float, Frame] = {}
        for f in reversed(frames[: i + 1]):
            if f.image.shape != frames[i].image.shape or frames[i].stamp_ns - f.stamp_ns > 1e9:
                break
            newest.setdefault(f.focus_diopters, f)
        chosen = sorted(newest.values(), key=lambda f: f.stamp_ns)[-size:]
        if len(chosen) >= min_frames:
            expected.append([f.stamp_ns for f in chosen])
    assert [[f.stamp_ns for f in stack.frames] for stack in feed(StackAssembler(config), frames)] == expected


@repeatable
@given(st.lists(st.sets(st.integers(0, 5)), max_size=8), st.integers(2, 5))
def test_numbered_sweeps_agree_with_a_plain_rule(came: list[set[int]], min_frames: int) -> None:
    """For each sweep in turn, from the indices that came: whole, or enough of them over enough of the range."""
    config = StackConfig(min_frames=min_frames, min_coverage=0.6, max_span_s=60)
    frames, expected, usual = [], [], 0
    for sweep_id, indices in enumerate(came):
        # From 0 to 5 dioptres in 5 s.
        frames += [Frame(IMAGE, float(i), int((6 * sweep_id + i) * 1e9), sweep_id, i, 6) for i in sorted(indices)]
        if indices:
            span = max(indices) - min(indices)
            if len(indices) == 6 or (len(indices) >= min_frames and span >= 0.6 * usual):
                expected.append((sweep_id, sorted(indices), len(indices) == 6))
            usual = max(span, 0.6 * usual)
    assembler = StackAssembler(config)
    stacks = feed(assembler, frames) + assembler.flush()
    assert [(s.sweep_id, [f.index for f in s.frames], s.complete) for s in stacks] == expected
    some = [sweep_id for sweep_id, indices in enumerate(came) if indices]
    whole = came[some[0] : some[-1]] if some else []  # the last sweep may go on
    missing = [6 - len(indices) for indices in whole]
    if whole:  # the first may have begun before it was joined: what counts is what came after its first frame
        missing[0] -= min(whole[0]) if len(whole[0]) > 1 else 5
    assert assembler.counts["dropped"] == sum(missing)


# -- clock resets ----------------------------------------------------------------------------------


@repeatable
@given(
    st.lists(st.integers(20, 60), min_size=2, max_size=4),
    st.integers(-5, 5),
    st.sets(st.integers(0, 239), max_size=20),
    st.sets(st.integers(0, 239), max_size=20),
    modes,
    st.booleans(),
)
def test_nothing_crosses_a_clock_reset(
    loops: list[int], lag: int, no_image: set[int], no_focus: set[int], mode: str, numbered: bool
) -> None:
    """The same stamps run again and again; images and focus carry the number of the run and lag behind each other."""
    config = StackConfig(mode=mode)
    assembler = StackAssembler(config)
    runs = [(run, i) for run, count in enumerate(loops) for i in range(count)]
    stacks = []
    for k in range(-5, len(runs) + 5):
        if 0 <= k < len(runs) and k not in no_image:
            run, i = runs[k]
            stacks += assembler.add_image(i * PERIOD_NS, np.full((16, 16), run, np.uint8))
        if 0 <= k - lag < len(runs) and k not in no_focus:
            run, i = runs[k - lag]
            focus = 0.5 * (i % 4) + 0.001 * run
            stacks += assembler.add_focus(
                FocusMetadata(i * PERIOD_NS, focus, sweep_id=i // 4, index=i % 4, count=4 * numbered)
            )
        check_conservation(assembler)
    for stack in stacks:
        check_stack(stack, config)
        images = {int(f.image[0, 0]) for f in stack.frames}
        focus_runs = {round(f.focus_diopters % 0.5 / 0.001) for f in stack.frames}
        assert len(images) == 1 and focus_runs == images

"""What holds of StackAssembler whatever comes: invariants of every stack, conservation, bounds, two plain models."""

from __future__ import annotations

import random
import weakref
from collections.abc import Iterable
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from dfs_ros.config import StackConfig
from dfs_ros.stack import OUTCOMES, StackAssembler, Sweep
from dfs_ros.types import FocusMetadata, Frame, LensState

PERIOD_NS = 33_333_333
TOLERANCE = StackConfig().focus_tolerance_diopters
IMAGE = np.zeros((16, 16), np.uint8)
repeatable = settings(derandomize=True, deadline=None)
modes = st.sampled_from(["sweep", "sliding"])


def feed(assembler: StackAssembler, frames: Iterable[Frame]) -> list[Sweep]:
    return [stack for f in frames for stack in assembler.add_frame(f)]


def identities(stacks: Iterable[Sweep]) -> list[tuple[tuple[int, ...], int | None, bool]]:
    return [(tuple(f.stamp_ns for f in stack.frames), stack.sweep_id, stack.complete) for stack in stacks]


def check_conservation(assembler: StackAssembler) -> None:
    counts = assembler.counts
    assert counts["received"] == sum(counts[name] for name in OUTCOMES) + assembler.pending


def check_stack(stack: Sweep, config: StackConfig) -> None:
    """What must hold of any stack."""
    stamps = [f.stamp_ns for f in stack.frames]
    assert len(stamps) >= 2 and all(a < b for a, b in pairwise(stamps))
    assert stack.newest_stamp_ns == stamps[-1]
    assert stamps[-1] - stamps[0] <= config.max_span_s * 1e9
    assert len({f.image.shape for f in stack.frames}) == 1
    assert not any(f.lens_moving for f in stack.frames)
    focus = [f.focus_diopters for f in stack.frames]
    assert all(np.isfinite(focus)) and min(focus) >= 0
    assert all(abs(a - b) > config.focus_tolerance_diopters for a, b in combinations(focus, 2))
    if config.mode == "sweep":
        assert len({f.sweep_id if f.count else None for f in stack.frames}) == 1
        indices = [f.index for f in stack.frames if f.count]
        assert len(set(indices)) == len(indices)
    else:
        assert len(stack.frames) >= config.min_frames


def test_the_check_of_stacks_rejects_wrong_ones() -> None:
    good = [Frame(IMAGE, 0.1 * i, i * PERIOD_NS) for i in range(4)]
    config = StackConfig()
    check_stack(Sweep(tuple(good), 3 * PERIOD_NS, None, True), config)
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
            check_stack(Sweep((*good, frame), frame.stamp_ns, None, True), config)


# -- sweeps of every kind --------------------------------------------------------------------------


@st.composite
def focus_sequences(draw: st.DrawFn, shape: str | None = None) -> tuple[list[list[float]], float]:
    """Focus positions of some passes of a lens, triangular (turns shared or repeated) or saw-tooth; noise amplitude."""
    shape = shape or draw(st.sampled_from(["triangle", "repeated turns", "saw-tooth"]))
    steps = draw(st.lists(st.floats(3 * TOLERANCE, 1.0), min_size=3, max_size=9))
    up = [float(x) for x in np.cumsum([draw(st.floats(0.05, 0.5)), *steps])]
    if draw(st.booleans()):
        up.reverse()
    count = draw(st.integers(1, 5))
    passes = []
    for i in range(count):
        positions = up[::-1] if shape != "saw-tooth" and i % 2 else up
        passes.append(positions[1:] if shape == "triangle" and i else positions)
    return passes, draw(st.sampled_from([0.0, 0.45 * TOLERANCE]))


def frames_of(passes: list[list[float]], noise: float, numbered: bool, seed: int = 0) -> list[Frame]:
    rng = random.Random(seed)
    frames = []
    for sweep_id, positions in enumerate(passes):
        for index, focus in enumerate(positions):
            place = (sweep_id, index, len(positions)) if numbered else (None, None, None)
            focus += rng.uniform(-noise, noise)
            frames.append(Frame(IMAGE, focus, len(frames) * PERIOD_NS, *place))
    return frames


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
    whole = [indices for indices in came if indices][:-1]  # the last sweep may go on
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


# -- anything at all -------------------------------------------------------------------------------

foci = st.one_of(
    st.integers(0, 8).map(lambda i: 0.25 * i),
    st.floats(0, 3),
    st.sampled_from([float("nan"), float("inf"), -1.0, 30.0, 0.0]),
)
places = st.one_of(st.just((0, 0, 0)), st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 5)))
hops = st.one_of(st.integers(-3, 6), st.sampled_from([-100, -16, 16, 61, 1000]))
shapes = st.sampled_from([(16, 16)] * 6 + [(16, 18), (16, 16, 3)])


class AnyInput(RuleBasedStateMachine):
    """Images, metadata and frames with stamps that wander; whatever happens, stacks are sound and nothing is lost."""

    @initialize(
        mode=modes,
        size=st.sampled_from([0, 0, 2, 4]),
        min_frames=st.integers(2, 4),
        reorder=st.integers(0, 3),
        pending=st.integers(1, 4),
        tolerance=st.sampled_from([0, 0, PERIOD_NS // 3]),
    )
    def start(self, mode: str, size: int, min_frames: int, reorder: int, pending: int, tolerance: int) -> None:
        self.config = StackConfig(
            mode=mode,
            size=size,
            min_frames=min_frames if mode == "sweep" or not size else min(min_frames, size),
            reorder_frames=reorder,
            max_pending=pending,
            match_tolerance_ns=tolerance,
        )
        self.assembler = StackAssembler(self.config, focal_length_m=0.04)
        self.time = 0
        self.came = 0
        self.alive: list[weakref.ref[NDArray[np.uint8]]] = []
        self.used: set[int] = set()  # numbers of the images, not stamps: those recur after a clock reset

    def image(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        image = np.zeros(shape, np.uint8)
        image.reshape(-1)[:4] = np.frombuffer(np.uint32(self.came).tobytes(), np.uint8)
        self.came += 1
        self.alive.append(weakref.ref(image))
        return image

    def collect(self, stacks: list[Sweep]) -> None:
        for stack in stacks:
            check_stack(stack, self.config)
            self.used |= {int(f.image.reshape(-1)[:4].view(np.uint32)[0]) for f in stack.frames}

    @rule(hop=hops, shape=shapes)
    def add_image(self, hop: int, shape: tuple[int, ...]) -> None:
        self.time += hop
        self.collect(self.assembler.add_image(self.time * PERIOD_NS, self.image(shape)))

    @rule(
        hop=hops,
        focus=foci,
        place=places,
        state=st.sampled_from([*LensState] * 2 + [LensState.UNKNOWN]),
        off=st.integers(-1, 1),
    )
    def add_focus(self, hop: int, focus: float, place: tuple[int, int, int], state: LensState, off: int) -> None:
        self.time += hop
        metadata = FocusMetadata(
            self.time * PERIOD_NS + off * PERIOD_NS // 4,
            focus,
            lens_state=state,
            focal_length_m=0.04,
            sweep_id=place[0],
            index=place[1],
            count=place[2],
        )
        self.collect(self.assembler.add_focus(metadata))

    @rule(hop=hops, focus=foci, place=places, shape=shapes, moving=st.sampled_from([False] * 5 + [True]))
    def add_frame(
        self, hop: int, focus: float, place: tuple[int, int, int], shape: tuple[int, ...], moving: bool
    ) -> None:
        self.time += hop
        frame = Frame(self.image(shape), focus, self.time * PERIOD_NS, *place, lens_moving=moving)
        self.collect(self.assembler.add_frame(frame))

    @rule(count=st.integers(2, 6), way=st.sampled_from([1, -1]), numbered=st.booleans(), sweep_id=st.integers(4, 9))
    def sweep(self, count: int, way: int, numbered: bool, sweep_id: int) -> None:
        for index in range(count):
            self.time += 1
            place = (sweep_id, index, count) if numbered else (None, None, None)
            focus = 1.0 + 0.25 * way * index * (4 / count)
            self.collect(self.assembler.add_frame(Frame(self.image((16, 16)), focus, self.time * PERIOD_NS, *place)))

    @rule()
    def flush(self) -> None:
        self.collect(self.assembler.flush())
        assert self.assembler.pending == 0

    @invariant()
    def every_image_has_one_outcome(self) -> None:
        if hasattr(self, "assembler"):
            check_conservation(self.assembler)
            assert self.assembler.counts["received"] == self.came
            assert self.assembler.counts["used"] == len(self.used)
            assert all(value >= 0 for value in self.assembler.counts.values())

    @invariant()
    def images_let_go_are_freed(self) -> None:
        if hasattr(self, "assembler"):
            self.alive = [ref for ref in self.alive if ref() is not None]
            window = self.config.size or 64
            # Waiting for focus; for older frames, and the one passed on last; the stack, and a repeated last position.
            assert len(self.alive) <= self.config.max_pending + self.config.reorder_frames + 1 + window + 1


AnyInput.TestCase.settings = settings(
    repeatable, max_examples=150, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
TestAnyInput = AnyInput.TestCase


@pytest.mark.parametrize("mode", ["sweep", "sliding"])
@pytest.mark.parametrize("flood", ["images", "metadata", "ramp", "one huge sweep", "backwards", "still"])
def test_memory_is_bounded_whatever_floods_in(flood: str, mode: str) -> None:
    config = StackConfig(mode=mode, max_span_s=3600, max_pending=8, reorder_frames=4)
    assembler = StackAssembler(config)
    alive: list[weakref.ref[NDArray[np.uint8]]] = []
    for i in range(1500):
        image = np.zeros((16, 16), np.uint8)
        alive = [ref for ref in alive if ref() is not None] + [weakref.ref(image)]
        stamp_ns = i * PERIOD_NS
        if flood == "images":
            assembler.add_image(stamp_ns, image)
        elif flood == "metadata":
            assembler.add_focus(FocusMetadata(stamp_ns, 1.0))
        elif flood == "ramp":
            assembler.add_frame(Frame(image, 0.03 * i, stamp_ns))
        elif flood == "one huge sweep":
            assembler.add_frame(Frame(image, 0.03 * i, stamp_ns, 0, i, 60_000))
        elif flood == "backwards":
            assembler.add_frame(Frame(image, 0.03 * (i % 10), 10**12 - stamp_ns))
        else:
            assembler.add_frame(Frame(image, 1.0, stamp_ns))
        del image
        assert len(alive) <= 8 + 4 + 64 + 3
        assert assembler.pending <= 8 + 4 + 64 + 1
        assert len(assembler._focus) <= 8
    check_conservation(assembler)
    assert assembler.counts["received"] == (0 if flood == "metadata" else 1500)

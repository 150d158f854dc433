"""Anything at all into StackAssembler: stacks are sound, nothing is lost, memory is bounded."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray
from stack_property_rig import check_conservation, check_stack, modes, repeatable
from stack_rig import PERIOD_NS, add_frame

from dfs_ros.config import StackConfig
from dfs_ros.stacks.assembler import FrameStack, StackAssembler
from dfs_ros.types import FocusMetadata, Frame, LensState

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
        self.assembler = StackAssembler(self.config)
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

    def collect(self, stacks: list[FrameStack]) -> None:
        for stack in stacks:
            check_stack(stack, self.config)
            self.used |= {int(f.image.reshape(-1)[:4].view(np.uint32)[0]) for f in stack.frames}

    @rule(hop=hops, shape=shapes)
    def add_image(self, hop: int, shape: tuple[int, ...]) -> None:
        self.time += hop
        stamp_ns = self.time * PERIOD_NS
        self.collect(self.assembler.add_image(stamp_ns, self.image(shape), received_ns=max(0, stamp_ns)))

    @rule(
        hop=hops,
        focus=foci,
        place=places,
        state=st.sampled_from([*LensState] * 2 + [LensState.UNKNOWN]),
        off=st.integers(-1, 1),
        f_number=st.sampled_from([2.0] * 5 + [4.0]),
    )
    def add_focus(
        self, hop: int, focus: float, place: tuple[int, int, int], state: LensState, off: int, f_number: float
    ) -> None:
        self.time += hop
        metadata = FocusMetadata(
            self.time * PERIOD_NS + off * PERIOD_NS // 4,
            focus,
            lens_state=state,
            focal_length_m=0.04,
            f_number=f_number,
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
        stamp_ns = self.time * PERIOD_NS
        frame = Frame(self.image(shape), focus, stamp_ns, *place, lens_moving=moving, focal_length_m=0.04)
        self.collect(add_frame(self.assembler, frame))

    @rule(count=st.integers(2, 6), way=st.sampled_from([1, -1]), numbered=st.booleans(), sweep_id=st.integers(4, 9))
    def sweep(self, count: int, way: int, numbered: bool, sweep_id: int) -> None:
        for index in range(count):
            self.time += 1
            place = (sweep_id, index, count) if numbered else (None, None, None)
            focus = 1.0 + 0.25 * way * index * (4 / count)
            self.collect(add_frame(self.assembler, Frame(self.image((16, 16)), focus, self.time * PERIOD_NS, *place)))

    @rule(hop=hops)
    def ignore_image(self, hop: int) -> None:
        self.time += hop
        self.assembler.ignore_image(self.time * PERIOD_NS)
        assert self.assembler.pending == 0

    @rule(silence_s=st.floats(-1, 4))
    def end_on_silence(self, silence_s: float) -> None:
        self.collect(self.assembler.end_on_silence(self.time * PERIOD_NS + round(silence_s * 1e9)))

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
            add_frame(assembler, Frame(image, 0.03 * i, stamp_ns))
        elif flood == "one huge sweep":
            add_frame(assembler, Frame(image, 0.03 * i, stamp_ns, 0, i, 60_000))
        elif flood == "backwards":
            add_frame(assembler, Frame(image, 0.03 * (i % 10), 10**12 - stamp_ns))
        else:
            add_frame(assembler, Frame(image, 1.0, stamp_ns))
        del image
        assert len(alive) <= 8 + 4 + 64 + 3
        assert assembler.pending <= 8 + 4 + 64 + 1
        assert len(assembler._focus) <= 8
    check_conservation(assembler)
    assert assembler.counts["received"] == (0 if flood == "metadata" else 1500)

"""What must hold of every stack, and sweeps of every kind."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import combinations, pairwise

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from stack_rig import PERIOD_NS

from dfs_ros.config import StackConfig
from dfs_ros.stacks.assembler import OUTCOMES, FrameStack, StackAssembler
from dfs_ros.types import Frame

TOLERANCE = StackConfig().focus_tolerance_diopters
IMAGE = np.zeros((16, 16), np.uint8)
repeatable = settings(derandomize=True, deadline=None)
modes = st.sampled_from(["sweep", "sliding"])


def identities(stacks: Iterable[FrameStack]) -> list[tuple[tuple[int, ...], int | None, bool]]:
    return [(tuple(f.stamp_ns for f in stack.frames), stack.sweep_id, stack.complete) for stack in stacks]


def check_conservation(assembler: StackAssembler) -> None:
    counts = assembler.counts
    assert counts["received"] == sum(counts[name] for name in OUTCOMES) + assembler.pending


def check_stack(stack: FrameStack, config: StackConfig) -> None:
    """What must hold of any stack."""
    stamps = [f.stamp_ns for f in stack.frames]
    assert len(stamps) >= 2 and all(a < b for a, b in pairwise(stamps))
    assert stack.newest_stamp_ns == stamps[-1]
    assert stamps[-1] - stamps[0] <= config.max_span_s * 1e9
    assert len({(f.image.shape, f.original_size_px) for f in stack.frames}) == 1
    assert len({f.f_number for f in stack.frames if f.f_number > 0}) <= 1
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

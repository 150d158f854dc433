"""FrameStack, settle, capture: which image is taken for which lens position, by times alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.camera.focus_sweep import FocusSweep, LensPath
from dfs_ros.camera.source import sweep_order

MS = 10**6


def test_each_position_gets_the_first_image_after_the_lens_has_settled() -> None:
    sweep = FocusSweep([[0, 1, 2]], settle_s=0.050)
    assert sweep.wanted == 0
    sweep.commanded(100 * MS, 100 * MS)
    assert sweep.wanted is None
    assert sweep.exposed(60 * MS, 90 * MS) is None  # before the first command: nobody knows
    assert sweep.exposed(120 * MS, 140 * MS) == LensPath(0, 0, True, None)
    assert sweep.exposed(149 * MS, 169 * MS) == LensPath(0, 0, True, None)
    assert sweep.exposed(150 * MS, 170 * MS) == LensPath(0, 0, False, (0, 0, 3))
    assert sweep.wanted == 1
    sweep.commanded(180 * MS, 180 * MS)
    assert sweep.exposed(160 * MS, 179 * MS) == LensPath(0, 0, False, None)  # was under way: not needed
    assert sweep.exposed(170 * MS, 190 * MS) == LensPath(1, 0, True, None)  # began before, ended after
    assert sweep.exposed(200 * MS, 220 * MS) == LensPath(1, 0, True, None)
    assert sweep.exposed(230 * MS, 250 * MS) == LensPath(1, 1, False, (0, 1, 3))
    assert sweep.exposed(250 * MS, 270 * MS) == LensPath(1, 1, False, None)
    sweep.commanded(300 * MS, 300 * MS)
    assert sweep.exposed(350 * MS, 360 * MS) == LensPath(2, 2, False, (0, 2, 3))
    assert sweep.wanted == 0
    sweep.commanded(400 * MS, 400 * MS)
    assert sweep.exposed(450 * MS, 460 * MS) == LensPath(0, 0, False, (1, 0, 3))


def test_at_its_turn_the_lens_needs_not_settle() -> None:
    sweep = FocusSweep(sweep_order(2, "triangular"), settle_s=1.0)
    for time in (0, 2000):
        sweep.commanded(time * MS, time * MS)
        sweep.exposed((time + 1000) * MS, (time + 1010) * MS)
    sweep.commanded(4000 * MS, 4000 * MS)  # the same position again, first of the way back
    assert sweep.exposed(4001 * MS, 4010 * MS) == LensPath(1, 1, False, (1, 0, 2))


@pytest.mark.parametrize(("orders", "settle_s"), [([], 0.1), ([[]], 0.1), ([[0]], -1.0), ([[0]], float("nan"))])
def test_nonsense_is_refused(orders: list[list[int]], settle_s: float) -> None:
    with pytest.raises(ValueError, match=r"orders|settle_s"):
        FocusSweep(orders, settle_s)


def simulated(
    rng: np.random.Generator, positions: int, sweep: str, settle_s: float
) -> Iterator[tuple[LensPath, float]]:
    """Images of a camera of irregular rate and delay, each with how far the lens truly moved while it was exposed."""
    order = sweep_order(positions, sweep)
    plan = FocusSweep(order, settle_s)
    moves: list[tuple[float, float, float]] = []

    def lens_at(time_s: float) -> float:
        at = 0.0
        for start_s, before, target in moves:
            if start_s <= time_s:
                at = before + (target - before) * min(1.0, (time_s - start_s) / (0.95 * settle_s))
        return at

    def command(now_s: float) -> None:
        if plan.wanted is not None:
            taken_s = now_s + rng.uniform(0.0, 5e-3)  # the driver is asked, and the lens starts within
            moves.append((taken_s, lens_at(taken_s), float(plan.wanted)))
            plan.commanded(round(now_s * 1e9), round((taken_s + rng.uniform(0.0, 5e-3)) * 1e9))

    now_s = 1.0
    command(0.5)
    for _ in itertools.repeat(None):
        start_s = now_s
        end_s = start_s + rng.uniform(0.002, 0.02)
        now_s = end_s + rng.uniform(0.0, 0.01)
        taken = plan.exposed(round(start_s * 1e9), round(end_s * 1e9))
        path = [lens_at(t) for t in np.linspace(start_s, end_s, 20)]
        if taken is not None:
            yield taken, max(abs(at - taken.position) for at in path)
        command(now_s + rng.uniform(0.0, 0.02))


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 6), st.sampled_from(["triangular", "sawtooth"]))
def test_no_image_is_taken_while_the_lens_moves_and_sweeps_are_whole(seed: int, positions: int, sweep: str) -> None:
    places = []
    images = simulated(np.random.default_rng(seed), positions, sweep, settle_s=0.03)
    for taken, off in itertools.islice(images, 40 * positions):
        if not taken.moving:
            assert off < 1e-6
        if taken.place is not None:
            assert not taken.moving
            places.append((*taken.place, taken.position))
    assert len(places) >= 2 * positions
    expected = [
        (sweep_id, index, positions, position)
        for sweep_id, order in zip(range(1000), itertools.cycle(sweep_order(positions, sweep)), strict=False)
        for index, position in enumerate(order)
    ]
    assert places == expected[: len(places)]

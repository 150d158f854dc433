"""StackAssembler where it joins a camera that runs already: what it cannot have received is no fault."""

from __future__ import annotations

import dataclasses

import pytest
from stack_rig import IMAGE, PERIOD_NS, feed, foci, frame, nonzero, numbered

from dfs_ros.stacks.assembler import StackAssembler
from dfs_ros.types import FocusMetadata, Frame


def sweeps_from(start: int, order: list[int], lost: tuple[int, ...] = ()) -> list[Frame]:
    """Two sweeps numbered in `order`, received from the `start`-th image on but for those `lost`."""
    places = [(sweep, index) for sweep in (7, 8) for index in order]
    return [
        frame(i, float(index), (sweep, index, len(order)))
        for i, (sweep, index) in enumerate(places)
        if i >= start and i not in lost
    ]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
@pytest.mark.parametrize("start", range(5))
def test_images_from_before_joining_are_not_lost_ones(order: list[int], start: int) -> None:
    assembler = StackAssembler()
    feed(assembler, sweeps_from(start, order))
    assert assembler.counts["dropped"] == 0


def test_images_lost_after_joining_are_counted() -> None:
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        assembler = StackAssembler()
        feed(assembler, sweeps_from(1, order, lost=(3, 4)))
        assert assembler.counts["dropped"] == 2


def test_starting_again_is_joining_again() -> None:
    assembler = StackAssembler()
    feed(assembler, sweeps_from(0, [0, 1, 2, 3], lost=(2, 3, 4, 5, 6, 7)))
    assembler.restart()
    stacks = feed(assembler, sweeps_from(6, [0, 1, 2, 3]) + numbered(4, [0.5, 1.0, 1.5, 2.0])[8:12])
    assert assembler.counts["dropped"] == 0
    assert assembler.pending == 0
    assert len(stacks) == 1


def test_images_older_than_the_first_focus_are_no_fault() -> None:
    assembler = StackAssembler()
    for i in range(3):
        assembler.add_image(i * PERIOD_NS, IMAGE)
    stacks = []
    for i in (3, 4, 5, 6):
        stacks += assembler.add_focus(FocusMetadata(i * PERIOD_NS, float(i)))
        stacks += assembler.add_image(i * PERIOD_NS, IMAGE)
    assembler.flush()
    assert {k: v for k, v in nonzero(assembler).items() if k not in ("stacks", "used")} == {"early": 3, "received": 7}


def test_moving_images_outside_the_numbering_do_not_end_a_sweep() -> None:
    moving = Frame(IMAGE, 1.5, 5 * PERIOD_NS + 1, lens_moving=True)
    first, second, third = numbered(1, [1.0, 2.0, 3.0])
    late = [dataclasses.replace(f, stamp_ns=f.stamp_ns + 9 * PERIOD_NS) for f in (second, third)]
    assembler = StackAssembler()
    stacks = feed(assembler, [first, moving, *late]) + assembler.flush()
    assert foci(stacks) == [[1.0, 2.0, 3.0]]
    assert stacks[0].complete
    assert assembler.counts["moving"] == 1

"""Frames of numbered and unnumbered sweeps, fed to an assembler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dfs_ros.stacks.assembler import OUTCOMES, FrameStack, StackAssembler
from dfs_ros.types import FocusMetadata, Frame, LensState

PERIOD_NS = 33_333_333
IMAGE = np.zeros((16, 20), np.uint8)
NAN = float("nan")


def frame(i: int, focus: float, place: tuple[int, int, int] | None = None, **changes: object) -> Frame:
    """Frame at time i (in frame periods), `place` = (sweep id, index, count)."""
    sweep_id, index, count = place or (None, None, None)
    values = {"image": IMAGE, "stamp_ns": i * PERIOD_NS, "sweep_id": sweep_id, "index": index, "count": count}
    return Frame(focus_diopters=focus, **{**values, **changes})  # type: ignore[arg-type]


def numbered(sweeps: int, positions: Sequence[float], first_time: int = 0) -> list[Frame]:
    """Saw-tooth sweeps numbered by the driver."""
    n = len(positions)
    return [frame(first_time + s * n + i, focus, (s, i, n)) for s in range(sweeps) for i, focus in enumerate(positions)]


def metadata(f: Frame, **changes: object) -> FocusMetadata:
    """What a driver tells of a frame."""
    values: dict[str, object] = {"stamp_ns": f.stamp_ns, "focus_diopters": f.focus_diopters}
    if f.count:
        values |= {"sweep_id": f.sweep_id, "index": f.index, "count": f.count}
    values |= {"lens_state": LensState.MOVING if f.lens_moving else LensState.UNKNOWN, "f_number": f.f_number}
    values |= {"focal_length_m": f.focal_length_m, "magnification": f.magnification}
    return FocusMetadata(**{**values, **changes})  # type: ignore[arg-type]


def add_frame(assembler: StackAssembler, f: Frame) -> list[FrameStack]:
    """An image and then its focus, which nobody sends of an image that is refused."""
    stacks = assembler.add_image(f.stamp_ns, f.image, original_size_px=f.original_size_px)
    return stacks + (assembler.add_focus(metadata(f)) if f.stamp_ns in assembler._images else [])


def feed(assembler: StackAssembler, frames: Iterable[Frame]) -> list[FrameStack]:
    return [stack for f in frames for stack in add_frame(assembler, f)]


def unnumbered(assembler: StackAssembler, focus: Iterable[float]) -> list[list[float]]:
    return foci(feed(assembler, [frame(i, f) for i, f in enumerate(focus)]) + assembler.flush())


def foci(stacks: Iterable[FrameStack]) -> list[list[float]]:
    return [[f.focus_diopters for f in stack.frames] for stack in stacks]


def told(frames: Iterable[Frame]) -> list[tuple[int, float, int | None, int | None, int]]:
    """What tells frames apart: stamp, focus, place, and the very image."""
    return [(f.stamp_ns, f.focus_diopters, f.sweep_id, f.index, id(f.image)) for f in frames]


def nonzero(assembler: StackAssembler) -> dict[str, int]:
    """The outcomes and events that happened, once conservation of images has been checked."""
    counts = assembler.counts
    assert counts["received"] == sum(counts[name] for name in OUTCOMES) + assembler.pending
    return {name: value for name, value in counts.items() if value}

"""Grouping of frames into stacks, by sweep or in a sliding window.

Second half of :mod:`.assembler`: all frames here are usable, of one size, and of strictly rising stamps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from dfs_ros.config import StackConfig
from dfs_ros.types import MAX_FRAMES, Frame

_LEAST_PERIOD_NS = 10**6  # of the fastest camera

Group = tuple[list[Frame], bool]
"""Frames of one stack, oldest first, and True if none is missing."""


class Ledger:
    """Counters, and frames not used yet, each of which gets exactly one outcome."""

    def __init__(self, names: Iterable[str]) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self.unused: set[int] = set()
        self.unplaced = 0
        """Images that came too late or without a number, and explain no missing number yet."""

    def count(self, name: str, times: int = 1) -> None:
        self.counts[name] += times

    def count_missing(self, numbers: int) -> None:
        """Count images as dropped whose `numbers` no frame had, unless as many came too late or without a number."""
        explained = min(numbers, self.unplaced)
        self.unplaced -= explained
        self.count("dropped", numbers - explained)

    def open(self, frame: Frame) -> None:
        self.unused.add(frame.stamp_ns)

    def drop(self, frame: Frame, outcome: str) -> None:
        """Give up a frame; it gets the outcome only if it was never used."""
        if frame.stamp_ns in self.unused:
            self.unused.remove(frame.stamp_ns)
            self.count(outcome)

    def use(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self.drop(frame, "used")


class Grouping(Protocol):
    """Grouping of frames; each method returns the stacks it completes.

    The caller marks their frames as used before the next call.
    """

    def add(self, frame: Frame) -> list[Group]: ...

    def sweep_over(self) -> list[Group]:
        """Note that the driver starts another sweep."""

    def end(self) -> list[Group]:
        """End the group: later frames do not belong to earlier ones."""


def place_of(frame: Frame) -> tuple[int, int, int] | None:
    """Driver's place of a frame: (sweep id, index, count); None unless all are known."""
    if frame.sweep_id is None or frame.index is None or not frame.count:
        return None
    return frame.sweep_id, frame.index, frame.count


def directly_follows(previous: Frame | None, frame: Frame) -> bool:
    """True if `frame` is the next one by the driver's numbering."""
    here = place_of(frame)
    before = None if previous is None else place_of(previous)
    if here is None or before is None:
        return False
    (sweep, index, _), (sweep_before, index_before, count_before) = here, before
    if sweep == sweep_before:
        return index == index_before + 1
    return sweep == sweep_before + 1 and index == 0 and index_before == count_before - 1


class Numbering:
    """Numbering of the driver's current sweep, with the frames received.

    Frames without numbers form one sweep without end. `joined`: first sweep seen, perhaps not from its start.
    """

    def __init__(self, first: Frame, joined: bool = False) -> None:
        self._since_ns = first.stamp_ns
        self._sweep: int | None
        self._sweep, self._first, self._count = place_of(first) or (None, 0, 0)
        self._second: int | None = None
        self._seen = {self._first}
        self._joined = joined

    def holds(self, frame: Frame, max_span_ns: int) -> bool:
        """True if the frame belongs to this sweep, also in time.

        A sweep id that never changes must not hold for ever.
        """
        place = place_of(frame)
        if place is None or self._sweep is None:
            return place is None and self._sweep is None
        return place[0] == self._sweep and frame.stamp_ns - self._since_ns <= max_span_ns

    def add(self, frame: Frame) -> bool:
        """Add a frame; False for a repeated index."""
        place = place_of(frame)
        if place is None:
            return True
        new = place[1] not in self._seen
        self._seen.add(place[1])
        if new and self._second is None:
            self._second = place[1]
        return new

    @property
    def missing(self) -> int:
        return max(self._count - len(self._seen), 0)

    @property
    def lost(self) -> int:
        """Number of missing frames, without those sent before the sweep was joined.

        The latter lie behind the first frame, against the direction of the numbers.
        """
        if not self._joined:
            return self.missing
        if self._second is None:
            return 0
        rising = self._second > self._first
        awaited = range(self._first, self._count) if rising else range(self._first + 1)
        return len(set(awaited) - self._seen)

    def skipped(self, frame: Frame) -> int:
        """Number of frames of whole sweeps between this one and that of `frame`; 0 if its driver renumbers them."""
        place = place_of(frame)
        if place is None or self._sweep is None or place[0] <= self._sweep:
            return 0
        frames = (place[0] - self._sweep - 1) * self._count
        return frames if frames * _LEAST_PERIOD_NS <= frame.stamp_ns - self._since_ns else 0

    @property
    def finished(self) -> bool:
        return self._sweep is not None and self.missing == 0


class SlidingWindow:
    """Sliding window: for each frame a stack of the newest frames at all focus positions.

    None is older than `max_span_s`.
    """

    def __init__(self, settings: StackConfig, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._window: list[Frame] = []

    def add(self, frame: Frame) -> list[Group]:
        oldest_ns = frame.stamp_ns - round(self._settings.max_span_s * 1e9)
        kept = []
        for other in self._window:
            if other.stamp_ns < oldest_ns:
                self._ledger.drop(other, "incomplete")
            elif _same_focus(other, frame, self._settings):
                self._ledger.drop(other, "same_focus")
            else:
                kept.append(other)
        most = self._settings.size or MAX_FRAMES
        self._window = [*kept, frame][-most:]  # frames that fall out have been in a stack
        if len(self._window) < min(self._settings.min_frames, most):
            return []
        return [(self._window, len(self._window) >= _announced(frame, self._settings))]

    def sweep_over(self) -> list[Group]:
        return []

    def end(self) -> list[Group]:
        for frame in self._window:
            self._ledger.drop(frame, "incomplete")
        self._window = []
        return []


class WholeSweeps:
    """Whole sweeps: one stack for each sweep of the driver or the lens.

    Without the driver's numbers a sweep lasts from one turn or fly-back of the lens to the next. If the lens lingers at
    its positions for several images, the last one of each counts: a driver may report a position before the lens is
    there. `midway`: the first frame comes within a sweep, which makes no stack unless it is known to be whole.
    """

    def __init__(self, settings: StackConfig, ledger: Ledger, midway: bool = False) -> None:
        self._settings = settings
        self._ledger = ledger
        self._midway = midway
        self._max_span_ns = round(settings.max_span_s * 1e9)
        self._frames: list[Frame] = []  # of the open sweep
        self._repeat: Frame | None = None  # newest frame at the last focus; may start the next sweep
        self._lingers = False  # there are several images of a position other than the turn
        self._given_out = False  # the open sweep has reached its size, but not its end
        self._usual_range = 0.0  # dioptres

    def add(self, frame: Frame) -> list[Group]:
        return self._add_unnumbered(frame) if place_of(frame) is None else self._add_numbered(frame)

    def sweep_over(self) -> list[Group]:
        return self.end()

    def end(self) -> list[Group]:
        self._settle()
        groups = self._close(went_through=False)
        self._start(None)
        return groups

    def _add_numbered(self, frame: Frame) -> list[Group]:
        for other in [f for f in self._frames if _same_focus(f, frame, self._settings)]:
            self._frames.remove(other)
            self._ledger.drop(other, "same_focus")
        self._frames.append(frame)
        return self.end() if len(self._frames) == MAX_FRAMES else []

    def _add_unnumbered(self, frame: Frame) -> list[Group]:
        if not self._frames:
            self._frames = [frame]
            return []
        if _same_focus(self._frames[-1], frame, self._settings):
            self._keep_repeat(frame)
            return []
        turned = self._goes_back(frame)
        if self._repeat is not None and not _same_focus(self._repeat, frame, self._settings):
            self._lingers |= not turned
            self._settle()
        full = len(self._frames) == self._settings.size
        if turned or full or self._given_out or self._too_late(frame):
            carried = self._carried_over(frame, turned)
            groups = self._close(went_through=turned, carried=carried)
            self._start(frame, carried)
        else:
            groups = []
            if self._repeat is not self._frames[-1]:
                self._keep_repeat(None)
            self._repeat = None
            self._frames.append(frame)
        if len(self._frames) == self._settings.size and not self._lingers:
            groups += self._close(went_through=False)
            self._given_out = True
        elif len(self._frames) == MAX_FRAMES:
            groups += self.end()
        return groups

    def _settle(self) -> None:
        """Take the newest image of the last position, if the lens lingers."""
        late = self._repeat is None or self._given_out or self._too_late(self._repeat)
        if self._repeat is not None and self._lingers and not late:
            self._ledger.drop(self._frames[-1], "same_focus")
            self._frames[-1] = self._repeat

    def _too_late(self, frame: Frame) -> bool:
        return frame.stamp_ns - self._frames[0].stamp_ns > self._max_span_ns

    def _keep_repeat(self, frame: Frame | None) -> None:
        if self._repeat is not None:
            self._ledger.drop(self._repeat, "same_focus")
        self._repeat = frame

    def _goes_back(self, frame: Frame) -> bool:
        if len(self._frames) < 2:
            return False
        before, last = self._frames[-2].focus_diopters, self._frames[-1].focus_diopters
        return (frame.focus_diopters - last) * (last - before) < 0

    def _carried_over(self, frame: Frame, turned: bool) -> Frame | None:
        """Last frame of the open sweep, if it also starts the next one, before `frame`."""
        carried = None if self._repeat is self._frames[-1] else self._repeat
        if turned:
            to_before = abs(frame.focus_diopters - self._frames[-2].focus_diopters)
            to_first = abs(frame.focus_diopters - self._frames[0].focus_diopters)
            flew_back = len(self._frames) > 2 and to_first <= to_before
            carried = None if flew_back else self._repeat or self._frames[-1]
        recent = carried is not None and frame.stamp_ns - carried.stamp_ns <= self._max_span_ns
        return carried if recent else None

    def _start(self, frame: Frame | None, carried: Frame | None = None) -> None:
        if self._repeat is not carried and self._repeat not in self._frames:
            self._keep_repeat(None)
        self._repeat = None
        self._given_out = False
        self._frames = [f for f in (carried, frame) if f is not None]

    def _close(self, went_through: bool, carried: Frame | None = None) -> list[Group]:
        """Give out the open sweep if it suffices; keep it for the search of the next."""
        frames = self._frames
        if not frames or self._given_out:
            return []
        announced = _announced(frames[-1], self._settings)
        complete = len(frames) >= announced if announced else went_through
        focus = [f.focus_diopters for f in frames]
        covered = max(focus) - min(focus)
        enough = len(frames) >= self._settings.min_frames and covered >= self._settings.min_coverage * self._usual_range
        enough, self._midway = enough and not self._midway, False
        # The usual range shrinks slowly: a lens that now sweeps less must not be refused for ever.
        self._usual_range = max(covered, self._settings.min_coverage * self._usual_range)
        if enough or (complete and announced > 0 and len(frames) > 1):
            return [(frames, complete)]
        for frame in frames:
            if frame is not carried:
                self._ledger.drop(frame, "incomplete")
        return []


def _same_focus(a: Frame, b: Frame, settings: StackConfig) -> bool:
    return abs(a.focus_diopters - b.focus_diopters) <= settings.focus_tolerance_diopters


def _announced(frame: Frame, settings: StackConfig) -> int:
    """Number of frames of a complete stack, 0 = unknown."""
    place = place_of(frame)
    return settings.size if place is None else place[2]

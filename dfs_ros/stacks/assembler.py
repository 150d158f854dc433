"""Assembler: images and focus metadata, in any order, to focal stacks.

1. **Pair**: an image and the focus metadata of its stamp make a :class:`~dfs_ros.types.Frame`.
2. **Order**: a frame that directly follows the last one by the driver's numbering passes at once; any other waits
   until `reorder_frames` newer ones are there. From here on frames are in the order of their stamps.
3. **Sort out** unusable frames: see :data:`OUTCOMES`. A clock set back, another image size or another lens (zoom,
   aperture) ends the current stack and starts a new one.
4. **Group** by sweep (:class:`WholeSweeps`) or in a sliding window (:class:`SlidingWindow`). Sweeps are numbered by the
   driver, or else found from the focus: the lens reverses (triangular: the frame at the turn belongs to both sweeps)
   or flies back (saw-tooth).

No stack ever holds two images of one focus position, of two sizes or lenses, with a moving lens, further apart than
`max_span_s`, or from both sides of a clock reset. Every image has exactly one outcome in :attr:`StackAssembler.counts`.
All queues are bounded. No clock, no threads, no ROS: the same calls give the same stacks.
"""

from __future__ import annotations

import operator
from bisect import insort
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import StackConfig
from dfs_ros.image_size import check_image
from dfs_ros.stacks.frames import Optics, WaitingImage, can_focus, paired
from dfs_ros.stacks.grouping import (
    Group,
    Grouping,
    Ledger,
    Numbering,
    SlidingWindow,
    WholeSweeps,
    directly_follows,
    place_of,
)
from dfs_ros.types import FocusMetadata, Frame

OUTCOMES: Mapping[str, str] = MappingProxyType(
    {
        "used": "in one stack or more",
        "duplicate": "its stamp, or its sweep and index, had come before",
        "late": "older than an image already passed on",
        "early": "older than the first focus metadata that came: sent before these were received",
        "no_focus": "its focus metadata did not come in time",
        "invalid_focus": "focus NaN, infinite, negative or inside the focal length",
        "moving": "the lens moved during the exposure",
        "same_focus": "a newer image had the same focus before this one was in a stack; many: the lens stands still",
        "incomplete": "its stack ended (sweep over, pause, other size or lens, clock reset) with too few positions",
        "given_up": "nobody wanted depth any more before its stack was complete",
    }
)
"""Outcomes of images: ``received`` is the sum of these counts and :attr:`~StackAssembler.pending`."""

EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "received": "images taken in",
        "stacks": "stacks given out",
        "dropped": "images that the driver numbered and that never came",
        "unmatched_focus": "focus metadata without an image: none came in time, or it came twice",
        "ignored": "images that came while nobody wanted depth, or the network was loading",
        "wrong_size": "times the image size changed",
        "lens_changed": "times the focal length or the f-number changed",
        "clock_reset": "times the images' clock was set back",
        "clock_ahead": "times the images' clock was set forward",
    }
)
"""Further counters."""

# Images held up by a busy machine or network may come in a burst, with stamps further apart than their receptions.
_AHEAD_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True)
class FrameStack:
    """Frames of one focal stack, oldest first, each at its own focus position.

    `complete`: all images announced by the driver or the setting `size` are there; without such a number, the sweep
    reached its end. `sweep_id`: the driver's, of the newest frame. The stamp of a frame identifies it: sliding stacks
    share frames (the very objects), so results computed from a frame can be cached under its stamp.
    """

    frames: tuple[Frame, ...]
    newest_stamp_ns: int
    sweep_id: int | None
    complete: bool


class StackAssembler:
    """Assembler of focal stacks; each call returns the stacks that it completed.

    Images are kept without a copy: the caller must not write into them afterwards.
    """

    def __init__(self, config: StackConfig | None = None) -> None:
        self._settings = config or StackConfig()
        if self._settings.size == 1:
            raise ValueError("stack.size: expected 0 (found from the focus) or 2 to 64 images, received 1")
        self._max_span_ns = round(self._settings.max_span_s * 1e9)
        self._ledger = Ledger((*OUTCOMES, *EVENTS))
        self._ignored_ns: int | None = None  # stamp of the newest image, if it was ignored
        self._begin()

    def _begin(self) -> None:
        self._grouping = self._new_grouping()
        self._images: dict[int, WaitingImage] = {}  # waiting for their focus, by stamp
        self._focus: dict[int, FocusMetadata] = {}  # waiting for their image, by stamp
        self._held: list[Frame] = []  # waiting for older frames, in order of stamps
        self._newest_image_ns: int | None = None
        self._newest_focus_ns: int | None = None
        self._first_focus_ns: int | None = None
        self._least_difference_ns: int | None = None  # of an image and a focus that did not match
        self._least_period_ns: int | None = None
        self._received_ns: int | None = None  # of the newest image of an open stack, by the receiver's clock
        self._start_order()

    def _new_grouping(self, midway: bool = False) -> Grouping:
        if self._settings.mode == "sliding":
            return SlidingWindow(self._settings, self._ledger)
        return WholeSweeps(self._settings, self._ledger, midway)

    def _start_order(self) -> None:
        self._last: Frame | None = None  # the newest frame passed on to the grouping
        self._passed: deque[int] = deque(maxlen=64)  # stamps of it and its predecessors
        self._numbering: Numbering | None = None
        self._joined = False  # a first frame came
        self._ledger.unplaced = 0
        self._optics = Optics()

    @property
    def counts(self) -> Mapping[str, int]:
        """Counts of :data:`OUTCOMES` and :data:`EVENTS` so far."""
        return MappingProxyType(self._ledger.counts)

    @property
    def stamp_difference_ns(self) -> int | None:
        """Least difference of image and focus stamps that did not match; None if over a tenth of a frame period."""
        # A larger one may be to a neighbouring image.
        least, period = self._least_difference_ns, self._least_period_ns
        return least if least is not None and (period is None or 10 * least < period) else None

    @property
    def pending(self) -> int:
        """Number of images without an outcome yet, which wait for focus, order or their stack."""
        return len(self._images) + len(self._held) + len(self._ledger.unused)

    def add_image(
        self,
        stamp_ns: int,
        image: NDArray[np.uint8],
        *,
        original_size_px: tuple[int, int] = (0, 0),
        received_ns: int | None = None,
    ) -> list[FrameStack]:
        """Add an image, uint8 (H, W) or (H, W, 3), before or after its focus metadata.

        `original_size_px` as in :class:`~dfs_ros.types.Frame`; `received_ns` by the clock of :meth:`end_on_silence`.

        Raises TypeError or ValueError for anything else, without counting it.
        """
        stamp_ns = operator.index(stamp_ns)
        check_image(image, "image")
        stacks = self._watch_image_clock(stamp_ns, received_ns)
        self._received_ns = received_ns
        if self._refused(stamp_ns):
            return stacks
        focus = self._take(self._focus, stamp_ns)
        waiting = WaitingImage(image, original_size_px)
        if focus is not None:
            return stacks + self._order(paired(stamp_ns, waiting, focus, self._settings))
        self._images[stamp_ns] = waiting
        self._watch_difference(stamp_ns, self._focus)
        if len(self._images) > self._settings.max_pending:
            self._drop_image(next(iter(self._images)))
        return stacks

    def add_focus(self, focus: FocusMetadata) -> list[FrameStack]:
        """Add focus metadata, before or after their image."""
        stamp_ns = operator.index(focus.stamp_ns)
        if self._newest_focus_ns is None:
            self._first_focus_ns = stamp_ns - self._settings.match_tolerance_ns
        self._watch_focus_clock(stamp_ns)
        if stamp_ns in self._focus or self._focus_is_late(stamp_ns):
            self._ledger.count("unmatched_focus")
            return []
        image_stamp_ns = self._nearest(self._images, stamp_ns)
        if image_stamp_ns is not None:
            return self._order(paired(image_stamp_ns, self._images.pop(image_stamp_ns), focus, self._settings))
        self._focus[stamp_ns] = focus
        self._watch_difference(stamp_ns, self._images)
        if len(self._focus) > self._settings.max_pending:
            del self._focus[next(iter(self._focus))]
            self._ledger.count("unmatched_focus")
        return []

    def ignore_image(self, stamp_ns: int) -> None:
        """Count an unwanted image; earlier ones are given up.

        Later images start within a sweep, unless they follow a pause of `max_span_s`: that first sweep makes no stack
        in mode `sweep`.
        """
        if self._ignored_ns is None:
            self.restart()
        self._ignored_ns = operator.index(stamp_ns)
        self._ledger.count("ignored")

    def end_on_silence(self, now_ns: int) -> list[FrameStack]:
        """End the current stack if no image was received for over `max_span_s`.

        `now_ns` is by the clock of `received_ns`, which may begin at 0 and be set back.
        """
        if not self._received_ns or now_ns < self._received_ns:
            self._received_ns = None if self._received_ns is None else now_ns
            return []
        return self.flush() if now_ns - self._received_ns > self._max_span_ns else []

    def flush(self) -> list[FrameStack]:
        """End the current stack and all waiting, before a pause or the end of the images."""
        self._received_ns = None
        self._drop_images()
        stacks = self._release(waiting=0)
        return stacks + self._give_out(self._grouping.end())

    def restart(self) -> None:
        """Forget all images and restart, perhaps within a sweep; counts continue."""
        self._ledger.count("given_up", self.pending)
        self._ledger.unused.clear()
        self._drop_focus()
        self._begin()

    # -- pairing ------------------------------------------------------------------------------------------------

    def _nearest(self, waiting: Mapping[int, Any], stamp_ns: int) -> int | None:
        """Stamp in `waiting` that matches `stamp_ns`, or None."""
        tolerance = self._settings.match_tolerance_ns
        if stamp_ns in waiting or not tolerance or not waiting:
            return stamp_ns if stamp_ns in waiting else None
        nearest = min(waiting, key=lambda s: abs(s - stamp_ns))
        return nearest if abs(nearest - stamp_ns) <= tolerance else None

    def _take(self, waiting: dict[int, T], stamp_ns: int) -> T | None:
        found = self._nearest(waiting, stamp_ns)
        return None if found is None else waiting.pop(found)

    def _watch_difference(self, stamp_ns: int, waiting: Iterable[int]) -> None:
        """Keep the least difference of stamps, to be told if nothing matches."""
        differences = [abs(stamp_ns - other) for other in waiting]
        if self._least_difference_ns is not None:
            differences.append(self._least_difference_ns)
        self._least_difference_ns = min(differences, default=None)

    # -- order --------------------------------------------------------------------------------------------------

    def _watch_image_clock(self, stamp_ns: int, received_ns: int | None) -> list[FrameStack]:
        """Count an image; if its stamp jumps back, or ahead of the time of reception, end the current stack."""
        self._ledger.count("received")
        stacks: list[FrameStack] = []
        if self._newest_image_ns is not None and stamp_ns > self._newest_image_ns:
            period_ns = stamp_ns - self._newest_image_ns
            self._least_period_ns = min(period_ns, self._least_period_ns or period_ns)
        if self._ignored_ns is not None:
            self._grouping = self._new_grouping(midway=abs(stamp_ns - self._ignored_ns) <= self._max_span_ns)
            self._ignored_ns = None
        if self._jumps_back(stamp_ns, self._newest_image_ns):
            stacks = self.flush()
            self._start_order()
            self._newest_image_ns = None
            self._ledger.count("clock_reset")
            if self._jumps_back(stamp_ns, self._newest_focus_ns):  # else they belong to the new clock already
                self._drop_focus()
        elif self._jumps_ahead(stamp_ns, received_ns):
            stacks = self.flush()
            self._ledger.count("clock_ahead")
        self._newest_image_ns = stamp_ns if self._newest_image_ns is None else max(stamp_ns, self._newest_image_ns)
        return stacks

    def _watch_focus_clock(self, stamp_ns: int) -> None:
        if self._jumps_back(stamp_ns, self._newest_focus_ns):
            self._newest_focus_ns = None
            self._first_focus_ns = None  # of the old clock
            self._drop_focus()
            if self._jumps_back(stamp_ns, self._newest_image_ns):
                self._drop_images()
        self._newest_focus_ns = stamp_ns if self._newest_focus_ns is None else max(stamp_ns, self._newest_focus_ns)

    def _jumps_back(self, stamp_ns: int, newest_ns: int | None) -> bool:
        return newest_ns is not None and stamp_ns < newest_ns - round(self._settings.clock_reset_s * 1e9)

    def _jumps_ahead(self, stamp_ns: int, received_ns: int | None) -> bool:
        """True if the stamps advance by far more than the receiver's clock; a burst of late images is no jump."""
        if received_ns is None or self._received_ns is None or self._newest_image_ns is None:
            return False
        ahead_ns = (stamp_ns - self._newest_image_ns) - (received_ns - self._received_ns)
        return ahead_ns > max(_AHEAD_S, self._settings.max_span_s) * 1e9

    def _drop_images(self) -> None:
        for stamp_ns in tuple(self._images):
            self._drop_image(stamp_ns)

    def _drop_image(self, stamp_ns: int) -> None:
        """Drop an image that waits for its focus."""
        del self._images[stamp_ns]
        early = self._first_focus_ns is not None and stamp_ns < self._first_focus_ns
        self._ledger.count("early" if early else "no_focus")
        self._ledger.unplaced += not early

    def _drop_focus(self) -> None:
        self._ledger.count("unmatched_focus", len(self._focus))
        self._focus.clear()

    def _is_passed(self, stamp_ns: int) -> bool:
        return self._last is not None and stamp_ns <= self._last.stamp_ns

    def _focus_is_late(self, stamp_ns: int) -> bool:
        # Much older than the images: the clock was set back, and the images of the new clock are still to come.
        expected = self._jumps_back(stamp_ns, self._newest_image_ns)
        return self._is_passed(stamp_ns + self._settings.match_tolerance_ns) and not expected

    def _refused(self, stamp_ns: int) -> bool:
        if stamp_ns in self._images or any(stamp_ns == f.stamp_ns for f in self._held):
            self._ledger.count("duplicate")
        elif self._is_passed(stamp_ns):
            repeated = stamp_ns in self._passed
            self._ledger.count("duplicate" if repeated else "late")
            self._ledger.unplaced += not repeated
        else:
            return False
        return True

    def _order(self, frame: Frame) -> list[FrameStack]:
        insort(self._held, frame, key=lambda f: f.stamp_ns)
        return self._release(self._settings.reorder_frames)

    def _release(self, waiting: int) -> list[FrameStack]:
        stacks: list[FrameStack] = []
        while self._held and (len(self._held) > waiting or directly_follows(self._last, self._held[0])):
            self._last = self._held.pop(0)
            self._passed.append(self._last.stamp_ns)
            stacks += self._group(self._last)
            self._forget_passed()
        return stacks

    def _forget_passed(self) -> None:
        """Drop unpaired images and metadata older than a frame passed on."""
        for stamp_ns in [s for s in self._images if self._is_passed(s)]:
            self._drop_image(stamp_ns)
        for stamp_ns in [s for s in self._focus if self._focus_is_late(s)]:
            del self._focus[stamp_ns]
            self._ledger.count("unmatched_focus")

    # -- grouping -----------------------------------------------------------------------------------------------

    def _group(self, frame: Frame) -> list[FrameStack]:
        """Group the next frame in the order of stamps."""
        stacks: list[FrameStack] = []
        self._ledger.open(frame)
        if frame.lens_moving and place_of(frame) is None:  # between two images of a sweep, which continues
            self._ledger.drop(frame, "moving")
            return stacks
        sweep = self._numbering
        if sweep is None or not sweep.holds(frame, self._max_span_ns):
            if sweep is not None:
                self._ledger.count_missing(sweep.lost + sweep.skipped(frame))
            sweep = self._numbering = Numbering(frame, joined=not self._joined)
            self._joined = True
            stacks += self._give_out(self._grouping.sweep_over())
        elif not sweep.add(frame):
            self._ledger.drop(frame, "duplicate")
            return stacks
        if not can_focus(frame):
            self._ledger.drop(frame, "invalid_focus")
        elif frame.lens_moving:
            self._ledger.drop(frame, "moving")
        else:
            if change := self._optics.change(frame):
                self._ledger.count(change)
                stacks += self._give_out(self._grouping.end())
            stacks += self._give_out(self._grouping.add(frame))
        if sweep.finished:
            stacks += self._give_out(self._grouping.sweep_over())
        return stacks

    def _give_out(self, groups: Iterable[Group]) -> list[FrameStack]:
        stacks = []
        for frames, complete in groups:
            self._ledger.use(frames)
            self._ledger.count("stacks")
            stacks.append(FrameStack(tuple(frames), frames[-1].stamp_ns, frames[-1].sweep_id, complete))
        return stacks

"""Images and focus metadata, in whatever order they come -> the frames of focal stacks.

1. **Pair**: an image and the focus metadata of its stamp make a :class:`~dfs_ros.types.Frame`.
2. **Order**: a frame that directly follows the last one by the driver's numbering goes on at once; any other waits
   until `reorder_frames` newer ones are there. From here on frames are in the order of their stamps.
3. **Sort out** what must not be in a stack: see :data:`OUTCOMES`. A clock set back, another image size or another
   lens (zoom, aperture) ends the stack at hand and starts anew.
4. **Group** by sweep (:class:`WholeSweeps`) or in a sliding window (:class:`SlidingWindow`). Sweeps are the driver's;
   where it numbers none, they are found from the focus: the lens turns round (triangular: the frame at the turn
   belongs to both sweeps) or flies back (saw-tooth).

No stack ever holds two images of one focus position, of two sizes or lenses, with a moving lens, further apart than
`max_span_s`, or from both sides of a clock reset. Every image has exactly one outcome in :attr:`StackAssembler.counts`.
What waits is bounded. No clock, no threads, no ROS: the same calls give the same stacks.
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
from dfs_ros.types import FocusMetadata, Frame, check_image

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
"""What becomes of an image: ``received`` is the sum of these and of what is still :attr:`~StackAssembler.pending`."""

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
    }
)
"""The other counters."""

T = TypeVar("T")


@dataclass(frozen=True)
class Sweep:
    """The frames of one focal stack, oldest first, each at a focus position of its own.

    `complete`: all images that the driver or the setting `size` announced are there; where neither does, the lens went
    through to the end. `sweep_id` is the driver's, of the newest frame. The stamp of a frame identifies it: sliding
    stacks share frames (the very objects), so what was computed from a frame can be kept under its stamp.
    """

    frames: tuple[Frame, ...]
    newest_stamp_ns: int
    sweep_id: int | None
    complete: bool


class StackAssembler:
    """Puts frames together into stacks. Each call returns the stacks that it completed, mostly none or one.

    Images are kept as they are, not copied: the caller must not write into them afterwards.
    """

    def __init__(self, config: StackConfig | None = None) -> None:
        self._settings = config or StackConfig()
        if self._settings.size == 1:
            raise ValueError("stack.size: expected 0 (found from the focus) or 2 to 64 images, received 1")
        self._max_span_ns = round(self._settings.max_span_s * 1e9)
        self._ledger = Ledger((*OUTCOMES, *EVENTS))
        self._ignored_ns: int | None = None  # stamp of the newest image, where that was ignored
        self._begin()

    def _begin(self) -> None:
        self._grouping = self._new_grouping()
        self._images: dict[int, WaitingImage] = {}  # wait for their focus, by stamp
        self._focus: dict[int, FocusMetadata] = {}  # wait for their image, by stamp
        self._held: list[Frame] = []  # wait for older frames, in order of their stamps
        self._newest_image_ns: int | None = None
        self._newest_focus_ns: int | None = None
        self._first_focus_ns: int | None = None
        self._received_ns: int | None = None  # of the newest image that a stack may wait for, by the receiver's clock
        self._start_order()

    def _new_grouping(self, midway: bool = False) -> Grouping:
        if self._settings.mode == "sliding":
            return SlidingWindow(self._settings, self._ledger)
        return WholeSweeps(self._settings, self._ledger, midway)

    def _start_order(self) -> None:
        self._last: Frame | None = None  # the newest frame passed on to the grouping
        self._passed: deque[int] = deque(maxlen=64)  # its stamp and those before
        self._numbering: Numbering | None = None
        self._joined = False  # a first frame came
        self._optics = Optics()

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each of :data:`OUTCOMES` and :data:`EVENTS` happened so far."""
        return MappingProxyType(self._ledger.counts)

    @property
    def pending(self) -> int:
        """Images without an outcome yet: they wait for their focus, for older frames or for the rest of their stack."""
        return len(self._images) + len(self._held) + len(self._ledger.unused)

    def add_image(
        self,
        stamp_ns: int,
        image: NDArray[np.uint8],
        *,
        original_size_px: tuple[int, int] = (0, 0),
        received_ns: int | None = None,
    ) -> list[Sweep]:
        """An image, uint8 (H, W) or (H, W, 3), whose focus metadata came before or will come.

        `original_size_px` as in :class:`~dfs_ros.types.Frame`; `received_ns` by the clock of :meth:`end_on_silence`.

        Raises TypeError or ValueError for anything else, and then has not counted it.
        """
        stamp_ns = operator.index(stamp_ns)
        check_image(image, "image")
        stacks = self._watch_image_clock(stamp_ns)
        self._received_ns = received_ns
        if self._refused(stamp_ns):
            return stacks
        focus = self._take(self._focus, stamp_ns)
        waiting = WaitingImage(image, original_size_px)
        if focus is not None:
            return stacks + self._order(paired(stamp_ns, waiting, focus, self._settings))
        self._images[stamp_ns] = waiting
        if len(self._images) > self._settings.max_pending:
            self._drop_image(next(iter(self._images)))
        return stacks

    def add_focus(self, focus: FocusMetadata) -> list[Sweep]:
        """Focus metadata whose image came before or will come."""
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
        if len(self._focus) > self._settings.max_pending:
            del self._focus[next(iter(self._focus))]
            self._ledger.count("unmatched_focus")
        return []

    def add_frame(self, frame: Frame) -> list[Sweep]:
        """An image whose focus is known already."""
        stacks = self._watch_image_clock(operator.index(frame.stamp_ns))
        return stacks if self._refused(frame.stamp_ns) else stacks + self._order(frame)

    def ignore_image(self, stamp_ns: int) -> None:
        """Count an image that nobody wants; what was taken before is given up.

        Images that are added later begin in the midst of a sweep, unless they come after a pause of `max_span_s`: from
        whole sweeps, no stack is made of that first one.
        """
        if self._ignored_ns is None:
            self.restart()
        self._ignored_ns = operator.index(stamp_ns)
        self._ledger.count("ignored")

    def end_on_silence(self, now_ns: int) -> list[Sweep]:
        """End the stack at hand where no image was received for more than `max_span_s`: none will complete it.

        `now_ns` by the clock of `received_ns`, which may begin at 0 and be set back.
        """
        if not self._received_ns or now_ns < self._received_ns:
            self._received_ns = None if self._received_ns is None else now_ns
            return []
        return self.flush() if now_ns - self._received_ns > self._max_span_ns else []

    def flush(self) -> list[Sweep]:
        """Nothing more will come, or not for a while: end the stack at hand and wait for nothing."""
        self._received_ns = None
        self._drop_images()
        stacks = self._release(waiting=0)
        return stacks + self._give_out(self._grouping.end())

    def restart(self) -> None:
        """Forget what was taken and begin anew, as one who joins while a sweep may be under way; counts go on."""
        self._ledger.count("given_up", self.pending)
        self._ledger.unused.clear()
        self._drop_focus()
        self._begin()

    # -- pairing ------------------------------------------------------------------------------------------------

    def _nearest(self, waiting: Mapping[int, Any], stamp_ns: int) -> int | None:
        """The stamp in `waiting` that belongs to `stamp_ns`."""
        tolerance = self._settings.match_tolerance_ns
        if stamp_ns in waiting or not tolerance or not waiting:
            return stamp_ns if stamp_ns in waiting else None
        nearest = min(waiting, key=lambda s: abs(s - stamp_ns))
        return nearest if abs(nearest - stamp_ns) <= tolerance else None

    def _take(self, waiting: dict[int, T], stamp_ns: int) -> T | None:
        found = self._nearest(waiting, stamp_ns)
        return None if found is None else waiting.pop(found)

    # -- order --------------------------------------------------------------------------------------------------

    def _watch_image_clock(self, stamp_ns: int) -> list[Sweep]:
        """Count an image in; where its stamp jumps back, end what was before."""
        self._ledger.count("received")
        stacks: list[Sweep] = []
        if self._ignored_ns is not None:
            self._grouping = self._new_grouping(midway=abs(stamp_ns - self._ignored_ns) <= self._max_span_ns)
            self._ignored_ns = None
        if self._jumps_back(stamp_ns, self._newest_image_ns):
            stacks = self.flush()
            self._start_order()
            self._newest_image_ns = None
            self._ledger.count("clock_reset")
            if self._jumps_back(stamp_ns, self._newest_focus_ns):  # else they are of the new clock already
                self._drop_focus()
        self._newest_image_ns = stamp_ns if self._newest_image_ns is None else max(stamp_ns, self._newest_image_ns)
        return stacks

    def _watch_focus_clock(self, stamp_ns: int) -> None:
        if self._jumps_back(stamp_ns, self._newest_focus_ns):
            self._newest_focus_ns = None
            self._first_focus_ns = None  # of a clock that is gone
            self._drop_focus()
            if self._jumps_back(stamp_ns, self._newest_image_ns):
                self._drop_images()
        self._newest_focus_ns = stamp_ns if self._newest_focus_ns is None else max(stamp_ns, self._newest_focus_ns)

    def _jumps_back(self, stamp_ns: int, newest_ns: int | None) -> bool:
        return newest_ns is not None and stamp_ns < newest_ns - round(self._settings.clock_reset_s * 1e9)

    def _drop_images(self) -> None:
        for stamp_ns in tuple(self._images):
            self._drop_image(stamp_ns)

    def _drop_image(self, stamp_ns: int) -> None:
        """Give up waiting for the focus of an image."""
        del self._images[stamp_ns]
        early = self._first_focus_ns is not None and stamp_ns < self._first_focus_ns
        self._ledger.count("early" if early else "no_focus")

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
            self._ledger.count("duplicate" if stamp_ns in self._passed else "late")
        else:
            return False
        return True

    def _order(self, frame: Frame) -> list[Sweep]:
        insort(self._held, frame, key=lambda f: f.stamp_ns)
        return self._release(self._settings.reorder_frames)

    def _release(self, waiting: int) -> list[Sweep]:
        stacks: list[Sweep] = []
        while self._held and (len(self._held) > waiting or directly_follows(self._last, self._held[0])):
            self._last = self._held.pop(0)
            self._passed.append(self._last.stamp_ns)
            stacks += self._group(self._last)
            self._forget_passed()
        return stacks

    def _forget_passed(self) -> None:
        """What still waits for its counterpart and is older than a frame passed on comes too late."""
        for stamp_ns in [s for s in self._images if self._is_passed(s)]:
            self._drop_image(stamp_ns)
        for stamp_ns in [s for s in self._focus if self._focus_is_late(s)]:
            del self._focus[stamp_ns]
            self._ledger.count("unmatched_focus")

    # -- grouping -----------------------------------------------------------------------------------------------

    def _group(self, frame: Frame) -> list[Sweep]:
        """The next frame in the order of stamps."""
        stacks: list[Sweep] = []
        self._ledger.open(frame)
        if frame.lens_moving and place_of(frame) is None:  # between two images of a sweep, which goes on
            self._ledger.drop(frame, "moving")
            return stacks
        sweep = self._numbering
        if sweep is None or not sweep.holds(frame, self._max_span_ns):
            self._ledger.count("dropped", sweep.lost if sweep else 0)
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

    def _give_out(self, groups: Iterable[Group]) -> list[Sweep]:
        stacks = []
        for frames, complete in groups:
            self._ledger.use(frames)
            self._ledger.count("stacks")
            stacks.append(Sweep(tuple(frames), frames[-1].stamp_ns, frames[-1].sweep_id, complete))
        return stacks

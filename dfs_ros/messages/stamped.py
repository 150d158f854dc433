"""Collection of messages of several topics by their stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

Parts = dict[str, Any]


class StampedSets:
    """Sets of messages, one from each topic, of one stamp, each set given out once.

    Parameters
    ----------
    whole
        Number of parts of a whole set, which is given out at once.
    enough
        Function: True if an incomplete set may be given out; None = never.
    newer
        Number of newer waiting sets after which an incomplete one is given out.
    most
        Largest number of waiting sets; the oldest beyond it are dropped.

    >>> sets = StampedSets(2, lambda parts: "image" in parts)
    >>> sets.add("image", 10, "a"), sets.add("image", 20, "b"), sets.add("focus", 20, 0.5)
    ([], [(10, {'image': 'a'})], [(20, {'image': 'b', 'focus': 0.5})])
    """

    def __init__(
        self, whole: int, enough: Callable[[Parts], bool] | None = None, *, newer: int = 1, most: int = 4
    ) -> None:
        self._whole, self._enough, self._newer, self._most = whole, enough, newer, most
        self._waiting: dict[int, Parts] = {}
        self._given: deque[int] = deque(maxlen=most)

    def add(self, topic: str, stamp_ns: int, part: Any) -> list[tuple[int, Parts]]:
        """Add a part; return stamp and parts of each set that is complete now."""
        if stamp_ns in self._given:  # too late for its set
            return []
        begins = stamp_ns not in self._waiting
        parts = self._waiting.setdefault(stamp_ns, {})
        parts[topic] = part
        given: list[int] = []
        if begins and self._enough is not None:
            older = list(self._waiting)[: -self._newer]
            given = [stamp for stamp in older if self._enough(self._waiting[stamp])]
        if len(parts) == self._whole:
            given.append(stamp_ns)
        self._given.extend(given)
        found = [(stamp, self._waiting.pop(stamp)) for stamp in given]
        while len(self._waiting) > self._most:
            del self._waiting[next(iter(self._waiting))]
        return found

"""State of the nodes, from their diagnostics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from dfs_ros.messages.convert import Diagnostic, Message, diagnostics_from_message
from dfs_ros.messages.node_status import counts_of, number, unusable

SILENCE_S = 5.0
"""Silence of a topic before a warning."""
_MOST_STATUSES = 64  # of the newest nodes and parts; anybody may publish more
_ON_ARRIVAL = {"dropped": "lost by a full queue or the network", "malformed": "malformed", "refused": "refused"}


class Health:
    """Warnings and drop counts from the diagnostics of some nodes."""

    def __init__(self, image_topic: str, nodes: Collection[str]) -> None:
        self._nodes = frozenset(nodes)
        self._image_topic = image_topic
        self._statuses: dict[str, tuple[int, Diagnostic]] = {}
        self._heard_ns = 0

    def add(self, msg: Message, now_ns: int) -> None:
        for name, status in diagnostics_from_message(msg).items():
            if not self._nodes or name.partition(":")[0] in self._nodes:
                self._statuses.pop(name, None)
                self._statuses[name] = (now_ns, status)
                self._heard_ns = now_ns
        newest = list(self._statuses.items())[-_MOST_STATUSES:]
        self._statuses = {n: (t, s) for n, (t, s) in newest if now_ns - t < SILENCE_S * 1e9}

    def is_fresh(self, now_ns: int) -> bool:
        """True while diagnostics arrive."""
        return bool(self._statuses) and now_ns - self._heard_ns < SILENCE_S * 1e9

    @property
    def warnings(self) -> list[str]:
        """Lines for all parts that are not OK, the worst first."""
        states = [(name, status) for name, (_, status) in self._statuses.items()]
        worst_first = ("STALE", "ERROR", "WARN")
        return [f"{n}: {status.message}" for level in worst_first for n, status in states if status.level == level]

    @property
    def counts(self) -> Counter[str]:
        """Counts of images, stacks and faults."""
        counts: Counter[str] = Counter()
        for _, status in self._statuses.values():
            counts.update(counts_of(status))
        return counts

    @property
    def unusable(self) -> dict[str, int]:
        """Messages that could not be used or were lost on the way, by cause."""
        causes: Counter[str] = Counter(unusable(self.counts))
        for _, status in self._statuses.values():
            for cause, text in _ON_ARRIVAL.items():
                if (lost := number(status, f"{self._image_topic} {cause}")) > 0:
                    causes[text] += int(lost)
        return causes

"""Diagnostics of a node's topics, for every transport."""

from __future__ import annotations

from typing import Any, Protocol

from dfs_ros.messages.convert import Diagnostic


class Topics(Protocol):
    """Publishers and subscriptions of a transport, with their counts; see :mod:`dfs_ros.transport.base`."""

    repeatable: bool
    guard: Any
    subscriptions: list[Any]
    publishers: list[Any]


class TopicsDiagnostic:
    """Counts of all topics; a warning while messages are lost."""

    def __init__(self, transport: Topics) -> None:
        self._transport = transport
        self._lost = 0

    def __call__(self) -> Diagnostic:
        values: dict[str, object] = {}
        lost = 0
        for subscription in self._transport.subscriptions:
            counts = {"received": subscription.received, "dropped": subscription.dropped, "malformed": 0, "refused": 0}
            counts |= subscription.faults
            values |= {f"{subscription.topic} {name}": count for name, count in counts.items()}
            if not self._transport.repeatable:
                for what, seconds in zip(("", "_cpu"), zip(*subscription.callback_seconds, strict=True), strict=False):
                    p99_ms = sorted(seconds)[len(seconds) * 99 // 100] * 1e3
                    values[f"{subscription.topic} callback{what}_p99_ms"] = f"{p99_ms:.2f}"
            lost += sum(counts.values()) - counts["received"]
        for publisher in self._transport.publishers:
            values[f"{publisher.topic} published"] = publisher.published
            values[f"{publisher.topic} undelivered"] = publisher.dropped
            lost += publisher.dropped
        faults = self._transport.guard.counts
        values |= faults
        lost += sum(faults.values())
        newly_lost, self._lost = lost - self._lost, lost
        if newly_lost > 0:  # negative after a subscription was closed
            return Diagnostic("WARN", f"{newly_lost} messages dropped or work failed in the last period", values)
        return Diagnostic("OK", "all messages passed on", values)

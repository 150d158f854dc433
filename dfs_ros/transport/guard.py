"""Guard of a node's work: a fault of one message, timer or request costs that one, never the node."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG_PERIOD_S = 60.0
"""Shortest time between two lines of one cause."""

_TEXTS = {"refused": "message refused", "malformed": "not decodable", "too_large": "too large"}


class Dropped(ValueError):
    """Refusal of a message for one of the causes in :attr:`Guard.counts`."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class Guard:
    """Guard of callbacks, timers, services, publications and workers of one node.

    An exception within ``with guard(place):`` drops the work there: it is counted under its cause (`refused`: a
    ValueError; `failed`: any other; or that of :class:`Dropped`), logged once per place, cause and minute, and its
    traceback is kept at level debug. May be used from any thread.

    >>> guard = Guard(lambda level, text, **options: print(text))
    >>> with guard("/image"):
    ...     raise ValueError("expected 16 x 16 pixels or more, received 1 x 1")
    /image: message refused: expected 16 x 16 pixels or more, received 1 x 1
    >>> guard.counts
    {'/image refused': 1}
    """

    def __init__(self, log: Callable[..., None]) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """Dropped work by place and cause, without that of subscriptions, which count their own."""
        with self._lock:
            return dict(self._counts)

    @contextmanager
    def __call__(self, place: str, counts: Counter[str] | None = None) -> Iterator[None]:
        """Guard a block; `counts`: counter by cause, in place of :attr:`counts`."""
        try:
            yield
        except Exception as error:
            self._drop(place, counts, error)

    def _drop(self, place: str, counts: Counter[str] | None, error: Exception) -> None:
        cause = error.cause if isinstance(error, Dropped) else "refused" if isinstance(error, ValueError) else "failed"
        with self._lock:
            if counts is None:
                self._counts[f"{place} {cause}"] += 1
            else:
                counts[cause] += 1
        text = f"{place}: {_TEXTS.get(cause, f'failed, {type(error).__name__}')}: {error}"
        self._log("error", text, key=f"{place} {cause} {type(error).__name__}", every_s=LOG_PERIOD_S, error=error)

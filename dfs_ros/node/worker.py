"""A thread that works on the newest of what it is given."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Calls `work(item)` in a thread of its own, always with the newest item; older ones that waited are given up.

    Parameters
    ----------
    prepare
        Called first, in the thread; returns `work`. Long preparations hold nobody up.
    on_failure
        Called in the thread with the exception that ended it, from `prepare` or from `work`.
    """

    def __init__(
        self, name: str, prepare: Callable[[], Callable[[Item], None]], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._prepare = prepare
        self._on_failure = on_failure
        self._condition = threading.Condition()
        self._waiting: Item | None = None
        self._stopping = False
        self._superseded = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def superseded(self) -> int:
        """Items given up for a newer one."""
        return self._superseded

    @property
    def stopping(self) -> bool:
        """Whether :meth:`close` was called: long work should end early."""
        return self._stopping

    def put(self, item: Item) -> None:
        """Work on `item` next; an item that still waits is given up."""
        with self._condition:
            self._superseded += self._waiting is not None
            self._waiting = item
            self._condition.notify()

    def clear(self) -> None:
        """Give up the item that waits, without counting it."""
        with self._condition:
            self._waiting = None

    def close(self) -> None:
        """End the thread after the work at hand, and wait for that."""
        with self._condition:
            self._stopping = True
            self._waiting = None
            self._condition.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            work = self._prepare()
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._stopping or self._waiting is not None)
                    item, self._waiting = self._waiting, None
                if self._stopping or item is None:
                    return
                work(item)
                item = None  # waits for nothing and need not be kept
        except BaseException as error:
            self._on_failure(error)

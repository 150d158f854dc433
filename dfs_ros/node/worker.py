"""Worker thread that processes the newest item."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from dfs_ros.system.memory import Peaks

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Worker that calls `work(item)` in its thread for the newest item, dropping older ones.

    Parameters
    ----------
    guard
        Context of the work on each item.
    prepare
        Called first, in the thread; returns `work`. A long preparation blocks no other thread.
    on_failure
        Called in the thread with the exception that ended it, from `prepare` or through `guard`.
    """

    def __init__(
        self,
        name: str,
        guard: Callable[[str], AbstractContextManager[None]],
        prepare: Callable[[], Callable[[Item], None]],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._guard = guard
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
        """Number of items dropped for a newer one."""
        return self._superseded

    @property
    def stopping(self) -> bool:
        """True after :meth:`close`: long work should end early."""
        return self._stopping

    def put(self, item: Item) -> None:
        """Work on `item` next; drop an item that still waits."""
        with self._condition:
            self._superseded += self._waiting is not None
            self._waiting = item
            self._condition.notify()

    def clear(self) -> None:
        """Drop the waiting item, without counting it."""
        with self._condition:
            self._waiting = None

    def close(self) -> None:
        """End the thread after the current work, and wait for it."""
        with self._condition:
            self._stopping = True
            self._waiting = None
            self._condition.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            work = self._prepare()
            peaks = Peaks()
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._stopping or self._waiting is not None)
                    item, self._waiting = self._waiting, None
                if self._stopping or item is None:
                    return
                with self._guard(f"worker {self._thread.name}"):
                    work(item)
                item = None  # releases the item while waiting
                peaks.end()
        except BaseException as error:
            self._on_failure(error)

"""Worker threads that process the newest item."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

from dfs_ros.system.memory import Peaks

Item = TypeVar("Item")
Deliver = Callable[[], None]


@dataclass(frozen=True)
class Work(Generic[Item]):
    """What is done with an item, on how many items at once.

    `of(item)` returns what is to be done with the outcome, or None; this is done for one item at a time, in the order
    in which the items came. An item that is to be done `alone` is not begun before all others are delivered.
    """

    of: Callable[[Item], Deliver | None]
    at_once: int = 1
    alone: Callable[[Item], bool] = lambda item: False


class LatestWorker(Generic[Item]):
    """Worker that works in its threads on the newest item, dropping older ones.

    Parameters
    ----------
    guard
        Context of the work on each item.
    prepare
        Called first, in the thread; returns the work. A long preparation blocks no other thread.
    on_failure
        Called in the thread with the exception that ended it, from `prepare` or through `guard`.
    """

    def __init__(
        self,
        name: str,
        guard: Callable[[str], AbstractContextManager[None]],
        prepare: Callable[[], Work[Item]],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._guard = guard
        self._prepare = prepare
        self._on_failure = on_failure
        self._condition = threading.Condition()
        self._waiting: Item | None = None
        self._taken = self._delivered = 0
        self._stopping = False
        self._superseded = 0
        self._threads = [threading.Thread(target=self._first, name=name, daemon=True)]
        self._threads[0].start()

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
            self._condition.notify_all()

    def close(self) -> None:
        """End the threads after the current work, and wait for them."""
        with self._condition:
            self._stopping = True
            self._waiting = None
            self._condition.notify_all()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _first(self) -> None:
        try:
            work = self._prepare()
            with self._condition:
                if self._stopping:
                    return
                for number in range(1, work.at_once):
                    name = f"{self._threads[0].name} {number + 1}"
                    self._threads.append(threading.Thread(target=self._run, args=(work,), name=name, daemon=True))
                    self._threads[-1].start()
        except BaseException as error:
            self._on_failure(error)
        else:
            self._run(work)

    def _run(self, work: Work[Item]) -> None:
        try:
            peaks = Peaks()
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._stopping or self._may_begin(work))
                    item, self._waiting = self._waiting, None
                    if self._stopping or item is None:
                        return
                    turn, self._taken = self._taken, self._taken + 1
                try:
                    self._work_on(item, work, turn)
                finally:
                    with self._condition:
                        self._delivered += 1
                        self._condition.notify_all()
                item = None  # releases the item while waiting
                peaks.end()
        except BaseException as error:
            self._on_failure(error)

    def _may_begin(self, work: Work[Item]) -> bool:
        free = self._taken == self._delivered
        return self._waiting is not None and (free or not work.alone(self._waiting))

    def _work_on(self, item: Item, work: Work[Item], turn: int) -> None:
        deliver = None
        try:
            with self._guard(f"worker {threading.current_thread().name}"):
                deliver = work.of(item)
        finally:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._delivered == turn)
        if deliver is not None and not self._stopping:
            with self._guard(f"worker {threading.current_thread().name}"):
                deliver()

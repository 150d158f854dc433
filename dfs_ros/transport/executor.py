"""Executor of a node's callbacks, one at a time, in order of arrival and due time.

Every transport has one. Any thread may queue work; the one thread that calls :meth:`Executor.run_once` does it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

Work = tuple[str, Callable[[], None]]
"""Place of work, for the guard, and the work itself; without a place it is not guarded."""


class Mailbox:
    """Bounded queue of a handler; a full queue drops and counts its oldest item."""

    def __init__(self, executor: Executor, handler: Callable[[Any], None], depth: int | None, place: str) -> None:
        self.handler = handler
        self.place = place
        self.received = 0
        self.dropped = 0
        self._executor = executor
        self.depth = depth
        self._items: deque[tuple[int, int, Any]] = deque()

    def put(self, item: Any) -> None:
        """Queue an item, from any thread; after :meth:`close` it is dropped without a count."""
        with self._executor.condition:
            if self not in self._executor.mailboxes:
                return
            if self.depth is not None and len(self._items) >= self.depth:
                self._items.popleft()
                self.dropped += 1
            self.received += 1
            self._items.append((*self._executor.ticket(), item))
            self._executor.condition.notify()

    def close(self) -> None:
        """Drop all items, present and later."""
        with self._executor.condition:
            if self in self._executor.mailboxes:
                self._executor.mailboxes.remove(self)
            self._items.clear()

    def head(self) -> tuple[int, int] | None:
        """Arrival of the oldest item: (ns, order); None for an empty queue."""
        return self._items[0][:2] if self._items else None

    def take(self) -> Work:
        """Take the oldest item; return the work on it."""
        item = self._items.popleft()[2]
        return self.place, lambda: self.handler(item)


class Timer:
    """Periodic timer; calls missed by a busy thread are skipped."""

    def __init__(self, executor: Executor, period_ns: int, callback: Callable[[], None]) -> None:
        self._executor = executor
        self._period_ns = period_ns
        self._callback = callback
        now, self._order = executor.ticket()
        self._due_ns = now + period_ns

    def cancel(self) -> None:
        """Stop the calls."""
        with self._executor.condition:
            if self in self._executor.timers:
                self._executor.timers.remove(self)

    def head(self) -> tuple[int, int]:
        """Due time of the next call: (ns, order)."""
        return self._due_ns, self._order

    def take(self) -> Work:
        """Return the work now due; schedule the next."""
        now, self._order = self._executor.ticket()
        periods_behind = (now - self._due_ns) // self._period_ns
        self._due_ns += (periods_behind + 1) * self._period_ns
        return f"timer of {self._period_ns * 1e-9:g} s", self._callback


class Executor:
    """Queues and timers of one node.

    `now_ns`: clock of the timers; `wall_clock` False: a clock set by others, for which no thread can sleep until a
    time; :meth:`wake` then wakes a waiting :meth:`run_once`. `guard(place)`: context of all work; an exception that it
    lets through ends :meth:`run_once`.
    """

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns, wall_clock: bool = True) -> None:
        self.guard: Callable[[str], AbstractContextManager[Any]] = lambda place: nullcontext()
        self.condition = threading.Condition(threading.RLock())
        self.mailboxes: list[Mailbox] = []
        self.timers: list[Timer] = []
        self._now_ns = now_ns
        self._wall_clock = wall_clock
        self._order = 0
        self._running = False
        self._stopped = False
        self._soon = self.mailbox(lambda callback: callback(), None, "work of another thread")
        self._end = self.mailbox(_raise, None)

    def ticket(self) -> tuple[int, int]:
        """Time and a growing number, by which work is ordered."""
        with self.condition:
            self._order += 1
            return self._now_ns(), self._order

    def mailbox(self, handler: Callable[[Any], None], depth: int | None, place: str = "") -> Mailbox:
        """Make a queue of at most `depth` items (None: unlimited) for `handler`; "" as place: unguarded."""
        mailbox = Mailbox(self, handler, depth, place)
        with self.condition:
            self.mailboxes.append(mailbox)
        return mailbox

    def timer(self, period_ns: int, callback: Callable[[], None]) -> Timer:
        """Call back every `period_ns`, first after one period."""
        timer = Timer(self, period_ns, callback)
        with self.condition:
            self.timers.append(timer)
            self.condition.notify()
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the thread that runs this executor."""
        self._soon.put(callback)

    def end(self, error: BaseException) -> None:
        """Make :meth:`run_once` raise an exception, after the work that is queued before."""
        self._end.put(error)

    def next_timer_ns(self) -> int | None:
        """Due time of the next timer; None without timers."""
        with self.condition:
            return min((timer.head()[0] for timer in self.timers), default=None)

    def wake(self) -> None:
        """Make a waiting :meth:`run_once` read the clock again."""
        with self.condition:
            self.condition.notify_all()

    def stop(self) -> None:
        """Make a waiting :meth:`run_once` return, and all later ones return at once."""
        with self.condition:
            self._stopped = True
            self.condition.notify_all()

    def run_once(self, timeout_s: float | None = None) -> bool:
        """Do the oldest work, after a wait of up to `timeout_s` (None: for ever).

        Returns False without work.
        """
        with self.condition:
            if self._running:
                raise RuntimeError("spin: this node is spun already; spin from one thread, and not from a callback")
            self._running = True
        try:
            with self.condition:
                work = self._wait_for_work(timeout_s)
            if work is None:
                return False
            place, do = work
            with self.guard(place) if place else nullcontext():
                do()
            return True
        finally:
            self._running = False

    def _wait_for_work(self, timeout_s: float | None) -> Work | None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._stopped:
            heads = [(m.head(), m.take) for m in self.mailboxes] + [(t.head(), t.take) for t in self.timers]
            due = [(head, take) for head, take in heads if head is not None and head[0] <= self._now_ns()]
            if due:
                return min(due, key=lambda one: one[0])[1]()
            limits = [] if deadline is None else [deadline - time.monotonic()]
            if limits and limits[0] <= 0:
                return None
            if self._wall_clock:
                limits += [max(0.0, (t.head()[0] - self._now_ns()) / 1e9) for t in self.timers]
            self.condition.wait(min(limits, default=None))
        return None


def _raise(error: BaseException) -> None:
    raise error

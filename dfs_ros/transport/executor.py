"""Runs the callbacks of a node, one at a time, in the order in which their messages came and their timers fell due.

Every transport has one. Any thread may put work in; the one thread that calls :meth:`Executor.run_once` does it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any


class Mailbox:
    """A bounded queue in front of a handler: when it is full, the oldest item is dropped and counted."""

    def __init__(self, executor: Executor, handler: Callable[[Any], None], depth: int | None) -> None:
        self.handler = handler
        self.received = 0
        self.dropped = 0
        self._executor = executor
        self.depth = depth
        self._items: deque[tuple[int, int, Any]] = deque()

    def put(self, item: Any) -> None:
        """Queue an item, from any thread; it is lost without a count after :meth:`close`."""
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
        """Throw away what waits, and whatever comes."""
        with self._executor.condition:
            if self in self._executor.mailboxes:
                self._executor.mailboxes.remove(self)
            self._items.clear()

    def head(self) -> tuple[int, int] | None:
        """When the oldest item came: (ns, order); None if there is none."""
        return self._items[0][:2] if self._items else None

    def take(self) -> Callable[[], None]:
        """The work on the oldest item."""
        item = self._items.popleft()[2]
        return lambda: self.handler(item)


class Timer:
    """Calls back every `period_ns`; calls that were missed because others took long are left out, not made up for."""

    def __init__(self, executor: Executor, period_ns: int, callback: Callable[[], None]) -> None:
        self._executor = executor
        self._period_ns = period_ns
        self._callback = callback
        now, self._order = executor.ticket()
        self._due_ns = now + period_ns

    def cancel(self) -> None:
        """No more calls."""
        with self._executor.condition:
            if self in self._executor.timers:
                self._executor.timers.remove(self)

    def head(self) -> tuple[int, int]:
        """When the next call is due: (ns, order)."""
        return self._due_ns, self._order

    def take(self) -> Callable[[], None]:
        """The work now due; schedules the next."""
        now, self._order = self._executor.ticket()
        periods_behind = (now - self._due_ns) // self._period_ns
        self._due_ns += (periods_behind + 1) * self._period_ns
        return self._callback


class Executor:
    """The queues and timers of one node.

    `now_ns` is the clock of the timers; `wall_clock` False = a clock that others set, with which nobody can sleep
    until a time: a waiting :meth:`run_once` is woken by :meth:`wake`.
    """

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns, wall_clock: bool = True) -> None:
        self.condition = threading.Condition(threading.RLock())
        self.mailboxes: list[Mailbox] = []
        self.timers: list[Timer] = []
        self._now_ns = now_ns
        self._wall_clock = wall_clock
        self._order = 0
        self._running = False
        self._stopped = False
        self._soon = self.mailbox(lambda callback: callback(), None)

    def ticket(self) -> tuple[int, int]:
        """Now, and a number that grows: what comes first is done first."""
        with self.condition:
            self._order += 1
            return self._now_ns(), self._order

    def mailbox(self, handler: Callable[[Any], None], depth: int | None) -> Mailbox:
        """A queue of at most `depth` items (None: any number) whose items are handled by `handler`."""
        mailbox = Mailbox(self, handler, depth)
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
        """Have `callback` called by the thread that runs this executor."""
        self._soon.put(callback)

    def next_timer_ns(self) -> int | None:
        """When the next timer falls due; None if there is none."""
        with self.condition:
            return min((timer.head()[0] for timer in self.timers), default=None)

    def wake(self) -> None:
        """Look at the clock again."""
        with self.condition:
            self.condition.notify_all()

    def stop(self) -> None:
        """Make a waiting :meth:`run_once` return, and all later ones do nothing."""
        with self.condition:
            self._stopped = True
            self.condition.notify_all()

    def run_once(self, timeout_s: float | None = None) -> bool:
        """Do the oldest work there is, waiting for it up to `timeout_s` (None: for ever); whether there was any."""
        with self.condition:
            if self._running:
                raise RuntimeError("spin: this node is spun already; spin from one thread, and not from a callback")
            self._running = True
        try:
            with self.condition:
                work = self._wait_for_work(timeout_s)
            if work is None:
                return False
            work()
            return True
        finally:
            self._running = False

    def _wait_for_work(self, timeout_s: float | None) -> Callable[[], None] | None:
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

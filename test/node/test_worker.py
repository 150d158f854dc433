"""The worker that takes the newest of what it is given."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pytest

from dfs_ros.node.worker import Deliver, LatestWorker, Work


def test_worker_works_on_the_newest_item() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Semaphore(0)
    worked: list[int] = []

    def work(item: int) -> None:
        begun.set()
        assert go_on.wait(240)
        worked.append(item)
        done.release()

    worker = LatestWorker("test", nullcontext, lambda: Work(work), lambda error: pytest.fail(str(error)))
    worker.put(1)
    assert begun.wait(240)
    for item in (2, 3, 4):
        worker.put(item)
    go_on.set()
    for _ in range(2):
        assert done.acquire(timeout=240)
    worker.close()
    assert worked == [1, 4]
    assert worker.superseded == 2


@pytest.mark.parametrize("where", ["prepare", "work"])
def test_worker_hands_on_what_ended_it(where: str) -> None:
    failed: list[BaseException] = []
    ended = threading.Event()

    def raises(*_: object) -> Any:
        raise RuntimeError(where)

    def on_failure(error: BaseException) -> None:
        failed.append(error)
        ended.set()

    work = raises if where == "prepare" else lambda: Work(raises)
    worker: LatestWorker[int] = LatestWorker("test", nullcontext, work, on_failure)
    worker.put(1)
    assert ended.wait(240)
    worker.close()
    assert [str(error) for error in failed] == [where]


def test_two_items_at_once_are_delivered_in_order() -> None:
    """The second is done first, and waits; a third supersedes nothing, a fourth the third."""
    go_on = [threading.Event() for _ in range(5)]
    begun, delivered = [threading.Event() for _ in range(5)], threading.Semaphore(0)
    order: list[int] = []
    done: list[int] = []

    def work(item: int) -> Deliver:
        begun[item].set()
        assert go_on[item].wait(240)
        done.append(item)

        def deliver() -> None:
            order.append(item)
            delivered.release()

        return deliver

    worker = LatestWorker("test", nullcontext, lambda: Work(work, at_once=2), lambda error: pytest.fail(str(error)))
    for item in (0, 1):
        worker.put(item)
        assert begun[item].wait(240)
    worker.put(2)
    worker.put(3)
    go_on[1].set()
    while done != [1]:
        threading.Event().wait(0.001)
    assert order == [] and not begun[3].is_set()
    go_on[0].set()
    go_on[3].set()
    for _ in range(3):
        assert delivered.acquire(timeout=240)
    worker.close()
    assert (done[0], order, worker.superseded) == (1, [0, 1, 3], 1)


def test_an_item_to_be_done_alone_waits_for_the_others() -> None:
    """And a newer one takes its place meanwhile; the item after it is begun beside it."""
    go_on, begun = [threading.Event() for _ in range(4)], [threading.Event() for _ in range(4)]

    def work(item: int) -> None:
        begun[item].set()
        assert go_on[item].wait(240)

    def alone(item: int) -> bool:
        return item in (1, 2)

    worker = LatestWorker("test", nullcontext, lambda: Work(work, 2, alone), lambda error: pytest.fail(str(error)))
    worker.put(0)
    assert begun[0].wait(240)
    worker.put(1)
    assert not begun[1].wait(0.05)
    worker.put(2)
    go_on[0].set()
    assert begun[2].wait(240)
    worker.put(3)
    assert begun[3].wait(240)
    for event in go_on:
        event.set()
    worker.close()
    assert (begun[1].is_set(), worker.superseded) == (False, 1)


def test_a_failed_item_lets_the_next_be_delivered() -> None:
    begun, go_on, delivered = threading.Event(), threading.Event(), threading.Event()

    @contextmanager
    def guard(what: str) -> Iterator[None]:
        with suppress(RuntimeError):
            yield

    def work(item: int) -> Deliver:
        if item == 0:
            begun.set()
            assert go_on.wait(240)
            raise RuntimeError("item 0")
        return delivered.set

    worker = LatestWorker("test", guard, lambda: Work(work, at_once=2), lambda error: pytest.fail(str(error)))
    worker.put(0)
    assert begun.wait(240)
    worker.put(1)
    assert not delivered.wait(0.05)
    go_on.set()
    assert delivered.wait(240)
    worker.close()


def test_what_waits_for_its_turn_is_not_delivered_after_the_end() -> None:
    begun, go_on, order = threading.Event(), threading.Event(), list[int]()
    second = threading.Event()

    def work(item: int) -> Deliver:
        if item == 0:
            begun.set()
            assert go_on.wait(240)
        else:
            second.set()
        return lambda: order.append(item)

    worker = LatestWorker("test", nullcontext, lambda: Work(work, at_once=2), lambda error: pytest.fail(str(error)))
    worker.put(0)
    assert begun.wait(240)
    worker.put(1)
    assert second.wait(240)
    closing = threading.Thread(target=worker.close)
    closing.start()
    while not worker.stopping:
        threading.Event().wait(0.001)
    go_on.set()
    closing.join(240)
    assert not closing.is_alive() and order == []

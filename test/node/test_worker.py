"""The worker that takes the newest of what it is given."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import pytest

from dfs_ros.node.worker import LatestWorker


def test_worker_works_on_the_newest_item() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Semaphore(0)
    worked: list[int] = []

    def work(item: int) -> None:
        begun.set()
        assert go_on.wait(240)
        worked.append(item)
        done.release()

    worker = LatestWorker("test", nullcontext, lambda: work, lambda error: pytest.fail(str(error)))
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

    work = raises if where == "prepare" else lambda: raises
    worker: LatestWorker[int] = LatestWorker("test", nullcontext, work, on_failure)
    worker.put(1)
    assert ended.wait(240)
    worker.close()
    assert [str(error) for error in failed] == [where]

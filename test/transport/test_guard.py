"""One guard: whatever a callback, timer, service, diagnostic, publication or worker raises, the node goes on."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import pytest

from dfs_ros.config import Config
from dfs_ros.messages.convert import DIAGNOSTICS, IMAGE, TRIGGER, Diagnostic, diagnostics_from_message, image_message
from dfs_ros.messages.definitions import message, serialize
from dfs_ros.node.worker import LatestWorker, Work
from dfs_ros.transport import base, guard
from dfs_ros.transport.cdr import decoded_cdr
from dfs_ros.transport.guard import Dropped, Guard
from dfs_ros.transport.local import LocalBus, LocalTransport

INT = "std_msgs/msg/Int32"
SECOND = 10**9


def fail(*_: Any) -> Any:
    raise KeyError("the lens fell off")


def test_every_kind_of_work_is_dropped_and_counted_by_cause(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "dfs_ros")
    bus = LocalBus(start_ns=0)
    node, other = LocalTransport("node", bus), LocalTransport("other", bus)
    states: list[dict[str, Diagnostic]] = []
    other.create_subscription("/diagnostics", DIAGNOSTICS, lambda msg: states.append(diagnostics_from_message(msg)))
    subscription = node.create_subscription("n", INT, fail)
    node.create_timer(0.5, fail)
    node.create_service("~/reset", TRIGGER, fail)
    node.add_diagnostic("broken", fail)
    node.add_diagnostic("whole", lambda: Diagnostic("OK", "all is well"))
    node.call_soon(fail)
    other.create_publisher("n", INT).publish(message(INT, data=1))
    with pytest.raises(TimeoutError):
        other.call_service("/node/reset", TRIGGER, message(f"{TRIGGER}_Request"), 0.01)
    for half_seconds in range(1, 5):
        bus.advance_to(half_seconds * SECOND // 2)
        while node.spin_once(0) or other.spin_once(0):
            pass
    assert dict(subscription.faults) == {"failed": 1}
    assert node.guard.counts == {
        "timer of 0.5 s failed": 4,
        "service /node/reset failed": 1,
        "diagnostic broken failed": 2,
        "work of another thread failed": 1,
    }
    assert states[-1]["node: whole"].message == "all is well" and "node: broken" not in states[-1]
    transport = states[-1]["node: transport"]
    assert (transport.values["/n failed"], transport.values["timer of 0.5 s failed"]) == (
        "1",
        "3",
    )  # the fourth call comes after them
    assert transport.level == "WARN"
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 5 and all("failed, KeyError: 'the lens fell off'" in line for line in lines)


def test_a_cause_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    monkeypatch.setattr(base.time, "monotonic", lambda: now[0])
    node = LocalTransport("node", LocalBus(start_ns=0))
    told = []
    for after_s in (0.0, 59.0, 60.5):
        now[0] = 1000.0 + after_s
        with node.guard("worker"):
            fail()
        with node.guard("worker"):
            raise ValueError("expected a lens")
        told.append(len(caplog.records))
    assert told == [2, 2, 4]
    assert guard.LOG_PERIOD_S == 60
    assert node.guard.counts == {"worker failed": 3, "worker refused": 3}


def test_what_stops_a_process_passes() -> None:
    guarded = Guard(lambda *_, **__: None)
    for error in (KeyboardInterrupt, SystemExit):
        with pytest.raises(error), guarded("worker"):
            raise error
    assert guarded.counts == {}


def test_a_worker_goes_on_after_a_failure() -> None:
    done, failures = threading.Event(), []
    node = LocalTransport("node", LocalBus(start_ns=0))
    tried = threading.Semaphore(0)

    def work(item: int) -> None:
        tried.release()
        if item == 0:
            fail()
        done.set()

    worker: LatestWorker[int] = LatestWorker("depth", node.guard, lambda: Work(work), failures.append)
    worker.put(0)
    assert tried.acquire(timeout=240)
    worker.put(1)
    assert done.wait(240)
    worker.close()
    assert (failures, node.guard.counts) == ([], {"worker depth failed": 1})


def test_too_large_and_malformed_messages_have_causes_of_their_own() -> None:
    limits = Config.from_dict({"limits": {"message_megabytes": 0.02}}).limits
    cdr = bytes(serialize(image_message(np.zeros((100, 150), np.uint8), 0, ""), IMAGE))
    assert decoded_cdr(cdr, IMAGE, limits).width == 150
    with pytest.raises(Dropped, match="at most 20000 bytes, received 30") as refused:
        decoded_cdr(cdr + cdr, IMAGE, limits)
    assert refused.value.cause == "too_large"
    with pytest.raises(Dropped) as refused:
        decoded_cdr(cdr[:100], IMAGE, limits)
    assert refused.value.cause == "malformed"
    with pytest.raises(Dropped, match="at most 262144 bytes") as refused:
        decoded_cdr(bytes(300_000), DIAGNOSTICS, Config().limits)
    assert refused.value.cause == "too_large"


def test_text_from_outside_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    node = LocalTransport("node", LocalBus(start_ns=0))
    with node.guard("worker"):
        raise ValueError("folder 'a\n[ERROR] all is lost\x1b[2J\u202e\udc80'")
    (record,) = caplog.records
    assert record.getMessage() == (r"worker: message refused: folder 'a\n[ERROR] all is lost\x1b[2J\u202e\udc80'")
    node.log("warning", "x" * 5000)
    assert caplog.records[-1].getMessage() == "x" * 2000 + " ... (5000 characters)"

"""~/capture: written by a thread of its own, a few at a time, and answered when it is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dds_names import new_domain, new_namespace
from node_rig import Rig

from dfs_ros.config import Config
from dfs_ros.io.stack_folder import load_stack, save_stack
from dfs_ros.messages.convert import TRIGGER, message, trigger_response
from dfs_ros.node import capture
from dfs_ros.node.capture import MOST_WAITING
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import Transport
from dfs_ros.transport.local import LocalBus, LocalTransport

REQUEST = f"{TRIGGER}_Request"
TIMEOUT_S = 240.0


class SlowDisk:
    """Saves stacks when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.threads: set[str] = set()

    def save(self, *arguments: Any) -> Path:
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        assert self.may_go_on.wait(TIMEOUT_S)
        return save_stack(*arguments)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    monkeypatch.setattr(capture, "save_stack", disk.save)
    yield disk
    disk.may_go_on.set()


def ask(rig: Rig, answers: list[Any]) -> threading.Thread:
    def call() -> None:
        answers.append(rig.listener.call_service("/dfs/capture", TRIGGER, message(REQUEST), TIMEOUT_S))

    thread = threading.Thread(target=call)
    thread.start()
    return thread


def spin_until(rig: Rig, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        rig.transport.spin_once(0.01)


def test_images_and_depth_go_on_while_a_stack_is_written(
    make_rig: Callable[..., Rig], tmp_path: Path, disk: SlowDisk
) -> None:
    rig = make_rig({"node": {"capture_folder": str(tmp_path)}})
    rig.listen("depth/image")
    stamps = rig.send_sweep()
    answers: list[Any] = []
    thread = ask(rig, answers)
    spin_until(rig, disk.begun.is_set)
    rig.send_sweep()
    rig.send_sweep()
    assert len(rig.depths()) == 3
    assert answers == [] and list(tmp_path.iterdir()) == []  # neither answered nor half there
    disk.may_go_on.set()
    spin_until(rig, lambda: answers)
    thread.join()
    assert answers[0].success
    assert disk.threads == {"capture_0"}
    assert load_stack(answers[0].message).stamp_ns.tolist() == stamps  # the newest when it was asked for


def test_only_a_few_wait_to_be_written(make_rig: Callable[..., Rig], tmp_path: Path, disk: SlowDisk) -> None:
    rig = make_rig({"node": {"capture_folder": str(tmp_path)}})
    rig.listen("depth/image")
    rig.send_sweep()
    answers: list[Any] = []
    threads = [ask(rig, answers) for _ in range(MOST_WAITING + 3)]
    spin_until(rig, lambda: len(answers) == 3)
    assert {(a.success, a.message) for a in answers} == {(False, "2 stacks are still being written; ask again later")}
    disk.may_go_on.set()
    spin_until(rig, lambda: len(answers) == MOST_WAITING + 3)
    for thread in threads:
        thread.join()
    written = {a.message for a in answers if a.success}
    assert written == {str(path) for path in tmp_path.iterdir()} and len(written) == MOST_WAITING
    threads = [ask(rig, answers)]
    spin_until(rig, lambda: len(answers) == MOST_WAITING + 4)
    assert answers[-1].success


def test_closing_waits_for_what_was_asked_for(make_rig: Callable[..., Rig], tmp_path: Path, disk: SlowDisk) -> None:
    rig = make_rig({"node": {"capture_folder": str(tmp_path)}})
    rig.listen("depth/image")
    rig.send_sweep()
    answers: list[Any] = []
    thread = ask(rig, answers)
    spin_until(rig, disk.begun.is_set)
    closing = threading.Thread(target=rig.node.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    disk.may_go_on.set()
    closing.join(TIMEOUT_S)
    thread.join(TIMEOUT_S)
    assert [a.success for a in answers] == [True]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_is_full_is_answered_and_leaves_nothing(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    rig = make_rig({"node": {"capture_folder": str(tmp_path)}})
    rig.listen("depth/image")
    rig.send_sweep()
    monkeypatch.setattr(Path, "write_bytes", full)
    answers: list[Any] = []
    ask(rig, answers)
    spin_until(rig, lambda: answers)
    monkeypatch.undo()
    assert not answers[0].success
    assert "No space left on device" in answers[0].message
    assert list(tmp_path.iterdir()) == []


def test_the_camera_must_be_known(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig({"node": {"capture_folder": str(tmp_path)}})
    rig.listen("depth/image")
    rig.send_sweep(focal_length_m=np.nan)
    answers: list[Any] = []
    ask(rig, answers)
    spin_until(rig, lambda: answers)
    assert (answers[0].success, list(tmp_path.iterdir())) == (False, [])
    assert "focal length of the lens is unknown" in answers[0].message


# -- answers that come later, on each transport ------------------------------------------------------------------------


@pytest.fixture(params=["local", "dds"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Transport, Transport]]:
    if request.param == "local":
        bus = LocalBus()
        nodes: list[Transport] = [LocalTransport(name, bus) for name in ("server", "client")]
    else:
        pytest.importorskip("cyclonedds", reason="cyclonedds, which has no package for this machine, carries this")
        settings = {
            "interface": "lo",
            "domain_id": new_domain(),
            "discovery_range": "localhost",
        }
        namespace = new_namespace()
        config = Config.from_dict({"dds": settings})
        nodes = [open_transport("dds", name, namespace=namespace, config=config) for name in ("server", "client")]
    yield nodes[0], nodes[1]
    for node in nodes:
        node.shutdown()


def test_a_service_may_answer_later(pair: tuple[Transport, Transport]) -> None:
    server, client = pair
    promises: list[Future[Any]] = []

    def promise(request: Any) -> Future[Any]:
        promises.append(Future())
        return promises[-1]

    server.create_service("later", TRIGGER, promise)
    server.create_service("now", TRIGGER, lambda request: trigger_response(True, "now"))
    answers: dict[str, Any] = {}

    def call(name: str) -> None:
        answers[name] = client.call_service(name, TRIGGER, message(REQUEST), TIMEOUT_S)

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline
            server.spin_once(0.02)

    threads = [threading.Thread(target=call, args=(name,)) for name in ("later", "now")]
    threads[0].start()
    until(lambda: promises)
    threads[1].start()
    until(lambda: answers)
    assert list(answers) == ["now"]
    threading.Timer(0.05, lambda: promises[0].set_result(trigger_response(True, "later"))).start()
    until(lambda: len(answers) == 2)
    for thread in threads:
        thread.join()
    assert (answers["now"].message, answers["later"].message) == ("now", "later")

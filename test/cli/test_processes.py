"""`dfs node` and `dfs camera` as processes over DDS: a signal at the worst moment, parameters that make no sense."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="cyclonedds, which has no package for this machine, carries this")

from dds_names import new_domain, new_namespace
from node_rig import PLANE_M

from dfs_ros.config import Config
from dfs_ros.io.stack_folder import load_stack, save_stack
from dfs_ros.messages.convert import DIAGNOSTICS, IMAGE, TRIGGER, depth_from_message, message
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import Transport
from dfs_ros.types import FocalStack

DOMAIN = new_domain()
NAMESPACE = new_namespace()
NETWORK = {"interface": "lo", "domain_id": DOMAIN, "discovery_range": "localhost"}
FAST = {"network.name": "none", "hypotheses.count": 24, "alignment.mode": "off", "lens.aperture": "given"}
FAST |= {"processing.threads": 1, "stack.max_span_s": 60.0}  # however long a busy machine keeps an image waiting
# So much work that a stack takes many seconds.
SLOW = {"network.name": "none", "hypotheses.count": 512, "processing.threads": 1}
TIMEOUT_S = 240.0


class Process:
    """A sub-command of `dfs`, and what it prints."""

    def __init__(self, folder: Path, command: str, settings: dict[str, Any], *options: str) -> None:
        self._printed = folder / f"{command}.txt"
        values = {**{f"dds.{k}": v for k, v in NETWORK.items()}, **settings}
        words = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        arguments = [command, "--transport", "dds", "--namespace", NAMESPACE, *words, *options]
        with self._printed.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dfs_ros.cli.main", *arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    def end(self, *signals: signal.Signals) -> int:
        for each in signals:
            self.process.send_signal(each)
        return self.process.wait(TIMEOUT_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(command: str, settings: dict[str, Any], *options: str) -> Process:
        started.append(Process(tmp_path, command, settings, *options))
        return started[-1]

    yield run
    for each in started:
        each.process.kill()
        each.process.wait()


class Listener:
    """Receives depth and the depth node's diagnostics."""

    def __init__(self, node: Transport) -> None:
        self.node = node
        self.depths: list[Any] = []
        self.values: dict[str, str] = {}
        node.create_subscription("depth/image", IMAGE, self.depths.append)
        node.create_subscription("/diagnostics", DIAGNOSTICS, self._add)

    def _add(self, msg: Any) -> None:
        for status in msg.status:
            if status.hardware_id == f"{NAMESPACE}/dfs" and status.name.endswith("depth"):
                self.values = {pair.key: pair.value for pair in status.values}

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.values
            self.node.spin_once(0.02)


@pytest.fixture
def listener() -> Iterator[Listener]:
    config = Config.from_dict({"dds": NETWORK})
    with open_transport("dds", "listener", namespace=NAMESPACE, config=config) as node:
        yield Listener(node)


def recorded(stack: FocalStack, folder: Path, times: int = 1) -> str:
    """The stack on disk, enlarged."""
    big = np.repeat(np.repeat(stack.images, times, axis=1), times, axis=2)
    return str(save_stack(FocalStack(big, stack.focus_diopters, stack.camera.scaled(float(times))), folder / "stack"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_stack_is_computed_ends_the_node_well(
    start: Callable[..., Process], listener: Listener, plane: FocalStack, tmp_path: Path, number: signal.Signals
) -> None:
    node = start("node", SLOW)
    folder = recorded(plane, tmp_path, times=6)
    camera = start("camera", {"camera.rate_hz": 10}, "--source", "stack", folder)
    listener.until(lambda: int(listener.values.get("stacks", "0")) >= 2)
    assert listener.values["state"] == "computing depth"
    assert listener.values["published"] == "0"  # at work on the first
    assert node.end(number) == 0, node.printed
    while listener.node.spin_once(0.2):
        pass
    assert listener.depths == []  # a stack computed to its end would have been published
    assert "Traceback" not in node.printed
    assert camera.end(signal.SIGTERM) == 0
    assert "Traceback" not in camera.printed


def test_parameters_are_refused_while_depth_goes_on_and_captures_are_written(
    start: Callable[..., Process], listener: Listener, plane: FocalStack, tmp_path: Path
) -> None:
    node = start("node", {**FAST, "hypotheses.max_depth_m": 10.0, "node.capture_folder": tmp_path / "captures"})
    camera = start("camera", {"camera.rate_hz": 10}, "--source", "stack", recorded(plane, tmp_path))
    listener.until(lambda: listener.depths)

    def ask(name: str, service: str, request: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(listener.node.call_service, name, service, request, TIMEOUT_S)
            listener.until(answer.done)
        return answer.result()

    def set_parameter(name: str, **value: Any) -> tuple[bool, str]:
        parameter = message(
            "rcl_interfaces/msg/Parameter", name=name, value=message("rcl_interfaces/msg/ParameterValue", **value)
        )
        request = message("rcl_interfaces/srv/SetParameters_Request", parameters=[parameter])
        (result,) = ask("dfs/set_parameters", "rcl_interfaces/srv/SetParameters", request).results
        return bool(result.successful), str(result.reason)

    for name, value, words in (
        ("node.no_such_thing", {"type": 1, "bool_value": True}, "no 'node.no_such_thing' here"),
        ("hypotheses.count", {"type": 2, "integer_value": 1_000_000}, "expected 2 to 512"),
        ("hypotheses.count", {"type": 4, "string_value": "many"}, "expected int, received 'many'"),
        ("hypotheses.min_depth_m", {"type": 3, "double_value": 50.0}, "expected min_depth_m < max_depth_m"),
        ("hypotheses.min_depth_m", {"type": 3, "double_value": float("nan")}, "expected a finite number"),
        ("node.depth_encoding", {"type": 4, "string_value": "8UC1"}, "expected one of 32FC1, 16UC1"),
        ("node.focus_source", {"type": 4, "string_value": "schedule"}, "cannot change while the node runs"),
        ("node.cloud_skip", {"type": 9}, "expected a bool, integer, double or string"),
    ):
        successful, reason = set_parameter(name, **value)
        assert not successful
        assert words in reason
    assert set_parameter("hypotheses.min_depth_m", type=3, double_value=0.5) == (True, "")
    captured = ask("dfs/capture", TRIGGER, message(f"{TRIGGER}_Request"))
    assert captured.success, captured.message
    stack = load_stack(captured.message)
    assert np.all(np.diff(stack.stamp_ns) > 0)  # as the lens went: there, or back as every second sweep
    there = slice(None, None, 1 if stack.focus_diopters[0] > stack.focus_diopters[-1] else -1)
    np.testing.assert_allclose(stack.focus_diopters[there], plane.focus_diopters, rtol=1e-6)
    np.testing.assert_array_equal(stack.images[there], plane.images)
    seen = len(listener.depths)
    listener.until(lambda: len(listener.depths) > seen + 1)
    assert np.nanmedian(depth_from_message(listener.depths[-1])) == pytest.approx(PLANE_M, rel=0.03)
    assert [each.end(signal.SIGTERM) for each in (node, camera)] == [0, 0]

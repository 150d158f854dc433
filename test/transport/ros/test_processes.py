"""The executables of `ros2 run dfs_ros ...` as processes, on a real ROS 2: how they start, and how they end."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed, or its setup file is not sourced")
pytest.importorskip("dfs_ros.msg", reason="this package was not built with colcon, or its setup file not sourced")

from node_rig import CAMERA, SIZE
from ros_rig import namespace, ros_domain, start_python, until

from dfs_ros.io.stack_folder import save_stack
from dfs_ros.messages.convert import DIAGNOSTICS, FOCUS, IMAGE, depth_from_message, focus_from_message
from dfs_ros.transport import open_transport
from dfs_ros.types import FocalStack

__all__ = ["namespace", "ros_domain"]  # fixtures
pytestmark = pytest.mark.usefixtures("ros_domain")

Start = Callable[..., subprocess.Popen[str]]
RANGE = ("hypotheses.count:=24", "hypotheses.min_depth_m:=0.4", "hypotheses.max_depth_m:=4.0")
FAST = ("network.name:=none", "cost.channels:=luma", "alignment.mode:=off", "processing.threads:=1", *RANGE)
# So much work that a stack takes many seconds.
SLOW = ("network.name:=none", "hypotheses.count:=512", "processing.threads:=1")


@pytest.fixture
def start(namespace: str) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *parameters: str, extra: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        words = [word for parameter in parameters for word in ("-p", parameter)]
        module = f"dfs_ros.cli.ros_{program}"
        started.append(start_python("-m", module, "--ros-args", "-r", f"__ns:={namespace}", *words, *extra))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate(timeout=240)


def end(process: subprocess.Popen[str], *signals: signal.Signals, timeout_s: float = 240) -> tuple[int, str]:
    """Exit status and output of a process after signals, or by itself."""
    for each in signals:
        process.send_signal(each)
    output, _ = process.communicate(timeout=timeout_s)
    return process.returncode, output


@pytest.fixture
def listener(namespace: str) -> Iterator[Any]:
    with open_transport("ros", "listener", namespace=namespace) as transport:
        yield transport


class States:
    """The diagnostics of a namespace."""

    def __init__(self, listener: Any) -> None:
        self._listener = listener
        self.values: dict[str, str] = {}
        listener.create_subscription("/diagnostics", DIAGNOSTICS, self._add)

    def _add(self, msg: Any) -> None:
        for status in msg.status:
            if status.hardware_id == f"{self._listener.namespace}/dfs" and status.name.endswith("depth"):
                self.values = {pair.key: pair.value for pair in status.values}

    def wait(self, **wanted: str) -> None:
        until(lambda: wanted.items() <= self.values.items(), self._listener)


@pytest.fixture
def folder(plane: FocalStack, tmp_path: Any) -> str:
    return str(save_stack(plane, tmp_path / "plane"))


def test_camera_and_node_give_depth_and_end_well(start: Start, listener: Any, folder: str, namespace: str) -> None:
    depths: list[Any] = []
    images: list[Any] = []
    focus: list[Any] = []
    listener.create_subscription("depth/image", IMAGE, depths.append)
    listener.create_subscription("image", IMAGE, images.append)
    listener.create_subscription("focus", FOCUS, lambda m: focus.append(focus_from_message(m)))
    camera = start("sweep_camera", "camera.source:=stack", f"camera.stack:={folder}", "camera.rate_hz:=10.0")
    node = start("depth_node", *FAST)
    until(lambda: len(depths) >= 2 and images and focus, listener)
    assert float(np.nanmedian(depth_from_message(depths[-1]))) == pytest.approx(0.9, rel=0.03)
    assert (images[0].height, images[0].width, images[0].header.frame_id) == (*SIZE, "camera_optical_frame")
    assert focus[0].focal_length_m == pytest.approx(CAMERA.focal_length_m)
    assert end(camera, signal.SIGINT)[0] == 0
    status, output = end(node, signal.SIGTERM)
    assert status == 0
    assert "ready, network: none" in output and "Traceback" not in output and "never retrieved" not in output


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)])
def test_a_signal_while_a_stack_is_computed_ends_the_node_well(
    start: Start, listener: Any, plane: FocalStack, tmp_path: Any, signals: tuple[signal.Signals, ...]
) -> None:
    big = np.repeat(np.repeat(plane.images, 6, axis=1), 6, axis=2)
    stack = FocalStack(big, plane.focus_diopters, plane.camera.scaled(6.0))
    folder = str(save_stack(stack, tmp_path / "big"))
    depths: list[Any] = []
    listener.create_subscription("depth/image", IMAGE, depths.append)
    states = States(listener)
    node = start("depth_node", *SLOW)
    camera = start("sweep_camera", "camera.source:=stack", f"camera.stack:={folder}", "camera.rate_hz:=10.0")
    states.wait(state="computing depth")
    until(lambda: int(states.values["stacks"]) >= 2, listener)
    assert states.values["published"] == "0"  # at work on the first
    status, output = end(node, *signals)
    assert status == 0, output
    while listener.spin_once(0.2):
        pass
    assert depths == []  # a stack computed to its end would have been published
    assert "Traceback" not in output
    assert end(camera, signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("delay_s", [0.3, 1.0, 1.5, 4.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_node_starts_ends_it_well(start: Start, delay_s: float, number: signal.Signals) -> None:
    process = start("depth_node", "network.name:=light")
    time.sleep(delay_s)
    # Before Python has come to the program, which on a busy machine takes long, there is nobody to catch a signal.
    early = set() if catches(process, signal.SIGTERM) else {-number, -signal.SIGINT, 1}
    status, output = end(process, number)
    assert status in {0} | early, output


def catches(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether a process has set a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
    return bool(caught >> (number - 1) & 1)


@pytest.mark.parametrize(
    ("program", "parameter", "words"),
    [
        ("depth_node", "hypotheses.cuont:=9", "hypotheses.cuont: unknown setting; did you mean 'count'?"),
        ("depth_node", "network.name:=no_such_network", "no_such_network"),
        ("depth_node", "hypotheses.count:=1", "hypotheses.count: expected 2 to 512, received 1"),
        ("sweep_camera", "camera.source:=stack", "camera.stack: expected the folder of a focal stack"),
        ("sweep_camera", "camera.rate_hz:=fast", "camera.rate_hz: expected float, received 'fast'"),
    ],
)
def test_bad_input_is_said_in_a_line(start: Start, program: str, parameter: str, words: str) -> None:
    status, output = end(start(program, parameter))
    assert status == 2
    assert words in output
    assert "Traceback" not in output


def test_help_and_misplaced_arguments() -> None:
    status, output = end(start_python("-m", "dfs_ros.cli.ros_depth_node", "--help"))
    assert status == 0 and "usage: ros2 run dfs_ros" in output
    status, output = end(start_python("-m", "dfs_ros.cli.ros_depth_node", "-p", "hypotheses.count:=9"))
    assert status == 2 and "expected --ros-args before ROS arguments, received '-p'" in output

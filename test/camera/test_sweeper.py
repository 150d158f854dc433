"""Sweeper of the lens of another driver: what it commands, by which way, and what it publishes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from v4l2_kernel import FOCUS, FOCUS_AUTO, FakeCamera, plugged_in

from dfs_ros.camera.sweeper import POSITION, FocusSweeper, ParameterLens
from dfs_ros.config import Config
from dfs_ros.messages.convert import FOCUS as FOCUS_TYPE
from dfs_ros.messages.convert import Message, focus_from_message, message
from dfs_ros.transport.base import Qos
from dfs_ros.transport.local import LocalBus, LocalTransport

EVERY = Qos(reliable=True, depth=10_000)  # on a busy machine the sweep goes on while a test waits for its core
QUICK = {"settle_s": 0.001, "dwell_s": 0.001}
PATIENCE_S = 240.0
TABLE = """format: lens-table/1
unit: {unit}
settle_s: 0.25
points: [{{raw: 0, focus_diopters: 0.5}}, {{raw: 100, focus_diopters: 4.5}}]
"""


class Graph:
    """A sweeper on a bus with somebody who listens to its commands."""

    def __init__(self, settings: dict[str, Any], **sections: dict[str, Any]) -> None:
        self.bus = LocalBus()
        self.config = Config.from_dict({"sweeper": {**QUICK, **settings}, **sections})
        self.node = LocalTransport("dfs_sweeper", self.bus, config=self.config)
        self.other = LocalTransport("camera", self.bus)
        self.commands: list[Message] = []
        self.other.create_subscription("focus", FOCUS_TYPE, self.commands.append, EVERY)

    def sweep(self, commands: int, condition: Callable[[], bool] = lambda: True) -> list[tuple[float, float]]:
        """Sweep until so many commands came; their raw positions and dioptres."""
        sweeper = FocusSweeper(self.node, self.config)
        sweeper.activate()
        try:
            deadline = time.monotonic() + PATIENCE_S
            while len(self.commands) < commands or not condition():
                assert time.monotonic() < deadline
                self.node.spin_once(0)
                self.other.spin_once(0.01)
        finally:
            sweeper.close()
        return [(float(c.raw_position), float(c.focus_diopters)) for c in self.commands[:commands]]


class CameraRos:
    """Parameter services of camera_ros: AfMode is whole, LensPosition from 0 to 12 dioptres."""

    def __init__(self, node: LocalTransport) -> None:
        self.changes: list[dict[str, float]] = []
        kind = "rcl_interfaces/srv/GetParameterTypes"
        node.create_service(
            "/driver/get_parameter_types", kind, lambda asked: message(f"{kind}_Response", types=self.of(asked))
        )
        node.create_service("/driver/set_parameters_atomically", "rcl_interfaces/srv/SetParametersAtomically", self.set)

    def of(self, asked: Message) -> Any:
        import numpy as np

        return np.array([3 if name == "LensPosition" else 2 for name in asked.names], np.uint8)

    def set(self, request: Message) -> Message:
        values = {
            p.name: p.value.double_value if p.value.type == 3 else p.value.integer_value for p in request.parameters
        }
        good = 0 <= values["LensPosition"] <= 12
        if good:
            self.changes.append(values)
        reason = "" if good else "parameter 'LensPosition' out of range"
        result = message("rcl_interfaces/msg/SetParametersResult", successful=good, reason=reason)
        return message("rcl_interfaces/srv/SetParametersAtomically_Response", result=result)


def test_camera_ros_is_swept_by_its_parameters() -> None:
    graph = Graph({"driver": "camera_ros", "node": "/driver", "raw_positions": "4, 1, 0"})
    driver = CameraRos(graph.other)
    found = graph.sweep(6)
    assert [raw for raw, _ in found] == [4, 1, 0, 1, 4, 1]  # once at each turn
    assert driver.changes[:3] == [{"AfMode": 0, "LensPosition": raw} for raw in (4.0, 1.0, 0.0)]
    (command, *_) = graph.commands
    assert command.raw_unit == "LensPosition" and focus_from_message(command).raw_position == 4.0

    graph = Graph({"driver": "camera_ros", "node": "/driver", "raw_positions": "4, 99"})
    CameraRos(graph.other)
    with pytest.raises(
        ValueError, match="node /driver: refuses LensPosition = 99: parameter 'LensPosition' out of range"
    ):
        graph.sweep(2)


def test_focus_by_the_calibration_through_a_topic(tmp_path: Path) -> None:
    lens = tmp_path / "lens.yaml"
    lens.write_text(TABLE.format(unit="dac"))
    graph = Graph({"driver": "topic", "positions": 3}, lens={"calibration": str(lens)}, camera={"sweep": "sawtooth"})
    positions: list[float] = []
    assert FocusSweeper(graph.node, graph.config.updated({"sweeper": {"settle_s": 0.0}})).step_s == pytest.approx(0.251)
    graph.other.create_subscription("lens_position", POSITION, lambda msg: positions.append(msg.data), EVERY)
    found = graph.sweep(5, lambda: len(positions) >= 5)
    assert found == [(100, 4.5), (50, 2.5), (0, 0.5), (100, 4.5), (50, 2.5)]
    assert positions[:5] == [100, 50, 0, 100, 50]
    command = graph.commands[0]
    assert (command.source, command.calibration, command.raw_unit) == (1, 1, "dac")


def test_a_webcam_is_swept_beside_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = FakeCamera(tmp_path / "video0")
    plugged_in(monkeypatch, camera)
    graph = Graph({"driver": "v4l2", "raw_positions": "0,101,250"}, v4l2={"device": str(camera.path)})
    assert [raw for raw, _ in graph.sweep(4)] == [0, 101, 250, 101]
    assert camera.log[:4] == [(FOCUS_AUTO, 0), (FOCUS, 0), (FOCUS, 100), (FOCUS, 250)]
    assert camera.control(FOCUS_AUTO).value == 1 and not camera.streaming  # as it was
    graph = Graph({"driver": "v4l2", "raw_positions": "0,900"}, v4l2={"device": str(camera.path)})
    with pytest.raises(ValueError, match="takes 0 to 250, received 900"):
        graph.sweep(2)


def test_a_driver_that_comes_late_is_awaited(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("dfs_ros.camera.sweeper._RETRY_S", 0.001)
    graph = Graph({"driver": "topic", "raw_positions": "0,1"})
    sweeper = FocusSweeper(graph.node, graph.config)
    sweeper.activate()
    deadline = time.monotonic() + PATIENCE_S
    while "the lens does not move: topic /lens_position: nobody subscribes to it" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    sweeper.close()
    assert not graph.commands


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    lens = tmp_path / "lens.yaml"
    lens.write_text(TABLE.format(unit="dac"))
    by_table = {"lens": {"calibration": str(lens)}}
    for settings, sections, words in (
        ({}, {}, "expected lens.calibration, the file that says which lens position"),
        (
            {"raw_positions": "1,2", "focus_diopters": "1,2"},
            {},
            "expected raw_positions or focus_diopters, received both",
        ),
        ({"raw_positions": "1,1"}, {}, "two or more finite lens positions"),
        ({"raw_positions": "1,nan"}, {}, "two or more finite lens positions"),
        ({"raw_positions": "1;2"}, {}, "expected numbers with commas between"),
        ({"driver": "v4l2"}, by_table, "is of lens positions in dac, the driver v4l2 has focus_absolute"),
        ({"driver": "topic", "focus_diopters": "1,9"}, by_table, "expected 0.5 to 4.5 dioptres"),
    ):
        graph = Graph(settings, **sections)
        with pytest.raises(ValueError, match=words):
            FocusSweeper(graph.node, graph.config)
    graph = Graph({"driver": "parameter", "raw_positions": "1,2", "manual": "focus_auto=off"})
    with pytest.raises(ValueError, match=r"sweeper\.manual: expected NAME=WHOLE NUMBER"):
        FocusSweeper(graph.node, graph.config).configure()
    assert ParameterLens(graph.node, "/camera", "focus_absolute", {}).unit == ""

"""Short forms of `python -m benchmarks.faults`, and that they find what breaks."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.faults import __main__ as command
from benchmarks.faults import clock, endurance, growth, messages, security
from benchmarks.faults.endurance import Sample
from benchmarks.faults.parts import Options, Row, table
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.transport import base, guard
from dfs_ros.viewer import server
from dfs_ros.viewer.app import ViewerApp


def test_mutated_messages_end_nothing() -> None:
    rows = messages.run(Options(count=25, seed=3))
    assert sum(row.tried for row in rows) == 25
    assert [row for row in rows if row.broke] == []


def test_a_node_without_its_guard_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("no message is read")

    monkeypatch.setattr(ViewerApp, "_add_depth", fail)
    monkeypatch.setattr(guard.Guard, "_drop", lambda self, place, counts, error: (_ for _ in ()).throw(error))
    with pytest.raises(KeyError):
        messages.run(Options(count=1, seed=0))


def test_clocks_that_are_set_cost_one_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_SWEEPS", 12)
    monkeypatch.setattr(clock, "CASES", {"an hour back": clock.CASES["an hour back"]})
    rows = clock.run(Options(count=1, seed=1))
    assert [(row.tried, row.broke, row.note) for row in rows] == [(1, 0, ""), (1, 0, "")]


def test_a_node_that_goes_by_the_wall_clock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_wall_clock(node: DepthNode, *arguments: Any, **options: Any) -> None:
        made(node, *arguments, **options)
        node._health._steady_ns = node._transport.now_ns

    made = DepthNode.__init__
    monkeypatch.setattr(DepthNode, "__init__", on_wall_clock)
    monkeypatch.setattr(clock, "_SWEEPS", 6)
    assert "images_hz: expected 30" in clock._step(-clock._HOUR_NS, 1)


def test_what_comes_and_goes_leaves_memory_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    all_kinds, leak = growth.kinds, []

    def kinds(opened: contextlib.ExitStack) -> dict[str, Callable[[], None]]:
        made = all_kinds(opened)
        some = {name: made[name] for name in ("configure and cleanup", "pages of the viewer")}
        return {**some, "leak": lambda: leak.append(np.ones(1 << 17))}

    monkeypatch.setattr(growth, "kinds", kinds)
    monkeypatch.setattr(growth, "_MOST_KIB", 300.0)  # few cycles tell no less
    rows = {row.what: row for row in growth.run(Options(count=18))}
    assert {name: row.tried for name, row in rows.items()} == dict.fromkeys(rows, 18) and len(rows) == 3
    leaking = rows.pop("growth: leak")
    assert leaking.broke == 1 and float(leaking.note.split()[0]) == pytest.approx(1024, rel=0.1)
    assert [row for row in rows.values() if row.broke] == []


def test_a_run_that_grows_is_found(tmp_path: Path) -> None:
    """Of a process that swings as the depth node does, the memory that is kept is judged; a peak may vary."""
    at_s = np.arange(0.0, 3600.0, 5.0)
    swing = np.where(at_s % 60 < 50, 100.0 + 50 * np.sin(at_s), 0.0)
    warm = 200 * np.minimum(at_s / 600 - 1, 0)
    grown = {"flat": 0.0 * at_s, "leaks": 4 * at_s / 3600, "peaks": swing * at_s / 3600, "warms": warm}
    samples = [
        Sample(float(t), name, 1, float(500 + s + g), 40.0)
        for name, values in grown.items()
        for t, s, g in zip(at_s, swing, values, strict=True)
    ]
    samples += [Sample(float(t), "restarted", 7 + (t > 1800), 500.0, 40.0) for t in at_s]
    samples += [Sample(float(t), "short", 9, 500.0, 40.0) for t in at_s[:200]]
    rows = {row.what.split()[-1]: row for row in endurance.rows(samples, "growth: run")}
    assert {name: row.broke for name, row in rows.items()} == {
        **{"flat": 0, "leaks": 1, "peaks": 1, "warms": 0},
        **{"restarted": 1, "short": 0},
    }
    assert [rows[name].tried for name in ("flat", "short")] == [10, 0]
    assert "kept +4.00 MiB an hour, at most 4.00" in rows["leaks"].note
    with (file := tmp_path / "samples.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(samples)
    assert endurance.rows(endurance.read(file), "growth: run") == list(rows.values())


@pytest.mark.parametrize("door", ["_live_paths", "_captures", "_other_pages", "_caches", "_forged_lines"])
def test_doors_are_closed(door: str) -> None:
    tried, broke = getattr(security, door)()
    assert tried > 1 and broke == []


def test_an_open_door_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "is_own_page", lambda *headers: True)
    assert len(security._other_pages()[1]) == 4
    monkeypatch.setattr(base, "printable", str)
    assert len(security._forged_lines()[1]) == 5


def test_command_gives_a_table_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clock, "run", lambda options: [Row("clock: back", options.count or 0, 0)])
    assert command.main(["clock", "--count", "2"]) == 0
    assert capsys.readouterr().out == table([Row("clock: back", 2, 0)]) + "\n"
    monkeypatch.setattr(clock, "run", lambda options: [Row("clock: back", 2, 1, "no depth")])
    assert command.main(["clock"]) == 1
    monkeypatch.setattr(clock, "run", lambda options: [Row("clock: back", 0, 0)])
    assert command.main(["clock"]) == 1
    for wrong, said in (["clocks"], "received 'clocks'"), (["restart"], "restart: expected --native"):
        with pytest.raises(SystemExit):
            command.main(wrong)
        assert said in capsys.readouterr().err
    if importlib.util.find_spec("rclpy") is None:
        assert command.main(["restart", "cycles", "--native"]) == 1
        assert capsys.readouterr().out.count("native ROS 2 cannot be used") == 2

"""Short forms of `python -m benchmarks.faults`, and that they find what breaks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.faults import __main__ as command
from benchmarks.faults import clock, endurance, growth, messages, security
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


def test_a_run_that_grows_is_found() -> None:
    minutes = np.arange(60)
    flat = endurance._row("node", list(500 + np.sin(minutes)), "")
    rising = endurance._row("node", list(500 + np.sin(minutes) + 4 * minutes / 60), "")
    late = endurance._row("node", [*np.linspace(300, 500, 10), *[500.0] * 50], "")
    assert (flat.broke, rising.broke, late.broke, flat.tried) == (0, 1, 0, 50)
    assert endurance._row("node", [500.0] * 5, "").tried == 0


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
    with pytest.raises(SystemExit):
        command.main(["clocks"])

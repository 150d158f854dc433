"""Short form of the harness of faults: kills, full disks, power cuts and damaged inputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults import disk, fuzz, kill, power
from benchmarks.faults.parts import Options
from benchmarks.faults.writers import WRITERS, Writer, what_is_wrong

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
BY_NAME = {writer.name: writer for writer in WRITERS}


def test_killed_writers_leave_nothing_half(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("result", "stack", "replayed bag", "recording mcap", "recording sqlite3")
    monkeypatch.setattr(kill, "WRITERS", [BY_NAME[name] for name in names])
    rows = kill.run(Options(count=10, seed=1))
    assert [(row.tried, row.broke) for row in rows] == [(2, 0)] * len(names), rows


def test_full_disks_leave_nothing_half(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("result", "stack", "recording mcap", "recording sqlite3")
    monkeypatch.setattr(disk, "WRITERS", [BY_NAME[name] for name in names])
    rows = disk.run(Options(count=2, seed=1))
    if not any(row.tried for row in rows):
        pytest.skip(rows[0].note)
    assert [(row.tried, row.broke) for row in rows] == [(4, 0)] * len(names), rows


def test_damaged_inputs_are_refused_in_a_sentence() -> None:
    rows = fuzz.run(Options(count=70, seed=1))
    assert sum(row.broke for row in rows) == 0, rows
    assert sum(row.tried for row in rows) == 70


def test_what_is_half_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of the harness reject each fault that they are for."""
    result = BY_NAME["result"]
    result.write(tmp_path / "result", 1, lambda number: None)
    assert what_is_wrong(result, tmp_path / "result", 0, True) == ""
    np.save(tmp_path / "result" / "sigma.npy", np.full((96, 128), 3.0, np.float32))
    assert "two results" in what_is_wrong(result, tmp_path / "result", 0, True)
    assert "old one is gone" in what_is_wrong(result, tmp_path / "none", 0, True)
    bag = BY_NAME["recording mcap"]
    bag.write(tmp_path / "bag", 1, lambda number: None)
    assert what_is_wrong(bag, tmp_path / "bag", 60, False) == ""
    assert "60 of 61" in what_is_wrong(bag, tmp_path / "bag", 61, False)

    def half(folder: Path, version: int, report: Callable[[int], None]) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "a").write_text(str(version))
        time.sleep(0.2)
        (folder / "a").write_text(f"{version} ")

    careless = Writer("careless", half, lambda folder, least: "half" if (folder / "a").read_text() != "2 " else "")
    monkeypatch.setattr(kill, "WRITERS", [careless])
    assert sum(row.broke for row in kill.run(Options(count=6, seed=1))) > 0
    monkeypatch.setattr(fuzz, "_readers", lambda good: [fuzz.Reader("careless", "x", _careless_reader)])
    (row,) = _fuzz_of_one_file()
    assert row.broke == row.tried == 3 and "KeyError" in row.note


def _careless_reader(folder: Path) -> object:
    return {}[(folder / "x").read_bytes()]


def _fuzz_of_one_file() -> list[fuzz.Row]:
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        good = Path(made) / "good"
        good.mkdir()
        (good / "x").write_bytes(b"content")
        reader = fuzz.Reader("careless", "x", _careless_reader)
        return [fuzz._fuzzed(reader, 3, good, Path(made) / "bad", 0, Options())]


def test_without_root_power_cuts_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(file: Path) -> None:
        raise PermissionError("no loop device")

    monkeypatch.setattr(power, "_make_disk", refused)
    assert power.run(Options(count=1)) == [power.Row("power", 0, 0, "needs root and loop devices: no loop device")]

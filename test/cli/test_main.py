"""The entry point: commands that only a clone of the repository has."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from dfs_ros.cli.main import COMMANDS, main

Capture = pytest.CaptureFixture[str]
CLONED = ("train", "eval", "experiment", "bench")


class NotInstalled:
    """Finder before all others that knows no package of these names: as a wheel leaves them out."""

    def __init__(self, *packages: str) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self._packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Have `packages` and what was imported from the repository beside them imported anew, `packages` in vain."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("dfs_research", "benchmarks", *packages)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(*packages), *sys.meta_path])


@pytest.mark.parametrize("command", [*CLONED, "bench --node"])
def test_a_command_of_the_repository_without_it(command: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "dfs_research", "benchmarks")
    assert main([*command.split(), "--help"]) == 1
    assert capsys.readouterr().err == (
        f"dfs {command}: error: this command comes with a clone of the repository (run it there, or after `pip install "
        "-e .` of it), not with a wheel or a colcon build\n"
    )


def test_another_missing_package_is_named(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "psutil")
    assert main(["bench", "--node", "--help"]) == 1
    assert "No module named 'psutil'; `dfs doctor`" in capsys.readouterr().err


def test_help_lists_these_commands_apart(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    installed, _, cloned = capsys.readouterr().out.partition("\nfrom a clone:\n")
    assert [line.split()[0] for line in cloned.splitlines() if line.startswith("  ")] == list(CLONED)
    assert [line.split()[0] for line in installed.splitlines() if line.startswith("  ")] == [
        name for name in COMMANDS if name not in CLONED
    ]


def test_a_fault_of_the_program_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dfs_ros.cli import main as module

    def faulty(name: str, arguments: object) -> int:
        raise ZeroDivisionError("division by zero\nmore")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_run", faulty)
    assert module.main(["doctor"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (file,) = (tmp_path / "dfs_ros" / "faults").iterdir()
    assert line == (
        "dfs doctor: error: a fault of this program, ZeroDivisionError: division by zero; please report it with "
        f"{file}, where its traceback lies"
    )
    assert "Traceback" in file.read_text() and "in faulty" in file.read_text()


def test_long_errors_are_shortened(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from dfs_ros.cli import main as module

    def wordy(name: str, arguments: object) -> int:
        raise ValueError("\n".join(["x" * 5000] * 20_000))

    monkeypatch.setattr(module, "_run", wordy)
    assert module.main(["doctor"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 51 and max(map(len, lines)) < 1100 and lines[-1] == "... and 19950 lines more"

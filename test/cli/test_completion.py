"""Completion in the shell: argcomplete on the parser of `dfs`, by the protocol of the shell."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from dfs_ros.cli.completion import parser_of
from dfs_ros.cli.main import COMMANDS, VARIANTS

argcomplete = pytest.importorskip("argcomplete")


def completions(line: str) -> set[str]:
    """Words that may stand at the end of a line after `dfs`."""
    parser = parser_of({**COMMANDS, **VARIANTS}, ["dfs", *line.split()])
    finder = argcomplete.CompletionFinder(parser, always_complete_options=False)
    words = iter(lambda: finder.rl_complete(line, next(states)), None)
    states = itertools.count()
    return {word.strip().split()[-1] for word in words}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("est", {"estimate"}),
        ("re", {"record", "recover", "replay"}),
        ("calibrate ", {"board", "lens", "check", "aperture"}),
        ("calibrate lens --ou", {"--output"}),
        ("estimate --runner tens", {"tensorrt", "tensorrt_rtx"}),
        ("estimate --set node.depth_enc", {"node.depth_encoding="}),
        ("estimate --set node.depth_encoding=", {"node.depth_encoding=32FC1", "node.depth_encoding=16UC1"}),
        ("estimate --set node.autostart=t", {"node.autostart=true"}),
        ("camera --source s", {"sim", "stack"}),
        ("no-such-command --", {"--help", "--version"}),
    ],
)
def test_words(line: str, expected: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert completions(line) == expected


def test_every_command_has_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(COMMANDS) <= completions("")
    assert "--list-settings" in completions("node --l")
    assert "--list-settings" not in completions("view --zzz")


def test_folders_complete_where_no_word_is_expected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stack_of_a_room").mkdir()
    monkeypatch.chdir(tmp_path)
    assert completions("estimate stack_") == {"stack_of_a_room/"}
    assert completions("camera --source stack ") >= {"stack_of_a_room/"}


def test_the_command_itself_answers_the_shell(tmp_path: Path) -> None:
    """argcomplete's shell code runs the command with the request in its environment, and reads descriptor 8."""
    for file in ("scripts/dfs", "dfs_ros/cli/main.py"):
        assert "PYTHON_ARGCOMPLETE_OK" in (ROOT / file).read_text()[:1024]
    request = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": "dfs foc", "COMP_POINT": "7"}
    file = tmp_path / "answer"
    code = "import sys; from dfs_ros.cli.main import main; main()"
    subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" 8> "{file}" 9> /dev/null', sys.executable, code],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **request},
        check=True,
        timeout=240,
    )
    assert file.read_text().split() == ["focus-table"]

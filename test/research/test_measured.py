"""The section of a model card that is measured: replaced as a whole, and nothing else with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfs_research.evaluation.measured import replaced
from dfs_ros.cli.main import main

CARD = "# none\n\nAbout.\n\n## Measured\nold \\1\n\n### more\nold\n\n## Limits\nSome.\n"


def test_a_section_is_replaced_up_to_the_next_of_its_level() -> None:
    assert replaced(CARD, "## Measured\n\nnew \\g<0>\n\n### more\n\nnew\n") == (
        "# none\n\nAbout.\n\n## Measured\n\nnew \\g<0>\n\n### more\n\nnew\n\n## Limits\nSome.\n"
    )


def test_a_section_at_the_end_and_one_that_is_not_there() -> None:
    assert replaced("# a\n\n## Measured\nold\n", "## Measured\nnew") == "# a\n\n## Measured\nnew\n"
    assert replaced("# a\n\n## Measured, long ago\nold\n\n", "## Measured\nnew") == (
        "# a\n\n## Measured, long ago\nold\n\n## Measured\nnew\n"
    )


def test_twice_is_as_once() -> None:
    once = replaced(CARD, "## Measured\nnew")
    assert replaced(once, "## Measured\nnew") == once


def test_the_command_writes_what_it_prints(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "none.md"
    card.write_text(CARD)
    arguments = ["eval", "--rgbd", str(photos), "--cameras", "B", "--width", "64", "--set", "hypotheses.count=12"]
    assert main([*arguments, "--methods", "residual,none", "--model-card", str(card)]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("| B | none |"))
    text = card.read_text()
    assert text.startswith("# none\n\nAbout.\n\n## Measured\n\n") and text.endswith("\n\n## Limits\nSome.\n")
    assert row.rsplit("|", 2)[0] in text and "| residual |" not in text and "old" not in text
    assert "12 hypotheses from 0.31 to 10 m" in text.replace("\n", " ") and "- commit: " in text

    assert main([*arguments, "--methods", "residual", "--model-card", str(card)]) == 2
    assert "none is not among --methods" in capsys.readouterr().err
    assert main([*arguments, "--methods", "none", "--model-card", str(tmp_path / "light.md")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert card.read_text() == text

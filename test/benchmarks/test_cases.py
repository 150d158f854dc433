"""Verdicts on the awkward inputs: right figures, causes that are named, and what is neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.case_expectations import EXPECTED, Board, judged, steps_of
from benchmarks.cases import main

SCORES = """  true  0.8000 m: median  0.8040 m, error   +0.5%, 90 % within   3.6%, coverage  100%
  true  2.0000 m: median  {median} m, error  {error}%, 90 % within   9.3%, coverage  {coverage}%
"""


def output(*steps: tuple[str, int, str]) -> str:
    return "".join(f"$ dfs {command}\n  rc {status} | {text}\n" for command, status, text in steps)


def scores(error: float = 1.0, coverage: int = 100) -> str:
    return SCORES.format(median=f"{2 * (1 + error / 100):.4f}", error=f"{error:+.1f}", coverage=coverage)


def test_steps_have_status_text_and_scores() -> None:
    first, second = steps_of(
        output(("import a", 0, "fine"), ("estimate a --output b", 2, "no depth\n" + scores(-62.3)))
    )
    assert (first.command, first.status, first.text.strip(), first.boards) == ("import a", 0, "fine", ())
    assert (second.command, second.status) == ("estimate a --output b", 2)
    assert second.boards == (Board(0.8, 0.005, 1.0), Board(2.0, pytest.approx(-0.623), 1.0))  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("error", "coverage", "verdict"), [(1.0, 100, "RIGHT"), (-3.1, 100, "WRONG"), (1.0, 7, "WRONG")]
)
def test_a_figure_counts_with_its_coverage(error: float, coverage: int, verdict: str) -> None:
    text = output(*((f"replay pad{n} --output x", 0, "2 depth images\n" + scores(error, coverage)) for n in (16, 600)))
    assert judged("jpeg_zero_padding", text).verdict == verdict


def test_the_worst_part_of_a_case_counts() -> None:
    right, wrong = ("replay pad16 --output x", 0, scores()), ("replay pad600 --output x", 2, "error: cut")
    verdict = judged("jpeg_zero_padding", output(right, wrong))
    assert (verdict.verdict, verdict.cause) == ("WRONG", "error: cut")
    assert judged("jpeg_zero_padding", output(right)).verdict == "WRONG"  # the other part did not run


@pytest.mark.parametrize(
    ("status", "text", "verdict"),
    [
        (2, "error: a.jpg: cropped: give --pixel-pitch-um", "REFUSED"),
        (0, "W a.jpg: cropped: give --pixel-pitch-um\n" + scores(33.0), "WARNED"),
        (0, "warning: a.jpg: cropped: give --pixel-pitch-um\n" + scores(33.0), "WARNED"),
        (0, "pixel pitch of the cropped image; --pixel-pitch-um\n" + scores(33.0), "WRONG"),  # not a warning
        (2, "error: a.jpg: bad", "WRONG"),
        (0, scores(2.9), "RIGHT"),
    ],
)
def test_a_cause_is_named_by_a_refusal_or_a_warning(status: int, text: str, verdict: str) -> None:
    assert judged("exif_of_uncropped_original", output(("import p --output s", status, text))).verdict == verdict


def test_a_case_without_expectation_is_wrong() -> None:
    assert judged("new_case", output(("replay a", 0, scores()))).verdict == "WRONG"


def test_every_want_can_be_met() -> None:
    for case in EXPECTED.values():
        assert case.figure and case.wants
        assert all(want.within or want.says or want.cause for want in case.wants)


COMMON = "import os, subprocess\nDFS = os.environ['DFS']\n"
GENERATOR = """import sys; sys.path.insert(0, "..")
from common import *
from pathlib import Path
Path("photos").mkdir()
for command in (["import", "photos"],):
    done = subprocess.run([DFS, *command], capture_output=True, text=True)
    print("$ dfs", *command); print("  rc", done.returncode, "|", (done.stdout + done.stderr).strip())
print(len(list(Path(DFS).resolve().parents[2].glob("msg/FrameFocus.msg"))), "definitions")
"""


def test_generators_run_with_the_command_of_this_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = tmp_path / "cases"
    (cases / "film_plane_distances").mkdir(parents=True)
    (cases / "common.py").write_text(COMMON)
    (cases / "film_plane_distances" / "gen.py").write_text(GENERATOR)
    assert main([str(cases), "--json", "--output", str(tmp_path / "kept")]) == 1
    (verdict,) = json.loads(capsys.readouterr().out)["cases"]
    assert verdict["name"] == "film_plane_distances" and verdict["verdict"] == "WRONG"
    log = (tmp_path / "kept" / "film_plane_distances" / "log.txt").read_text()
    assert "rc 2 | dfs import: error: photos: expected photos" in log and "1 definitions" in log
    assert sorted(p.name for p in cases.iterdir()) == ["common.py", "film_plane_distances"]


def test_a_generator_that_hangs_is_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rectified_uses_k").mkdir()
    (tmp_path / "common.py").write_text("")
    (tmp_path / "rectified_uses_k" / "gen.py").write_text("import time\ntime.sleep(600)\n")
    assert main([str(tmp_path), "rectified_uses_k", "--timeout", "0.5"]) == 1
    assert "not done within 0.5 s" in capsys.readouterr().out

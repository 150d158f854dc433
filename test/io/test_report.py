"""report.json is what docs/formats.md says, whichever command wrote it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_rig import DEPTH_M, FAST, estimate, make_stack, stack
from report_rig import violations

from dfs_ros.io.stack_folder import load_stack, save_stack
from tools.report_table import FILE, page

__all__ = ["stack"]  # fixtures


def report_in(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def test_the_page_is_what_the_schema_says() -> None:
    assert FILE.read_text() == page(FILE.read_text()), "run `python -m tools.report_table`"


@pytest.mark.parametrize("options", [(), ("--set", "lens.aperture=given"), ("--set", "alignment.mode=off", "--dense")])
def test_reports_of_estimate_are_documented(stack: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert estimate(stack, tmp_path / "out", *FAST, *options) == 0
    report = report_in(tmp_path / "out")
    assert violations(report, "dfs estimate") == []
    assert report["format"] == "depth-report/1" and (report["aperture"] is None) == ("lens.aperture=given" in options)


def test_reports_with_a_reference_are_documented(tmp_path: Path) -> None:
    reference_m = np.full((48, 64), DEPTH_M, np.float32)
    folder = save_stack(load_stack(make_stack(tmp_path / "plain")), tmp_path / "stack", reference_depth_m=reference_m)
    assert estimate(folder, tmp_path / "out", *FAST) == 0
    report = report_in(tmp_path / "out")
    assert violations(report, "dfs estimate") == [] and report["reference"]["median_abs_rel"] < 0.05


def test_the_check_finds_what_is_wrong(stack: Path, tmp_path: Path) -> None:
    assert estimate(stack, tmp_path / "out", *FAST) == 0
    report = report_in(tmp_path / "out")

    def changed(change: dict[str, Any]) -> list[str]:
        return violations({**copy.deepcopy(report), **change}, "dfs estimate")

    assert changed({"sharpness": 3}) == ["sharpness: not documented for dfs estimate"]
    assert changed({"source": "sim"}) == ["source: not documented for dfs estimate"]
    assert changed({"images": 3.5}) == ["images: 3.5 is no integer"]
    assert changed({"coverage": None}) == ["coverage: null"]
    assert changed({"size_px": {"width": 64}}) == ["size_px.height: missing"]
    assert changed({"size_px": [64, 48]})[0] == "size_px[]: not documented for dfs estimate"
    assert changed({"warnings": [1]}) == ["warnings[]: 1 is no text"]
    del report["warnings"]
    assert violations(report, "dfs estimate") == ["warnings[]: missing"]

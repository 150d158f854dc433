"""Calibration files of lens and camera: what they mean, and every way they can be wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dfs_ros.camera.camera_file import load_camera_file
from dfs_ros.lens.table import LensTable

GOOD: dict[str, Any] = {
    "format": "lens-table/1",
    "note": "desk",
    "unit": "dac",
    "settle_s": 0.25,
    "points": [
        {"raw": 0, "focus_diopters": 0.2, "sigma_diopters": 0.05},
        {"raw": 100, "focus_diopters": 2.2, "sigma_diopters": 0.15},
        {"raw": 250, "focus_diopters": 8.2},
    ],
}


def write(folder: Path, document: Any) -> Path:
    file = folder / "lens.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return file


def test_between_points_the_focus_is_interpolated(tmp_path: Path) -> None:
    table = LensTable.load(write(tmp_path, GOOD))
    assert (table.unit, table.settle_s, table.note) == ("dac", 0.25, "desk")
    assert table.range_diopters == (0.2, 8.2)
    assert table.focus_of(0) == pytest.approx((0.2, 0.05))
    assert table.focus_of(50) == pytest.approx((1.2, 0.1))
    assert table.focus_of(175)[0] == pytest.approx(5.2)
    assert math.isnan(table.focus_of(175)[1])  # towards a point whose uncertainty nobody knows
    for beyond in (-1, 250.5):
        assert math.isnan(table.focus_of(beyond)[0])
    for focus in np.linspace(0.2, 8.2, 33):
        assert table.focus_of(table.raw_of(focus))[0] == pytest.approx(focus)


def test_a_lens_may_go_the_other_way(tmp_path: Path) -> None:
    points = [{"raw": 10, "focus_diopters": 5.0}, {"raw": 30, "focus_diopters": 1.0}]
    table = LensTable.load(write(tmp_path, {"format": "lens-table/1", "points": points}))
    assert table.raw_of(2.0) == pytest.approx(25)
    assert (table.unit, math.isnan(table.settle_s)) == ("focus_absolute", True)


@pytest.mark.parametrize("focus", [0.1, 8.3, math.nan, -1.0])
def test_focus_beyond_the_calibration_is_refused(tmp_path: Path, focus: float) -> None:
    table = LensTable.load(write(tmp_path, GOOD))
    with pytest.raises(ValueError, match=r"expected 0\.2 to 8\.2 dioptres, which the lens calibration covers"):
        table.raw_of(focus)


def points(*values: Any) -> dict[str, Any]:
    rows = [v if isinstance(v, dict) else {"raw": v[0], "focus_diopters": v[1]} for v in values]
    return {"format": "lens-table/1", "points": rows}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{[", "not readable as YAML"),
        ("", "expected `format: lens-table/1`, received 'NoneType'"),
        ({"format": "focal-stack/1"}, "expected `format: lens-table/1`, received 'focal-stack/1'"),
        ({"format": "lens-table/1"}, "points: expected a list"),
        ({**GOOD, "setle_s": 1}, "setle_s: unknown entry; did you mean 'settle_s'"),
        ({**GOOD, "settle_s": -1}, "settle_s: expected 0 to 60 s"),
        ({**GOOD, "settle_s": "soon"}, "settle_s: expected a number, received 'soon'"),
        (points(), "points: expected two or more, received 0"),
        (points((0, 1)), "points: expected two or more, received 1"),
        ({**GOOD, "points": [3]}, "points[0]: expected {raw: ..., focus_diopters: ...}, received 3"),
        (points((0, 1), {"raw": 3}), "points[1]: focus_diopters is missing"),
        (
            points((0, 1), {"raw": 3, "focus": 2}),
            "focus: unknown points[1]; known: focus_diopters, raw, sigma_diopters",
        ),
        (points((0, 1), (0, 2)), "raw: expected rising positions, each once"),
        (points((5, 1), (0, 2)), "raw: expected rising positions"),
        (points((0, 1), (5, 1)), "focus_diopters: expected rising or falling throughout"),
        (points((0, 1), (5, 3), (9, 2)), "a lens goes one way"),
        (points((0, -1), (5, 3)), "focus_diopters: expected 0 (infinity) or more"),
        (points((0, True), (5, 3)), "points[0].focus_diopters: expected a number, received True"),
        (points((0, math.inf), (5, 3)), "expected finite numbers"),
        (points((0, 1), {"raw": 5, "focus_diopters": 2, "sigma_diopters": 0}), "sigma_diopters: expected finite"),
    ],
)
def test_lens_tables_that_make_no_sense(tmp_path: Path, document: Any, words: str) -> None:
    file = write(tmp_path, document)
    with pytest.raises(ValueError, match=r"^lens calibration .*lens\.yaml: ") as error:
        LensTable.load(file)
    assert words in str(error.value)


def test_a_lens_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        LensTable.load(tmp_path / "none.yaml")


# -- camera_calibration's files ----------------------------------------------------------------------------------------

CAMERA = """\
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [612.3, 0.0, 320.5, 0.0, 613.4, 241.25, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 0.001, 0.002, 0.0]
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [600, 0, 320, 0, 0, 600, 240, 0, 0, 0, 1, 0]}
"""


def test_a_file_of_camera_calibration(tmp_path: Path) -> None:
    found = load_camera_file(write(tmp_path, CAMERA))
    assert found.size == (480, 640)
    assert found.intrinsics == (612.3, 613.4, 320.5, 241.25)
    assert found.distortion == (0.1, -0.2, 0.001, 0.002, 0.0)
    straight = CAMERA.replace("[0.1, -0.2, 0.001, 0.002, 0.0]", "[0, 0, 0, 0, 0]")
    assert load_camera_file(write(tmp_path, straight)).distortion == ()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("image_width: 640\n", "", "'image_width' is missing"),
        ("image_width: 640", "image_width: wide", "invalid literal"),
        ("image_width: 640", "image_width: 0", "camera_matrix: expected 9 finite numbers"),
        ("[612.3, 0.0", "[0.0, 0.0", "camera_matrix: expected 9 finite numbers with fx and fy over 0"),
        ("0.0, 0.0, 1.0]", "0.0, 1.0]", "camera_matrix: expected 9 finite numbers"),
        ("camera_matrix:", "matrix:", "'camera_matrix' is missing"),
        ("plumb_bob", "equidistant", "distortion_model: expected plumb_bob, received 'equidistant'"),
        (CAMERA, "- 1", "expected a mapping, received list"),
        (CAMERA, "{[", "not readable as YAML"),
    ],
)
def test_camera_files_that_make_no_sense(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in CAMERA
    with pytest.raises(ValueError, match=r"^camera calibration ") as error:
        load_camera_file(write(tmp_path, CAMERA.replace(old, new)))
    assert words in str(error.value)


def test_a_camera_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_camera_file(tmp_path / "none.yaml")

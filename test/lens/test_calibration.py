"""lens-calibration/1: focus and doubt of raw positions, the camera it stands for, and files that make no sense."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dfs_ros.lens.calibration import PARAMETERS, LensCalibration
from dfs_ros.lens.reading import load_lens
from dfs_ros.lens.table import LensTable
from dfs_ros.optics.thin_lens import coc_px_per_diopter

VALUES = {
    **{"fx_px": 600.0, "cx_px": 319.5, "cy_px": 239.5, "k1": 0.1, "k2": -0.1, "breathing1": 0.02, "breathing2": 0.001},
    **{"focus0": 3.0, "focus1": 2.5, "focus2": 0.3, "hysteresis": 0.04, "curvature": 0.3, "tilt_x": 0.1},
    **{"tilt_y": 0.0, "aperture_m": 0.002, "vignetting": 0.15, "softness_px2": 0.3, "softness_edge_px2": 0.1},
    "aberration": 0.2,
}


def calibration(**changes: float) -> LensCalibration:
    """A lens with doubt of 0.03 D in focus0 and -0.5 correlation with focus1, 0.02 D."""
    values = np.array([{**VALUES, **changes}[name] for name in PARAMETERS])
    covariance = np.diag(np.full(len(PARAMETERS), 1e-8))
    first = PARAMETERS.index("focus0")
    covariance[first : first + 2, first : first + 2] = [[9e-4, -3e-4], [-3e-4, 4e-4]]
    aperture = PARAMETERS.index("aperture_m")
    covariance[aperture, aperture] = (0.002 * 0.03) ** 2
    return LensCalibration((480, 640), 125.0, 125.0, values, covariance, ("tilt_y",), "focus_absolute", "desk")


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    lens = calibration()
    file = tmp_path / "lens.yaml"
    file.write_bytes(lens.yaml())
    again = load_lens(file)
    assert isinstance(again, LensCalibration)
    np.testing.assert_allclose(again.values, lens.values, rtol=1e-6)
    np.testing.assert_allclose(again.covariance, lens.covariance, rtol=1e-3, atol=1e-9)
    assert (again.undetermined, again.unit, again.note, again.size) == (
        ("tilt_y",),
        "focus_absolute",
        "desk",
        (480, 640),
    )
    assert math.isnan(again.settle_s) and math.isnan(again.latency_s)
    file.write_bytes(dataclasses.replace(lens, settle_s=0.2, latency_s=0.05).yaml())
    timed = LensCalibration.load(file)
    assert (timed.settle_s, timed.latency_s) == (0.2, 0.05)
    with pytest.raises(ValueError, match="settle_s: expected 0 to 60 s, received 300"):
        dataclasses.replace(lens, settle_s=300.0)
    table = tmp_path / "table.yaml"
    table.write_text("format: lens-table/1\npoints: [{raw: 0, focus_diopters: 1}, {raw: 9, focus_diopters: 2}]\n")
    assert isinstance(load_lens(table), LensTable)
    table.write_text("format: other/1\n")
    with pytest.raises(
        ValueError, match=r"expected `format: lens-calibration/1` or `lens-table/1`, received 'other/1'"
    ):
        load_lens(table)


def test_aberration_is_that_of_the_camera_and_unknown_in_older_files(tmp_path: Path) -> None:
    lens = calibration()
    assert lens.camera.aberration == 0.2
    assert calibration(aberration=-1.3).camera.aberration == -1.0
    document = lens.document()
    del document["parameters"]["aberration"], document["correlation"][-1]
    file = tmp_path / "lens.yaml"
    file.write_text(yaml.safe_dump(document))
    older = LensCalibration.load(file)
    assert older["aberration"] == 0.0 and older.sigma("aberration") == 0.25
    assert older.undetermined == ("tilt_y", "aberration") and older.camera.aberration == 0.0
    np.testing.assert_allclose(older.covariance[:-1, :-1], lens.covariance[:-1, :-1], rtol=1e-3, atol=1e-9)


def test_focus_is_the_mean_over_the_field_and_its_doubt_holds_the_spread() -> None:
    lens = calibration()
    x, y = np.meshgrid((np.arange(640) - 319.5) / 400, (np.arange(480) - 239.5) / 400)
    surface = 0.3 * (x**2 + y**2) + 0.1 * x
    upwards, sigma = lens.focus_of(125.0, 1)
    e = -0.02
    assert upwards == pytest.approx(3.0 + 2.5 * e + 0.3 * e * e + surface.mean(), abs=0.01)
    fit = 9e-4 + 2 * e * -3e-4 + e * e * 4e-4
    assert sigma == pytest.approx(math.sqrt(fit + surface.std() ** 2 + 0.01**2), rel=0.05)
    unknown, doubt = lens.focus_of(125.0)
    assert unknown == pytest.approx(3.0 + surface.mean(), abs=0.01)
    assert doubt == pytest.approx(math.hypot(sigma, 0.02 * 2.5), rel=0.05)
    assert lens.focus_of(125.0, -1)[0] - upwards == pytest.approx(0.04 * 2.5, rel=0.01)


def test_positions_beyond_the_calibration_and_beyond_infinity_have_no_focus() -> None:
    lens = calibration(focus0=1.5)  # -0.6 dioptres at raw 0
    assert all(math.isnan(value) for raw in (-1.0, 0.0, 251.0) for value in lens.focus_of(raw))
    assert lens.range_diopters[0] == 0.0
    for focus in np.linspace(*lens.range_diopters, 21):
        assert lens.focus_of(lens.raw_of(focus))[0] == pytest.approx(focus, abs=1e-9)
    with pytest.raises(
        ValueError, match=r"expected 0 to 4\.\d+ dioptres, which the lens calibration covers, received 9"
    ):
        lens.raw_of(9.0)


@pytest.mark.parametrize("breathing", [0.02, -0.01])
def test_the_camera_blurs_and_breathes_as_the_lens(breathing: float) -> None:
    lens = calibration(breathing1=breathing, breathing2=0.0)
    raws = np.linspace(0.0, 250.0, 5)
    scale = 1 + breathing * (raws - 125) / 125
    focus = [lens.focus_of(raw)[0] for raw in raws]
    blur = coc_px_per_diopter(np.array(focus), lens.camera)
    # The focus at the centre is without hysteresis and curvature of the scale; a lens whose image shrinks as it
    # focuses nearer has no thin lens: a percent of blur at the ends.
    np.testing.assert_allclose(
        blur / (0.002 * 600 * (1 - 0.15 / 3) * scale), 1.0, atol=0.004 if breathing > 0 else 0.015
    )
    assert lens.magnification_of(250.0) / lens.magnification_of(125.0) == pytest.approx(1 + breathing)
    assert lens.magnification_of(125.0) * lens.camera.fx_px == pytest.approx(600.0)
    assert lens.aperture_sigma == pytest.approx(0.03)
    assert lens.camera.softness_px2 == pytest.approx(0.3 + 0.1 / 3, rel=0.02)


def spoiled(change: Any) -> dict[str, Any]:
    document = copy.deepcopy(calibration().document())
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(format="x"), "expected `format: lens-calibration/1`, received 'x'"),
        (lambda d: d.update(lens=1), "lens: unknown entry"),
        (lambda d: d.pop("parameters"), "parameters: missing"),
        (lambda d: d["parameters"].pop("focus1"), "parameters: focus1: missing"),
        (lambda d: d["parameters"].update(focus3={}), "focus3: unknown parameter"),
        (lambda d: d["parameters"]["k1"].update(value="x"), "parameters: k1: expected a finite number, received 'x'"),
        (lambda d: d["parameters"]["k1"].update(sigma=-1), "sigma: expected 0 or more"),
        (lambda d: d["parameters"]["fx_px"].update(value=0), "fx_px: expected over 0, received 0"),
        (lambda d: d["parameters"]["focus2"].update(value=2), "expected a focus that rises or falls over all"),
        (lambda d: d["parameters"]["focus0"].update(value=-9), "expected a lens that focuses nearer than infinity"),
        (lambda d: d["raw"].update(half_range=0), "half_range: expected over 0, received 0"),
        (lambda d: d["image"].update(width=3), "image: expected 16 x 16 pixels or more, received 3 x 480"),
        (lambda d: d["correlation"].pop(), "correlation: expected the lower triangle of 19 rows"),
        (lambda d: d["correlation"][3].__setitem__(0, 2), "correlation: expected numbers of -1 to 1"),
        (lambda d: [row.__setitem__(0, 0.9) for row in d["correlation"][1:]], "positive semidefinite"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, change: Any, words: str) -> None:
    file = tmp_path / "lens.yaml"
    file.write_text(yaml.safe_dump(spoiled(change)))
    with pytest.raises(ValueError, match=r"^lens calibration .*lens\.yaml: ") as error:
        LensCalibration.load(file)
    assert words in str(error.value)

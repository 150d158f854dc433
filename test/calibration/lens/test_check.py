"""Check of a calibrated lens: depth of a board against its pose, and what stands in its way."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from lens_rig import BOARD, LENS, POSES, RAWS, swept, true_calibration, write_sweeps
from numpy.typing import NDArray

from benchmarks.lens_rendering import board_pose, plane_maps, rendered
from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.check import BoardView, board_plane, check_depth, view_of
from dfs_ros.calibration.lens.stack import beside_poses, calibrated_stack
from dfs_ros.cli.main import main
from dfs_ros.config import Config
from dfs_ros.depth.lens_doubt import CalibrationDoubt
from dfs_ros.lens.calibration import PARAMETERS, LensCalibration
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.types import FocalStack

FAST = ["--set", "processing.threads=1", "--network", "none", "--hypotheses", "24"]
FAR = tuple(range(10, 15))  # images of the sweep upwards of the pose at 0.55 m
COLUMNS = ("file", "raw_position")


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Calibration that knows the lens, and the CSV file of a sweep."""
    folder = tmp_path_factory.mktemp("far")
    lens = folder / "lens.yaml"
    lens.write_bytes(true_calibration().yaml())
    return lens, write_sweeps(folder / "board", FAR, COLUMNS)


def true_view(pose: int = 1) -> BoardView:
    return BoardView(POSES[pose].rotation, POSES[pose].translation_m, 5, 0.1)


def middle() -> tuple[Intrinsics, NDArray[np.float64]]:
    """Intrinsics of the third image of the sweep, and the true depth of its pixels."""
    shot, lens = swept()[0][FAR[2]], true_calibration()
    fx = lens.camera.fx_px * lens.magnification_of(shot.raw, shot.direction)
    u, v = np.meshgrid(np.arange(256.0), np.arange(192.0))
    return Intrinsics(fx, fx, LENS.cx_px, LENS.cy_px), plane_maps(LENS, POSES[1], shot, u, v)[2]


def test_a_board_is_checked_and_a_wrong_focus_scale_fails(
    far: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lens, csv = far
    command = ["calibrate", "check", str(csv.parent), "--csv", str(csv), *FAST]
    picture = tmp_path / "check.png"
    assert main([*command, "--calibration", str(lens), "--json", "--picture", str(picture)]) == 0
    assert cv2.imread(str(picture)).shape == (288, 1040, 3)
    result = json.loads(capsys.readouterr().out)
    plane, inside = board_plane(LENS.size, middle()[0], true_calibration(), true_view(), BOARD)
    assert result["distance_m"] == pytest.approx(np.median(plane[inside]), rel=0.006)
    assert abs(result["error_m"]) < 0.02 * result["distance_m"]
    assert abs(result["sigmas"]) < 1.0 and result["share"] > 0.95 and result["passed"]

    nearer = tmp_path / "nearer.yaml"
    nearer.write_bytes(true_calibration(focus0=3.2).yaml())
    assert main([*command, "--calibration", str(nearer)]) == 1
    printed = capsys.readouterr().out
    assert "FAIL: depth is off by" in printed and "over the tolerance of 5 %" in printed
    assert main([*command, "--calibration", str(nearer), "--tolerance", "0"]) == 2


def test_pose_and_plane_are_those_of_the_bench(far: tuple[Path, Path]) -> None:
    lens = true_calibration()
    stack, names = calibrated_stack(far[1].parent, far[1], lens, "lens.yaml", Config())
    view = view_of(stack, names, lens, BOARD)
    np.testing.assert_allclose(view.translation_m, POSES[1].translation_m, atol=0.004)
    np.testing.assert_allclose(view.rotation, POSES[1].rotation, atol=0.03)
    assert view.images >= 3 and view.error_px < 0.5
    pinhole, depth = middle()
    plane, inside = board_plane(LENS.size, pinhole, lens, true_view(), BOARD)
    np.testing.assert_allclose(plane[inside], depth[inside], rtol=1e-4)
    assert 0.1 < inside.mean() < 0.12


@pytest.mark.parametrize(
    ("factor", "sigma", "share", "words"),
    [
        (1.0, 0.02, 1.0, ""),
        (1.04, 0.03, 1.0, ""),
        (1.04, 0.01, 1.0, "depth is off by 4.0 of its standard deviations"),
        (1.2, 0.5, 1.0, r"off by 20.0 %, over the tolerance of 5 %; everywhere by the factor 1.200: is square_m"),
        (1.0, 0.02, 0.05, "only 5 % of the board's pixels have depth: sweep the focus across its distance of 0.5"),
    ],
)
def test_verdicts(factor: float, sigma: float, share: float, words: str) -> None:
    pinhole, truth = middle()
    depth, at = factor * truth, true_calibration()
    depth[np.random.default_rng(0).random(depth.shape) > share] = math.nan
    result = check_depth(depth, sigma * depth / factor, pinhole, at, true_view(), BOARD, 0.05)
    assert (words in result.fault) if words else not result.fault, result.fault
    assert result.report()["passed"] is not bool(words)
    if share == 1.0:
        assert result.error_m == pytest.approx((factor - 1) * result.distance_m, rel=1e-3, abs=1e-6)
        assert result.sigmas == pytest.approx((factor - 1) / sigma, rel=1e-3, abs=1e-3)
        assert result.slope == pytest.approx(factor, rel=1e-3)
        assert result.within_one == (1.0 if abs(factor - 1) < sigma else 0.0)


def seen(images: list[NDArray[np.uint8]], lens: LensCalibration, board: Board = BOARD) -> BoardView:
    shots = [swept()[0][i] for i in FAR[: len(images)]]
    stack = FocalStack(
        np.stack(images), np.array([lens.focus_of(s.raw)[0] for s in shots]), lens.camera,
        magnification=np.array([lens.magnification_of(s.raw, s.direction) for s in shots]),
    )  # fmt: skip
    return view_of(stack, [f"{i}.png" for i in range(len(images))], lens, board)


def test_what_stands_in_the_way_of_a_check_is_told() -> None:
    lens, (_, images) = true_calibration(), swept()
    sharp = [images[i] for i in FAR[:4]]
    assert seen(sharp, lens).images >= 2
    with pytest.raises(ValueError, match=r"the board was found in none of 4 images: check --board"):
        seen(sharp, lens, Board.parse("charuco,dictionary=DICT_6X6_50"))
    with pytest.raises(ValueError, match=r"a focal length of about \d+ px, the calibration says 400: is it of this"):
        seen([images[i] for i in range(4)], true_calibration(fx_px=400.0))
    with pytest.raises(ValueError, match=r"the board is elsewhere in 1 of \d images than in the others \(3\.png\)"):
        seen([*sharp[:3], np.roll(sharp[2], 9, 1)], lens)
    with pytest.raises(ValueError, match=r"corners lie \d+\.\d px from a flat board as --board says"):
        seen(sharp, lens, Board("charuco", 4, 5, 0.045, 0.018))
    shots = [swept()[0][i] for i in FAR[:3]]
    aside = board_pose(BOARD, 0.45, (10.0, 0.0), (0.27, 0.05))
    half = list(rendered(LENS, BOARD, [POSES[0], aside], shots))
    with pytest.raises(ValueError, match=r"only half seen: \d+ of 12 corners lie outside of the image; show it whole"):
        seen(half, lens)


def test_a_focal_length_is_no_difference_to_the_pose() -> None:
    lens = true_calibration()
    images = np.zeros((3, *LENS.size), np.uint8)
    sigma = np.array([lens.mean_focus_of(raw, 1)[1] for raw in RAWS[1:4]])
    focus = np.array([lens.mean_focus_of(raw, 1)[0] for raw in RAWS[1:4]])
    stack = FocalStack(images, focus, lens.camera, focus_sigma_diopters=sigma)
    # Focal length over by 5 %: so are all distances, and focus and focal surface, in dioptres, are under by it.
    direction = np.zeros(len(PARAMETERS))
    for name, sign in (
        ("fx_px", 1),
        *((n, -1) for n in ("focus0", "focus1", "focus2", "curvature", "tilt_x", "tilt_y")),
    ):
        direction[PARAMETERS.index(name)] = sign * 0.05 * lens[name]
    common = replace(lens, covariance=np.outer(direction, direction))
    at = np.full(LENS.size, 2.5, np.float32)
    told = replace(stack, camera=common.camera, focus_sigma_diopters=np.hypot(0.01, 0.05 * focus))
    alone, beside = (
        CalibrationDoubt(s, s.camera.field, s.focus_sigma_diopters, True) for s in (told, beside_poses(told, common))
    )
    assert np.median(alone.sigma(at)) == pytest.approx(0.05 * 2.5, rel=0.1)
    assert beside.sigma(at).max() < 0.004
    assert beside.rest_diopters < 0.015
    # What is none of the focal length remains.
    own = beside_poses(stack, true_calibration())
    np.testing.assert_allclose(own.focus_sigma_diopters, sigma, rtol=0.06)


def test_stacks_of_another_lens_are_refused(far: tuple[Path, Path], tmp_path: Path) -> None:
    lens_file, csv = far
    lens = LensCalibration.load(lens_file)
    described = tmp_path / "stack"
    arguments = ["--csv", str(csv), "--calibration", str(lens_file), "--output", str(described)]
    assert main(["import", str(csv.parent), *arguments]) == 0
    stack, names = calibrated_stack(described, None, lens, "lens.yaml", Config())
    assert len(names) == len(stack) == 5
    direct, _ = calibrated_stack(csv.parent, csv, lens, "lens.yaml", Config())
    np.testing.assert_allclose(stack.focus_diopters, direct.focus_diopters)
    np.testing.assert_allclose(stack.magnification, direct.magnification)
    assert stack.camera.aperture_sigma == pytest.approx(lens.aperture_sigma, rel=1e-4)
    with pytest.raises(ValueError, match=r"camera\.f_number: expected .* of lens\.yaml, received .*: describe the"):
        calibrated_stack(described, None, true_calibration(aperture_m=0.005), "lens.yaml", Config())
    other = LensCalibration((480, 640), 50.0, 50.0, lens.values, lens.covariance)
    with pytest.raises(ValueError, match=r"expected 640 x 480 pixels, as lens\.yaml is of, received 256 x 192: is the"):
        calibrated_stack(csv.parent, csv, other, "lens.yaml", Config())

"""Lens calibration on a bench: the lens that rendered the images is found, with doubt that holds."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_camera import BoardCamera
from lens_rig import BOARD, LENS, POSES, RAWS, swept, write_sweeps
from v4l2_kernel import plugged_in

from benchmarks.lens_bench import focus_error, true_values, truth_of
from benchmarks.lens_rendering import board_pose, rendered
from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.fit import fit_lens
from dfs_ros.calibration.lens.folder import calibration_of
from dfs_ros.calibration.lens.model import (
    NAMES,
    PROCESSING,
    Observations,
    RawScale,
    board_at,
    depths,
    jacobian,
    predict,
)
from dfs_ros.calibration.lens.patches import Patches, own_step
from dfs_ros.calibration.lens.report import focus_residuals
from dfs_ros.cli.main import main
from dfs_ros.io.stack_folder import load_stack
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.optics.srgb import linear_table
from dfs_ros.optics.thin_lens import coc_px_per_diopter

TRUTH = truth_of(LENS, RAWS)
TRUE_POSES = np.array([np.r_[pose.rotation, pose.translation_m] for pose in POSES])
RAW = RawScale(50.0, 50.0)


def observations() -> Observations:
    """Every corner in every image of the bench."""
    shots, _ = swept()
    corners = len(BOARD.corners_m)
    return Observations(
        np.repeat(np.arange(len(shots)), corners),
        np.repeat([shot.pose for shot in shots], corners).astype(np.intp),
        np.tile(BOARD.corners_m, (len(shots), 1)),
        RAW.normalised(np.repeat([shot.raw for shot in shots], corners)),
        np.repeat([float(shot.direction) for shot in shots], corners),
    )


def test_calibrate_a_webcam_and_import_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = BoardCamera(tmp_path / "video0")
    plugged_in(monkeypatch, camera)
    monkeypatch.setattr("dfs_ros.cli.calibrate_lens._tell", camera.tell)
    output = tmp_path / "lens.yaml"
    arguments = ["--output", str(output), "--board", BOARD.description, "--poses", "2", "--positions", "5"]
    arguments += ["--rate", "100", "--size", "256x192", "--set", "v4l2.pixel_format=GREY"]
    arguments += ["--set", "v4l2.settle_s=0.06", "--report", str(tmp_path / "report")]
    assert main(["calibrate", "lens", "--source", "v4l2", str(camera.path), *arguments]) == 0
    assert [text.partition(":")[0] for text in camera.told[1:3]] == ["pose 1", "pose 2"]
    assert "board at about 0.29 m, tilted by 26 degrees; next: move the board away" in camera.told[1]
    printed = capsys.readouterr().out
    assert "14 images, 2 poses of the board, corners from 0.26 to 0.59 m" in printed
    assert "s after a command" in printed
    assert not re.search("not determined: (focus|aperture|fx|hysteresis)", printed)

    page = (tmp_path / "report" / "report.html").read_text()
    picture = (tmp_path / "report" / "report.png").read_bytes()
    assert picture[:4] == b"\x89PNG" and base64.b64encode(picture).decode() in page
    assert "14 images of 256 x 192 pixels, 2 poses of the board at 0.26 to 0.59 m" in page and "http" not in page

    lens = LensCalibration.load(output)
    assert lens.unit == "focus_absolute" and lens.latency_s > 0 and lens.settle_s > 0
    assert f"settling time: {lens.settle_s:g} s, latency {lens.latency_s:g} s" in page
    assert int.from_bytes(picture[16:20], "big") == 2200  # with the figure of the step response
    true = {name: value for name, value in zip(NAMES, TRUTH, strict=True)}
    # Of two poses at 256 x 192 pixels: what the fit states, and no more than these.
    for name, value, within in (
        ("fx_px", math.exp(true["log_fx"]), 0.5),
        ("aperture_m", LENS.aperture_m, 2e-4),
        ("focus0", true["focus0"], 0.1),
        ("focus1", true["focus1"], 0.15),
        ("hysteresis", true["hysteresis"], 0.015),
        ("breathing1", true["breathing1"], 3e-4),
        ("aberration", true["aberration"], 0.12),
    ):
        assert lens[name] == pytest.approx(value, abs=min(within, 4.0 * lens.sigma(name))), name
        assert lens.sigma(name) < within

    # The tutorial's next steps: a stack from the same camera, its depth against the pose of the board at 0.55 m.
    taken = tmp_path / "taken"
    focus = ",".join(f"{lens.focus_of(raw)[0]:.4f}" for raw in (0.1, *RAWS[1:-1], 99.9))
    arguments = ["--calibration", str(output), "--rate", "100", "--size", "256x192", "--set", "v4l2.pixel_format=GREY"]
    arguments += ["--set", f"v4l2.focus_diopters={focus}", "--set", "v4l2.settle_s=0.06"]
    assert main(["capture", "--output", str(taken), "--source", "v4l2", str(camera.path), *arguments]) == 0
    capsys.readouterr()
    fast = ["--set", "processing.threads=1", "--network", "none", "--hypotheses", "24", "--json"]
    assert main(["calibrate", "check", str(taken), "--calibration", str(output), *fast]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["distance_m"] == pytest.approx(0.55, rel=0.02) and checked["share"] > 0.9
    assert abs(checked["error_m"]) < 0.03 * 0.55 and abs(checked["sigmas"]) < 2.0

    sweep = write_sweeps(tmp_path / "near", keep=range(10))
    rows = sweep.read_text().splitlines()
    raws = [row.split(",")[:2] for row in rows[1:]]
    sweep.write_text("\n".join(["file,raw_position", *(",".join(row) for row in raws)]))
    stack_folder = tmp_path / "stack"
    arguments = ["--csv", str(sweep), "--calibration", str(output), "--output", str(stack_folder)]
    assert main(["import", str(sweep.parent), *arguments]) == 0
    stack = load_stack(stack_folder)
    shots = [shot for shot in swept()[0] if shot.pose == 0]
    x, y = (
        (np.arange(n) - c) / (math.hypot(*LENS.size) / 2) for n, c in zip(LENS.size[::-1], (129.5, 93), strict=True)
    )
    surface = 0.3 * ((x**2).mean() + (y**2).mean()) + LENS.tilt[0] * x.mean() + LENS.tilt[1] * y.mean()
    focus = np.array([LENS.focus_diopters(shot.raw, shot.direction) for shot in shots]) + surface
    error = stack.focus_diopters[1:] - focus[1:]  # nobody knows from where the lens came to the first
    assert np.abs(error).max() < 0.1
    assert np.sqrt(np.mean((error / stack.focus_sigma_diopters[1:]) ** 2)) < 1.5
    np.testing.assert_allclose(
        stack.magnification / stack.magnification[2],
        [LENS.scale(s.raw, s.direction) / LENS.scale(shots[2].raw, 1) for s in shots],
        atol=4e-4,
    )
    blur = coc_px_per_diopter(stack.focus_diopters, stack.camera)
    scale = np.array([LENS.scale(shot.raw, shot.direction) for shot in shots])
    np.testing.assert_allclose(blur, LENS.aperture_m * LENS.fx_px * scale * (1 - 0.1 / 3), rtol=0.06)


def test_one_pose_leaves_the_scale_open_and_says_so() -> None:
    shots, images = (each[: len(RAWS)] for each in swept())
    raws, directions = [shot.raw for shot in shots], [shot.direction for shot in shots]
    fit = fit_lens(images, list(map(str, raws)), raws, directions, [None] * len(shots), BOARD)
    assert len(fit.poses) == 1 and fit.images == 5
    assert {"log_aperture", "focus1", "hysteresis"} <= set(fit.undetermined)
    calibration = calibration_of(fit, BOARD, "dac")
    error, sigma = focus_error(calibration, true_values(LENS, RAWS))
    assert np.sqrt(np.mean((error / sigma) ** 2)) < 2.0
    assert sigma.max() > 0.3
    raw, median, spread = focus_residuals(fit)
    assert set(raw) <= set(RAWS) and len(raw) >= 3
    assert np.abs(median).max() < 0.1 and 0.0 < spread.max() < 0.3  # dioptres
    assert "aperture_m" in calibration.undetermined and "fx_px" not in NAMES


def test_tags_of_a_printer_and_a_camera_that_change_them() -> None:
    """A grid of AprilTags whose ink spreads, before a camera that sharpens and bends the tone curve."""
    lens = replace(LENS, sharpening=0.5, tone=0.25, ink_mm=0.2)
    board = Board.parse("apriltag,rows=3,columns=4,square_m=0.052,marker_m=0.04")
    poses = [board_pose(board, *place, (0.0, 0.0)) for place in ((0.31, (26.0, -10.0)), (0.55, (-20.0, 18.0)))]
    shots = [shot for shot in swept()[0] if shot.direction >= 0]
    raws, directions = [shot.raw for shot in shots], [shot.direction for shot in shots]
    images = list(rendered(lens, board, poses, shots, 0))
    fit = fit_lens(images, list(map(str, raws)), raws, directions, [shot.pose for shot in shots], board)
    truth, sigma = truth_of(lens, RAWS), np.sqrt(np.diag(fit.covariance))
    for name, within in (("sharpening", 0.06), ("tone", 0.03), ("ink_mm", 0.02), ("focus1", 0.15), ("log_fx", 0.005)):
        i = NAMES.index(name)
        assert fit.lens[i] == pytest.approx(truth[i], abs=min(within, 4.0 * sigma[i])), name
    assert [row[0] for row in fit.processing] == list(PROCESSING)
    calibration = calibration_of(fit, board, "dac")
    # The softness that images show is that of the lens less what the mask takes back.
    assert calibration["softness_px2"] == pytest.approx(LENS.softness_px2 - 0.5, abs=0.06)
    assert set(PROCESSING).isdisjoint(calibration.document()["parameters"])


def test_images_that_wobble_say_less_of_places() -> None:
    """A shift of each image by a third of a pixel, as of a lens that moves, widens sigma, and leaves the focus."""
    everything, images = swept()
    chosen = [i for i, shot in enumerate(everything) if shot.direction >= 0]
    raws, directions, poses = ([getattr(everything[i], key) for i in chosen] for key in ("raw", "direction", "pose"))
    rng = np.random.default_rng(4)
    shaken = []
    for i in chosen:
        shift = np.hstack([np.eye(2), 0.3 * rng.standard_normal((2, 1))])
        size = images[i].shape[::-1]
        shaken.append(
            np.asarray(cv2.warpAffine(images[i], shift, size, None, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE), np.uint8)
        )
    fit = fit_lens(shaken, list(map(str, raws)), raws, directions, poses, BOARD)
    sigma = np.sqrt(np.diag(fit.covariance))
    assert 0.005 < sigma[0] < 0.1  # of log fx; 0.0005 of still images
    assert abs(fit.lens[0] - TRUTH[0]) < 2.5 * sigma[0]
    error, stated = focus_error(calibration_of(fit, BOARD, "dac"), true_values(LENS, RAWS))
    assert np.sqrt(np.mean((error / stated) ** 2)) < 2.5
    # Dioptres: over the range, and at its ends, where little is known and said to be.
    assert np.sqrt(np.mean(error**2)) < 0.2
    assert np.abs(error).max() < stated.max() < 0.45


def test_wrong_input_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shots, images = swept()
    names = [f"{i}.png" for i in range(len(shots))]
    raws, directions = [shot.raw for shot in shots], [shot.direction for shot in shots]
    with pytest.raises(ValueError, match="images at 5 or more lens positions, received 4"):
        fit_lens(images[:4], names[:4], raws[:4], directions[:4], [None] * 4, BOARD)
    with pytest.raises(ValueError, match=r"found in none of 5 images: check --board \(rows"):
        other = Board.parse("charuco,rows=4,columns=5,dictionary=DICT_6X6_50")
        fit_lens(images[:5], names[:5], raws[:5], directions[:5], [None] * 5, other)
    smaller = [*images[:4], images[4][:100]]
    with pytest.raises(ValueError, match=r"4\.png: expected 256 x 192 pixels as 0\.png, received 256 x 100"):
        fit_lens(smaller, names[:5], raws[:5], directions[:5], [None] * 5, BOARD)
    moved = [*range(0, 5), *range(10, 15)]  # both poses, told to be one
    with pytest.raises(ValueError, match="the board is not where the others of its sweep have it"):
        fit_lens(*([column[i] for i in moved] for column in (images, names, raws, directions)), [0] * 10, BOARD)
    with pytest.raises(ValueError, match="the focus does not follow the lens position"):
        fit_lens([images[3]] * 5, names[:5], raws[:5], directions[:5], [0] * 5, BOARD)
    small = Board("charuco", 4, 5, 0.045, 0.028)
    with pytest.raises(ValueError, match=r"markers measure about 0\.7\d of a square in the images, 0\.62 by --board"):
        fit_lens(images[2:5] * 2, names[:6], raws[:5] + raws[:1], directions[:6], [None] * 6, small)
    soft = [cv2.GaussianBlur(image, (0, 0), 6.0) for image in images[:5]]
    with pytest.raises(ValueError, match=r"found in none of 5 images: .* two markers at least must be sharp"):
        fit_lens(soft, names[:5], raws[:5], directions[:5], [None] * 5, BOARD)
    half = [np.pad(image[:, :-140], ((0, 0), (140, 0)), constant_values=128) for image in images[:5]]
    with pytest.raises(ValueError, match=r"only half seen: at most \d+ % of its corners lie within the image; show it"):
        fit_lens(half, names[:5], raws[:5], directions[:5], [0] * 5, BOARD)
    csv = write_sweeps(tmp_path / "sweeps", keep=range(2))
    good = csv.read_text()
    for text, words in (
        ("file,raw\n", "raw: unknown column"),
        ("file\n000.png\n", "expected the columns file and raw_position"),
        ("file,raw_position\n", "expected a line for each image"),
        ("file,raw_position\n000.png,x\n", "line 2: raw_position: expected a finite number"),
        ("file,raw_position\nnone.png,1\n", "none.png: no such file"),
        ("file,raw_position\n000.png,1\n000.png,2\n", "expected each image once"),
        ("file,raw_position,sweep\n000.png,1,a\n", "sweep: expected a whole number, received 'a'"),
        ("file,raw_position,sweep\n000.png,1,1\n001.png,2,\n", "a number in every line, or in none"),
    ):
        csv.write_text(text)
        assert main(["calibrate", "lens", str(csv.parent), "--csv", str(csv), "--output", str(tmp_path / "l")]) == 2
        assert words in capsys.readouterr().err
    csv.write_text(good)
    assert not (tmp_path / "l").exists()


def test_the_model_agrees_with_the_bench_and_with_its_inverse() -> None:
    seen = observations()
    place = predict(TRUTH, TRUE_POSES, seen, LENS.size)
    for i in (0, 17, 100, 230):
        x, y, z = board_at(TRUTH, TRUE_POSES[seen.pose[i]], seen.position[i], seen.direction[i], *place[i, :2, None])
        assert (x[0], y[0]) == pytest.approx(tuple(seen.board_m[i]), abs=1e-6)
        assert z[0] == pytest.approx(depths(TRUE_POSES, seen)[i])
    camera = np.array([[235.0, 0, 129.5], [0, 235.0, 93.0], [0, 0, 1]])
    middle = (seen.position == 0) & (seen.pose == 1) & (seen.direction == 1)
    scale = LENS.scale(50.0, 1)
    theirs, _ = cv2.projectPoints(
        np.c_[seen.board_m[middle], np.zeros(middle.sum())], TRUE_POSES[1, :3], TRUE_POSES[1, 3:],
        camera * np.array([[scale, 1, 1], [1, scale, 1], [1, 1, 1]]), np.array([-0.05, 0.02, 0, 0]),
    )  # fmt: skip
    np.testing.assert_allclose(place[middle, :2], theirs.reshape(-1, 2), atol=1e-6)
    by_lens, _ = jacobian(TRUTH, TRUE_POSES, seen, LENS.size)
    step = np.zeros(len(NAMES))
    step[NAMES.index("focus0")] = 0.001
    change = predict(TRUTH + step, TRUE_POSES, seen, LENS.size) - predict(TRUTH - step, TRUE_POSES, seen, LENS.size)
    np.testing.assert_allclose(change / 0.002, by_lens[..., NAMES.index("focus0")], atol=1e-4)


def test_windows_find_their_blur_and_derivatives_are_right() -> None:
    _, images = swept()
    linear = [linear_table("srgb").astype(np.float32)[image] for image in images]
    seen = observations()
    patches = Patches(linear, BOARD, seen, TRUTH, TRUE_POSES, late=True)
    place = predict(TRUTH, TRUE_POSES, patches.seen, patches.size)
    local = patches.local(place)
    assert local.valid.all() and len(place) > 150
    step = own_step(local.information, local.score)
    blurred = (place[:, 2] > 1.0) & (place[:, 2] < 16.0)
    assert np.median(np.abs(step[blurred, :2])) < 0.01  # pixels
    blur = np.sqrt(place[:, 2])
    assert np.median(np.abs(step[:, 2] / (2 * blur))[blurred]) < 0.05
    # Misfit rises as its derivatives say; each about a place beside the truth.
    beside = place + np.array([0.1, -0.1, 0.8, 0.05, 0.1, 0.2, 0.1, 0.1])
    score = patches.local(beside).score * patches.local(beside).noise[:, None] ** 2
    for column, change in enumerate((0.005, 0.005, 0.02, 0.002, 0.01, 0.01, 0.01, 0.01)):
        ends = []
        for sign in (1, -1):
            moved = beside.copy()
            moved[:, column] += sign * change
            at = patches.local(moved)
            ends.append(at.cost * at.noise**2)
        slope = -(ends[0] - ends[1]) / (4 * change)
        assert np.corrcoef(slope, score[:, column])[0, 1] > 0.99
        assert np.median(slope / score[:, column]) == pytest.approx(1.0, abs=0.02)

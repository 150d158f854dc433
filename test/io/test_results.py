"""The files of an estimate: what they hold, and that they are all there or none."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cli_rig import FILES
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dfs_ros.io.results import depth_millimetres, write_ply, write_result
from dfs_ros.io.strict_json import plain
from dfs_ros.optics.pinhole import intrinsics, points_from_depth
from dfs_ros.system.atomic import prepare_output
from dfs_ros.types import Camera, DepthResult


def example_result(height: int = 40, width: int = 60, **report: Any) -> DepthResult:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.4, 5, (height, width)).astype(np.float32)
    depth[:10, :20] = np.nan
    return DepthResult(
        depth_m=depth,
        sigma_m=np.where(np.isnan(depth), np.nan, depth * 0.02).astype(np.float32),
        confidence=np.isfinite(depth).astype(np.float32),
        all_in_focus=rng.integers(0, 256, (height, width, 3), np.uint8),
        camera=Camera(0.004, 2.0, 4e-6),
        stamp_ns=1_700_000_000_123_456_789,
        report=report,
    )


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def read_ply(path: Path) -> tuple[list[str], NDArray[Any]]:
    header, _, data = path.read_bytes().partition(b"end_header\n")
    layout = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("r", "u1"), ("g", "u1"), ("b", "u1")])
    return header.decode().splitlines(), np.frombuffer(data, layout)


def test_the_files_hold_the_result(tmp_path: Path) -> None:
    result = example_result(seconds={"total": 1.5})
    folder = write_result(result, tmp_path / "a" / "out")
    assert names(folder) == FILES
    depth, sigma = np.load(folder / "depth.npy"), np.load(folder / "sigma.npy")
    assert depth.dtype == sigma.dtype == np.float32
    np.testing.assert_array_equal(depth, result.depth_m)
    np.testing.assert_array_equal(sigma, result.sigma_m)
    sharp = cv2.imread(str(folder / "all_in_focus.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(sharp[..., ::-1], result.all_in_focus)
    millimetres = cv2.imread(str(folder / "depth_mm.png"), cv2.IMREAD_UNCHANGED)
    assert millimetres.dtype == np.uint16
    known = np.isfinite(depth)
    assert (millimetres[~known] == 0).all()
    np.testing.assert_allclose(millimetres[known], depth[known] * 1000, atol=0.5001)
    assert cv2.imread(str(folder / "depth.png")).shape[0] > 320


def test_doubt_about_the_lens_hides_no_relief_in_the_picture(tmp_path: Path) -> None:
    result = example_result()
    doubtful = dataclasses.replace(result, sigma_m=result.depth_m, local_sigma_m=result.sigma_m)
    a, b = write_result(result, tmp_path / "sure"), write_result(doubtful, tmp_path / "doubtful")
    assert (a / "depth.png").read_bytes() == (b / "depth.png").read_bytes()
    assert (a / "sigma.png").read_bytes() != (b / "sigma.png").read_bytes()


def test_the_point_cloud_is_the_depth_seen_through_the_camera(tmp_path: Path) -> None:
    result = example_result()
    header, cloud = read_ply(write_result(result, tmp_path / "out") / "points.ply")
    known = np.isfinite(result.depth_m)
    assert header[:2] == ["ply", "format binary_little_endian 1.0"]
    assert f"element vertex {known.sum()}" in header
    points = points_from_depth(result.depth_m, intrinsics(result.camera, (40, 60)))[known]
    np.testing.assert_array_equal(np.stack([cloud[a] for a in "xyz"], 1), points)
    np.testing.assert_array_equal(np.stack([cloud[a] for a in "rgb"], 1), result.all_in_focus[known])


def test_the_report_is_strict_json_with_what_was_done(tmp_path: Path) -> None:
    result = example_result(
        seconds={"align": np.float64(0.25)},
        residual=np.array([1.0, np.nan]),
        scale=math.inf,
        file=tmp_path,
        frames=(np.int64(1), 2),
        used=np.bool_(True),
    )
    text = (write_result(result, tmp_path / "out") / "report.json").read_text()
    report = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["coverage"] == pytest.approx(1 - 200 / 2400)
    assert report["depth_m"]["median"] == pytest.approx(np.nanmedian(result.depth_m))
    assert report["size_px"] == {"width": 60, "height": 40}
    assert report["stamp_ns"] == 1_700_000_000_123_456_789
    assert report["camera"]["fx_px"] is None and report["intrinsics_px"]["fx"] == pytest.approx(1000)
    assert set(report["versions"]) == {"dfs_ros", "python", "numpy", "opencv"}
    assert report["seconds"] == {"align": 0.25}
    assert report["residual"] == [1.0, None] and report["scale"] is None and report["file"] == str(tmp_path)
    assert report["frames"] == [1, 2] and report["used"] is True


def test_a_result_without_any_depth_is_written_too(tmp_path: Path) -> None:
    result = example_result()
    nothing = np.full_like(result.depth_m, np.nan)
    empty = DepthResult(nothing, nothing, nothing, result.all_in_focus, result.camera)
    folder = write_result(empty, tmp_path / "out")
    assert read_ply(folder / "points.ply")[1].size == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["coverage"] == 0 and report["depth_m"]["median"] is None


def test_dense_means_everywhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected depth at every pixel \(dense\), received 200 without"):
        write_result(example_result(), tmp_path / "out", dense=True)
    assert not (tmp_path / "out").exists()


def test_a_result_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    result = example_result()
    wrong = DepthResult(result.depth_m, result.sigma_m, result.confidence, result.all_in_focus[:-1], result.camera)
    with pytest.raises(ValueError, match=r"expected depth and sigma of one shape .* received \(40, 60\)"):
        write_result(wrong, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.one_of(st.floats(width=32), st.floats(0, 100, width=32)), min_size=1, max_size=30))
def test_millimetres(values: list[float]) -> None:
    depth = np.array(values, np.float32)[None]
    millimetres, beyond = depth_millimetres(depth)
    for value, got in zip(depth[0].astype(float), millimetres[0], strict=True):
        fits = math.isfinite(value) and 0.0006 < value < 65.535
        if fits:
            assert abs(int(got) - value * 1000) <= 0.5001
        elif not (math.isfinite(value) and 0 < value < 65.536):
            assert got == 0
    assert beyond == sum(math.isfinite(v) and v > 0 and g == 0 for v, g in zip(depth[0], millimetres[0], strict=True))


def test_depth_beyond_uint16_is_no_depth_and_is_counted(tmp_path: Path) -> None:
    millimetres, beyond = depth_millimetres(
        np.array([[65.535, 65.536, 1000.0, 0.0001, np.nan, np.inf, -1.0]], np.float32)
    )
    assert millimetres.tolist() == [[65535, 0, 0, 0, 0, 0, 0]]
    assert beyond == 3


def test_ply_refuses_colours_of_another_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"points and colours of one shape"):
        write_ply(tmp_path / "a.ply", np.zeros((2, 2, 3), np.float32), np.zeros((4, 3), np.uint8))


def test_plain_values() -> None:
    assert plain(
        {
            1: {
                2.5,
            },
            "c": Camera(0.004, 2.0, 4e-6),
        }
    ) == {
        "1": [2.5],
        "c": {
            **{"focal_length_m": 0.004, "f_number": 2.0, "pixel_pitch_m": 4e-6},
            **dict.fromkeys(("fx_px", "fy_px", "cx_px", "cy_px", "aperture_sigma", "softness_px2", "field")),
            "reference_focus_diopters": 0.0,
            "aberration": 0.0,
        },
    }


def test_an_earlier_result_is_replaced_and_other_files_are_left(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_result(example_result(run=1), folder)
    (folder / "notes.txt").write_text("mine")
    write_result(example_result(20, 30, run=2), folder)
    assert names(folder) == sorted([*FILES, "notes.txt"])
    assert json.loads((folder / "report.json").read_text())["run"] == 2
    assert np.load(folder / "depth.npy").shape == (20, 30)


# ---- output folders that cannot be written ---------------------------------------------------------------------------


def test_prepare_output_makes_nothing(tmp_path: Path) -> None:
    assert prepare_output(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []
    assert prepare_output(tmp_path) == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_prepare_output_refuses_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    targets = [
        tmp_path / "file",
        tmp_path / "file" / "x",
        tmp_path / "dangling",
        Path("/proc/dfs_ros"),
        Path("/proc/a/b"),
    ]
    for target in targets:
        with pytest.raises(ValueError, match=r"output .*: cannot be written \(.+\); choose a folder that can"):
            prepare_output(target)
        with pytest.raises(ValueError, match=r"output .*: cannot be written"):
            write_result(example_result(), target)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; the other refusals are tested above")
def test_prepare_output_refuses_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        for target in (tmp_path, tmp_path / "out"):
            with pytest.raises(ValueError, match=r"output .*: cannot be written \(Permission denied\)"):
                prepare_output(target)
    finally:
        tmp_path.chmod(0o700)


# ---- interrupted -----------------------------------------------------------------------------------------------------

WRITE_FOR_EVER = """
import sys
import numpy as np
from dfs_ros.io.results import write_result
from dfs_ros.types import Camera, DepthResult

rng = np.random.default_rng(0)
depth = rng.uniform(0.4, 5, (600, 800)).astype(np.float32)
result = DepthResult(
    depth, depth, depth, rng.integers(0, 256, (600, 800, 3), np.uint8), Camera(0.004, 2.0, 4e-6)
)
print("ready", flush=True)
while True:
    write_result(result, sys.argv[1] + "/out" + (sys.argv[2] and str(rng.integers(1 << 60))))
"""


@pytest.mark.parametrize("each_new", [True, False], ids=["new folders", "one folder again and again"])
@pytest.mark.parametrize("after_s", [0.05, 0.4])
def test_ctrl_c_leaves_no_half_written_file(tmp_path: Path, each_new: bool, after_s: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path), "new" if each_new else ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob(".*.part")):  # in the middle of writing
            assert time.monotonic() < deadline, "nothing was written"
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=240)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert list(tmp_path.rglob(".*")) == []
    for folder in tmp_path.iterdir():
        assert names(folder) == FILES
        for file in folder.iterdir():
            assert_whole(file)


def assert_whole(file: Path) -> None:
    if file.suffix == ".npy":
        assert np.load(file).shape == (600, 800)
    elif file.suffix == ".ply":
        assert len(read_ply(file)[1]) == 600 * 800
    elif file.suffix == ".png":
        assert file.read_bytes().endswith(b"IEND\xaeB\x60\x82")
    else:
        assert json.loads(file.read_text())["size_px"] == {"width": 800, "height": 600}


def test_the_check_of_whole_files_sees_a_truncated_one(tmp_path: Path) -> None:
    result = example_result(600, 800)
    folder = write_result(result, tmp_path / "out")
    for name in ("depth.npy", "depth_mm.png", "report.json"):
        file = folder / name
        file.write_bytes(file.read_bytes()[:-3])
        with pytest.raises((AssertionError, ValueError)):
            assert_whole(file)


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        + WRITE_FOR_EVER.replace("600, 800", "300, 240")
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), ""], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1 and "OSError" in done.stderr and "too large" in done.stderr.lower()
    assert list(tmp_path.iterdir()) == []

"""The command `dfs`: its files, its help, and Ctrl-C, which leaves everything as it was."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_rig import DEPTH_M, DFS, FAST, FILES, Capture, contents, estimate, make_stack, names, stack
from PIL import Image

import dfs_ros
from dfs_ros.cli import simulate
from dfs_ros.cli.main import COMMANDS, main
from dfs_ros.config import Config
from dfs_ros.io.stack_folder import save_stack
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera

__all__ = ["stack"]  # fixtures

# ---------------------------------------------------------------------------------------------------- what it does


def test_estimate_says_how_far_the_result_is_from_the_reference(tmp_path: Path, capsys: Capture) -> None:
    scene = plane_scene(DEPTH_M, 64, 48, seed=3)
    stack = render_stack(scene.rgb, scene.depth_m, Camera(0.008, 1.4, 6e-6), [2.2, 1.3, 0.5], rng=1)
    folder = save_stack(stack, tmp_path / "stack", reference_depth_m=np.full((9, 16), 2 * DEPTH_M, np.float32))
    assert estimate(folder, tmp_path / "out", "--dense", *FAST) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    depth = np.load(tmp_path / "out" / "depth.npy")
    expected = np.median(np.abs(depth[6:42] - 2 * DEPTH_M) / (2 * DEPTH_M))  # 16:9 of 64 x 48 is 36 rows
    assert report["reference"]["median_abs_rel"] == pytest.approx(expected, rel=1e-5) == pytest.approx(0.5, abs=0.03)
    assert report["reference"]["coverage"] == 1.0
    printed = capsys.readouterr().out
    assert re.search(r"; median difference to the reference \d\d\.\d %, 100 % of it with depth\n$", printed)


def test_the_sample_needs_no_stack(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "SAMPLE", ("--scene", "plane", "--size", "64x48", "--depth", "0.8"))  # in a second
    assert main(["estimate", "--sample", "--output", str(tmp_path / "out"), *FAST]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["reference"]["median_abs_rel"] < 0.05 and report["reference"]["coverage"] > 0.5
    assert "64 x 48 depth from 5 images" in capsys.readouterr().out


def test_estimate_writes_the_files_it_promises(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "new" / "out"
    before = contents(stack)
    assert estimate(stack, output, *FAST) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(
        rf"{output}: 64 x 48 depth from 3 images in \d+\.\d\d s, \d+ % of pixels with depth, 0\.\d+ to \d\S* m\n",
        printed.out,
    )
    assert printed.err == ""
    assert names(output) == FILES
    assert contents(stack) == before

    depth, sigma = np.load(output / "depth.npy"), np.load(output / "sigma.npy")
    assert depth.dtype == sigma.dtype == np.float32 and depth.shape == sigma.shape == (48, 64)
    known = np.isfinite(depth)
    np.testing.assert_array_equal(known, np.isfinite(sigma))
    assert known.mean() > 0.8 and np.nanmedian(depth) == pytest.approx(DEPTH_M, rel=0.03)

    millimetres = cv2.imread(str(output / "depth_mm.png"), cv2.IMREAD_UNCHANGED)
    assert millimetres.dtype == np.uint16 and millimetres.shape == (48, 64)
    np.testing.assert_array_equal(millimetres > 0, known)
    np.testing.assert_allclose(millimetres[known], 1000 * depth[known], atol=0.51)

    with Image.open(output / "all_in_focus.png") as sharp, Image.open(output / "depth.png") as picture:
        assert (sharp.mode, sharp.size) == ("RGB", (64, 48))
        assert picture.mode == "RGB" and picture.width > 64 and picture.height > 48

    header, _, vertices = (output / "points.ply").read_bytes().partition(b"end_header\n")
    assert b"format binary_little_endian 1.0" in header and f"element vertex {known.sum()}\n".encode() in header
    assert len(vertices) == 15 * known.sum()

    report = json.loads((output / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert report["seconds"]["total"] > 0 and {"align", "cost volume", "decide"} <= set(report["seconds"])
    assert report["coverage"] == pytest.approx(known.mean())
    assert report["versions"]["dfs_ros"] == dfs_ros.__version__
    assert Config.from_dict(report["configuration"]).hypotheses.count == 24
    assert report["ran_on"]["network"] == "none"


@pytest.mark.parametrize("cost", ["paper", "released"])
def test_every_cost_volume_and_dense(stack: Path, tmp_path: Path, cost: str) -> None:
    options = ("--cost", cost, "--dense", "--min-depth", "0.5", "--max-depth", "2", "--device", "cpu")
    assert estimate(stack, tmp_path / "out", *FAST[:4], *options) == 0
    depth = np.load(tmp_path / "out" / "depth.npy")
    assert np.isfinite(depth).all() and depth.min() >= 0.4999 and depth.max() <= 2.0001
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["configuration"]["cost"]["method"] == cost and report["coverage"] == 1.0


def test_estimate_with_the_network(stack: Path, tmp_path: Path) -> None:
    options = ("--network", "light", "--runner", "torch", "--device", "cpu", "--hypotheses", "24")
    assert estimate(stack / "stack.yaml", tmp_path / "out", *options) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["ran_on"]["network"] == "light, torch on cpu"


def test_a_wall_without_texture_is_no_failure_but_is_told(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    for image in stack.glob("*.png"):
        Image.new("RGB", (64, 48), (140, 140, 140)).save(image)
    assert estimate(stack, tmp_path / "out", *FAST) == 0
    assert "but nowhere do the images tell depth" in capsys.readouterr().out
    assert names(tmp_path / "out") == FILES and np.isnan(np.load(tmp_path / "out" / "depth.npy")).all()


def test_an_earlier_result_is_replaced_and_other_files_stay(stack: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "depth.npy").write_text("old")
    (output / "notes.txt").write_text("mine")
    assert estimate(stack, output, *FAST) == 0
    assert np.load(output / "depth.npy").shape == (48, 64) and (output / "notes.txt").read_text() == "mine"
    assert names(output) == sorted([*FILES, "notes.txt"])


def test_a_frame_of_another_scene_is_told_once(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    rng = np.random.default_rng(9)
    Image.fromarray(cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (64, 48))).save(stack / "002.png")
    result = subprocess.run(
        [*DFS, "estimate", str(stack), "--output", str(tmp_path / "out"), *FAST],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("W frame 2 (0.5 dioptres) dropped: ")
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]) == 1


def test_a_contradiction_leaves_no_depth_and_is_told(tmp_path: Path, capsys: Capture) -> None:
    stack = make_stack(tmp_path / "stack", 160, 120)
    (stack / "000.png").rename(tmp_path / "first.png")
    (stack / "001.png").rename(stack / "000.png")
    (tmp_path / "first.png").rename(stack / "001.png")
    assert estimate(stack, tmp_path / "out", *FAST) == 0
    printed = capsys.readouterr()
    assert "but no pixel has depth: the images contradict the description" in printed.out
    assert printed.err.startswith(f"dfs estimate: warning: {stack}: ") and printed.err.count("\n") == 1
    assert np.isnan(np.load(tmp_path / "out" / "depth.npy")).all()
    (finding,) = json.loads((tmp_path / "out" / "report.json").read_text())["findings"]
    assert finding["contradiction"] and finding["text"] in printed.err
    assert estimate(stack, tmp_path / "out", *FAST, "--set", "confidence.on_contradiction=warn") == 0
    assert finding["text"] in capsys.readouterr().err
    assert np.isfinite(np.load(tmp_path / "out" / "depth.npy")).mean() > 0.3


# ---------------------------------------------------------------------------------------------------- several stacks


def test_a_stack_that_fails_does_not_stop_the_others(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    other = tmp_path / "other"
    shutil.copytree(stack, other)
    output = tmp_path / "out"
    assert main(["estimate", *map(str, (stack, broken, other)), "--output", str(output), *FAST]) == 1
    assert names(output) == ["other", "stack"]
    first = np.load(output / "stack" / "depth.npy")
    np.testing.assert_array_equal(np.load(output / "other" / "depth.npy"), first)
    assert np.nanmedian(first) == pytest.approx(DEPTH_M, rel=0.03)
    printed = capsys.readouterr()
    assert f"dfs estimate: error: {broken}: " in printed.err and "no such file" in printed.err
    lines = printed.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == [str(output / "stack"), str(output / "other")]
    assert lines[2:] == [f"{output}: 2 of 3 stacks estimated; failed: {broken}"]


def test_json_is_all_that_is_printed(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "out"
    assert estimate(stack, output, "--json", *FAST) == 0
    printed = capsys.readouterr()
    (record,) = json.loads(printed.out)["stacks"]
    assert (record["stack"], record["output"], record["error"]) == (str(stack), str(output), None)
    assert record["report"] == json.loads((output / "report.json").read_text())
    assert record["report"]["depth_m"]["median"] == pytest.approx(DEPTH_M, rel=0.03)
    missing = tmp_path / "missing"
    assert estimate(missing, output, "--json", *FAST) == 2
    printed = capsys.readouterr()
    (record,) = json.loads(printed.out)["stacks"]
    assert record["report"] is None and "no such file" in record["error"] and "no such file" in printed.err


def test_stacks_of_one_name_are_refused_before_any_work(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    twin = tmp_path / "elsewhere" / "stack"
    shutil.copytree(stack, twin)
    assert main(["estimate", str(stack), str(twin), "--output", str(tmp_path / "out")]) == 2
    assert f"expected folders of different names, received {stack}, {twin}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------- help


def test_help_lists_every_command(capsys: Capture) -> None:
    for argv in (["--help"], ["-h"]):
        assert main(argv) == 0
        printed = capsys.readouterr().out
        for name, (_, summary) in COMMANDS.items():
            assert re.search(rf"^  {name} +{re.escape(summary)}$", printed, re.MULTILINE)
    assert main([]) == 2
    assert main(["--version"]) == 0 and capsys.readouterr().out.endswith(f"dfs {dfs_ros.__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: dfs {name} ")
    options = printed.partition("\noptions:\n")[2]
    undescribed = re.findall(r"^  (-\S+(?: \S+)?)\n(?=  -|\n|$)", options, re.MULTILINE)
    assert not undescribed, f"options without a description: {undescribed}"


def test_list_settings_is_settings(capsys: Capture, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["estimate", "--list-settings"])
    assert stopped.value.code == 0
    file = tmp_path / "settings.yaml"
    file.write_text(capsys.readouterr().out)
    assert Config.load(file) == Config()


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [*DFS, "estimate", "--list-settings"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=240
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


# ---------------------------------------------------------------------------------------------------- Ctrl-C


def read_until(terminal: int, text: bytes, timeout_s: float) -> bytes:
    """What a terminal shows, until `text` is in it or nothing comes any more."""
    shown, end = b"", time.monotonic() + timeout_s
    while text not in shown and time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if ready:
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # Linux: the other end is closed
                break
    return shown


def test_ctrl_c_in_the_middle_leaves_everything_as_it_was(tmp_path: Path) -> None:
    stack, output = make_stack(tmp_path / "stack", 512, 384), tmp_path / "out"
    output.mkdir()
    (output / "depth.npy").write_text("of an earlier run")
    before = contents(tmp_path)
    terminal, its_stderr = pty.openpty()
    fcntl.ioctl(
        its_stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0)
    )  # there is room for the progress bar
    command = [*DFS, "estimate", str(stack), "--output", str(output), "--network", "none", "--hypotheses", "512"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its_stderr)
    os.close(its_stderr)
    try:
        shown = read_until(terminal, b"cost volume", 240)
        assert b"cost volume" in shown, shown
        process.send_signal(signal.SIGINT)
        shown += read_until(terminal, b"interrupted", 240)
        assert process.wait(timeout=240) == 130
    finally:
        process.kill()
        printed, _ = process.communicate()
        os.close(terminal)
    assert b"dfs estimate: interrupted" in shown and b"Traceback" not in shown
    assert printed == b""
    assert contents(tmp_path) == before

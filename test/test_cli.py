"""The command `dfs`: its files, its help, and every wrong input: one clear line, nothing written, nothing lost."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import dfs_ros
from dfs_ros.cli.main import COMMANDS, main
from dfs_ros.config import Config
from dfs_ros.cost_volume import cuda
from dfs_ros.io.stack_folder import load_stack, save_stack
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera

FILES = ["all_in_focus.png", "depth.npy", "depth.png", "depth_mm.png", "points.ply", "report.json", "sigma.npy"]
DFS = (sys.executable, "-m", "dfs_ros.cli.main")
FAST = ("--network", "none", "--hypotheses", "24", "--max-depth", "5")
DEPTH_M = 0.8

Capture = pytest.CaptureFixture[str]


def make_stack(folder: Path, width: int = 64, height: int = 48) -> Path:
    scene = plane_scene(DEPTH_M, width, height, seed=3)
    stack = render_stack(scene.rgb, scene.depth_m, Camera(0.008, 1.4, 6e-6), [2.2, 1.3, 0.5], rng=1)
    return save_stack(stack, folder)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return make_stack(tmp_path / "stack")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with what is in it."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def estimate(stack: Path, output: Path, *options: str) -> int:
    return main(["estimate", str(stack), "--output", str(output), *options])


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
    assert report["share_of_pixels_with_depth"] == pytest.approx(known.mean())
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
    assert report["configuration"]["cost"]["method"] == cost and report["share_of_pixels_with_depth"] == 1.0


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
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("W frame 2 (0.5 dioptres) dropped: ")
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]) == 1


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
        [*DFS, "estimate", "--list-settings"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


# ---------------------------------------------------------------------------------------------------- wrong input

Spoil = Callable[[Path], Any]


def yaml_change(old: str, new: str) -> Spoil:
    """A change of stack.yaml by a regular expression; the expression must be there."""

    def spoil(stack: Path) -> None:
        file = stack / "stack.yaml"
        text, count = re.subn(old, new, file.read_text(), flags=re.MULTILINE)
        assert count
        file.write_text(text)

    return spoil


def truncate(stack: Path) -> None:
    file = stack / "001.png"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def only_one_image(stack: Path) -> None:
    text = (stack / "stack.yaml").read_text()
    (stack / "stack.yaml").write_text(text[: text.index("- file: 001.png")])


def sixty_megapixels(stack: Path) -> None:
    Image.new("L", (10000, 6000)).save(stack / "001.png", compress_level=1)


BAD_STACKS: dict[str, tuple[Spoil, str]] = {
    "no stack.yaml": (lambda s: (s / "stack.yaml").unlink(), "stack.yaml: no such file; expected a focal stack"),
    "missing image": (lambda s: (s / "001.png").unlink(), r"frames\[1\]\.file: .*001\.png: no such file"),
    "truncated image": (truncate, r"001\.png: the image is truncated or damaged"),
    "empty image": (lambda s: (s / "001.png").write_bytes(b""), r"001\.png: expected an image"),
    "text for an image": (lambda s: (s / "001.png").write_text("hello"), r"001\.png: expected an image"),
    "different sizes": (
        lambda s: Image.new("RGB", (64, 50)).save(s / "001.png"),
        r"001\.png: expected 64 x 48 pixels as in 000\.png, received 64 x 50",
    ),
    "60 megapixels": (sixty_megapixels, r"expected at most 50 megapixels, received 60\.0 \(10000 x 6000\)"),
    "one image": (only_one_image, "at least 2 images at different focus, received 1"),
    "one focus": (
        yaml_change(r"focus_diopters: (2\.2|0\.5)", "focus_diopters: 1.3"),
        "all 3 images are at 1.3 dioptres",
    ),
    "focal length 0": (
        yaml_change(r"focal_length_m: .*", "focal_length_m: 0"),
        r"focal_length_m: .* over 0 .*received 0",
    ),
    "negative f-number": (yaml_change(r"f_number: .*", "f_number: -1.4"), r"f_number: .* over 0 .*received -1\.4"),
    "focus inside the lens": (
        yaml_change("focus_diopters: 1.3", "focus_diopters: 130"),
        "inside the focal length 0.008 m",
    ),
    "focus beyond infinity": (
        yaml_change("focus_diopters: 1.3", "focus_diopters: -0.1"),
        "nothing lies beyond infinity",
    ),
    "NaN focus": (yaml_change("focus_diopters: 1.3", "focus_diopters: .nan"), "expected a finite number, received nan"),
    "infinite focus": (
        yaml_change("focus_diopters: 1.3", "focus_diopters: .inf"),
        "expected a finite number, received inf",
    ),
    "NaN focal length": (yaml_change(r"focal_length_m: .*", "focal_length_m: .nan"), "expected a finite number"),
    "infinite pixels": (yaml_change(r"pixel_pitch_m: .*", "pixel_pitch_m: .inf"), "expected a finite number"),
    "focus in words": (yaml_change("focus_diopters: 1.3", "focus_diopters: near"), "received 'near'"),
    "unknown key": (yaml_change(r"^camera:", "camra: 3\ncamera:"), r"camra: unknown key; did you mean 'camera'"),
    "unknown key of the camera": (
        yaml_change("  f_number:", "  f_nubmer: 2\n  f_number:"),
        "f_nubmer: unknown key; did",
    ),
    "unknown key of a frame": (yaml_change("- file: 001.png", "- file: 001.png\n  fokus: 1"), "fokus: unknown key"),
    "wrong version": (
        yaml_change("focal-stack/1", "focal-stack/2"),
        "expected 'focal-stack/1', received 'focal-stack/2'",
    ),
    "no yaml": (lambda s: (s / "stack.yaml").write_text("a: [1"), "stack.yaml: not readable as YAML: line 1: "),
    "image outside": (yaml_change("file: 001.png", "file: ../001.png"), r"'\.\./001\.png', which lies outside"),
    "image elsewhere": (yaml_change("file: 001.png", "file: /etc/hostname"), "'/etc/hostname', which lies outside"),
    "image twice": (yaml_change("file: 001.png", "file: 000.png"), r"'000\.png' is listed twice"),
}


def one_line(printed: str, message: str) -> None:
    (line,) = printed.splitlines()
    assert line.startswith("dfs estimate: error: ")
    assert re.search(message, line), line


@pytest.mark.parametrize(("spoil", "message"), BAD_STACKS.values(), ids=BAD_STACKS)
def test_a_bad_stack(stack: Path, tmp_path: Path, capsys: Capture, spoil: Spoil, message: str) -> None:
    spoil(stack)
    before = contents(tmp_path)
    assert estimate(stack, tmp_path / "out", *FAST) == 2
    printed = capsys.readouterr()
    one_line(printed.err, message)
    assert printed.out == "" and contents(tmp_path) == before


def test_several_mistakes_are_told_at_once(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    yaml_change("focus_diopters: 1.3", "focus_diopters: near")(stack)
    yaml_change(r"f_number: .*", "f_number: wide")(stack)
    assert estimate(stack, tmp_path / "out", *FAST) == 2
    printed = capsys.readouterr().err
    assert "received 'near'" in printed and "received 'wide'" in printed


def test_images_up_to_the_limit_that_is_set(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    assert estimate(stack, tmp_path / "out", *FAST, "--set", "processing.max_input_megapixels=0.01") == 0
    capsys.readouterr()
    make_stack(tmp_path / "larger", 160, 120)
    assert estimate(tmp_path / "larger", tmp_path / "out2", *FAST, "--set", "processing.max_input_megapixels=0.01") == 2
    first, *problems = capsys.readouterr().err.splitlines()
    assert first == "dfs estimate: error: 3 problems:" and len(problems) == 3
    assert all("expected at most 0.01 megapixels" in line and "(160 x 120)" in line for line in problems)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-depth", "2", "--max-depth", "1"], "expected min_depth_m < max_depth_m, received 2.0 and 1.0"),
        (["--max-depth", "nan"], r"hypotheses\.max_depth_m: expected a finite number"),
        (["--max-depth", "far"], "argument --max-depth: invalid float value: 'far'; see `dfs estimate --help`"),
        (["--hypotheses", "1"], r"hypotheses\.count: expected 2 to 512, received 1"),
        (["--cost", "best"], "argument --cost: invalid choice: 'best'"),
        (["--network", "lihgt"], "network 'lihgt': unknown model; known: "),
        (["--network", "missing.safetensors"], r"network missing\.safetensors: no such file"),
        (["--set", "cost.esp=1"], r"cost\.esp: unknown setting; did you mean 'eps'"),
        (["--set", "cost.eps"], "expected SECTION.SETTING=VALUE"),
        (["--set", "cost.eps={"], "expected a number, a word"),
        (["--config", "missing.yaml"], r"configuration missing\.yaml: no such file"),
        (["--fov", "60"], "unrecognized arguments: --fov 60"),
        (["--outpt", "x"], "unrecognized arguments: --outpt x"),
    ],
)
def test_bad_options(stack: Path, tmp_path: Path, capsys: Capture, options: list[str], message: str) -> None:
    before = contents(tmp_path)
    assert estimate(stack, tmp_path / "out", "--network", "none", *options) == 2
    printed = capsys.readouterr()
    one_line(printed.err, message)
    assert printed.out == "" and contents(tmp_path) == before


@pytest.mark.skipif(cuda.why_not() is None, reason="CUDA can be used here")
def test_cuda_where_there_is_none(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    assert estimate(stack, tmp_path / "out", *FAST, "--device", "cuda") == 2
    one_line(capsys.readouterr().err, "device cuda: it cannot be used: .*; use the device cpu or auto")
    assert not (tmp_path / "out").exists()


def test_a_bad_configuration_file(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("hypotheses: {cuont: 3}\n")
    assert estimate(stack, tmp_path / "out", "--config", str(file)) == 2
    one_line(
        capsys.readouterr().err, rf"configuration {file}: hypotheses\.cuont: unknown setting; did you mean 'count'"
    )


def test_missing_stack_arguments_and_commands(tmp_path: Path, capsys: Capture) -> None:
    assert estimate(tmp_path / "nowhere", tmp_path / "out", *FAST) == 2
    one_line(capsys.readouterr().err, "nowhere: no such file; expected a focal stack, a folder with stack.yaml")
    assert main(["estimate"]) == 2
    one_line(
        capsys.readouterr().err, "the following arguments are required: STACK, --output; see `dfs estimate --help`"
    )
    assert main(["estimat"]) == 2
    assert capsys.readouterr().err == f"dfs: error: unknown command 'estimat'; known: {', '.join(COMMANDS)}\n"
    assert contents(tmp_path) == {}


def test_outputs_that_cannot_be_written(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/dfs_ros_test")):
        assert estimate(stack, output, *FAST) == 2
        one_line(capsys.readouterr().err, rf"output {output}: cannot be written \(.*\); choose a folder that can")
    assert contents(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_to_write(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert estimate(stack, locked, *FAST) == 2
    one_line(capsys.readouterr().err, "cannot be written")
    assert names(locked) == []


def test_results_never_replace_files_of_the_stack(stack: Path, tmp_path: Path, capsys: Capture) -> None:
    (stack / "depth.npy").write_bytes(b"the reference depth of this stack")
    (tmp_path / "link").symlink_to(stack)
    before = contents(stack)
    for given, output in ((stack, stack), (stack / "stack.yaml", stack), (stack, tmp_path / "link")):
        assert estimate(given, output, *FAST) == 2
        one_line(capsys.readouterr().err, "is the folder of the stack, whose files stay as they are")
    assert contents(stack) == before
    assert len(load_stack(stack)) == 3


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
        shown = read_until(terminal, b"cost volume", 60)
        assert b"cost volume" in shown, shown
        process.send_signal(signal.SIGINT)
        shown += read_until(terminal, b"interrupted", 60)
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
        printed, _ = process.communicate()
        os.close(terminal)
    assert b"dfs estimate: interrupted" in shown and b"Traceback" not in shown
    assert printed == b""
    assert contents(tmp_path) == before

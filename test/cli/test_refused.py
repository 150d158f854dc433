"""`dfs estimate` on every wrong input: one clear line, nothing written, nothing lost."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_rig import FAST, Capture, contents, estimate, make_stack, names, stack
from PIL import Image

from dfs_ros.cli.main import COMMANDS, main
from dfs_ros.cost_volume import cuda
from dfs_ros.io.stack_folder import load_stack

__all__ = ["stack"]  # fixtures

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
    one_line(capsys.readouterr().err, "the following arguments are required: --output; see `dfs estimate --help`")
    for given in ([], ["--sample", str(tmp_path)]):
        assert main(["estimate", "--output", str(tmp_path / "out"), *given]) == 2
        one_line(capsys.readouterr().err, "expected one STACK or more, or --sample alone; see `dfs estimate --help`")
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

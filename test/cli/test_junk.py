"""Every file and folder that a command takes, as junk: one error, told in at most ten lines, and no traceback."""

from __future__ import annotations

import argparse
import importlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from bag_rig import record_plane
from cli_rig import Capture, make_stack
from lens_rig import true_calibration
from photo_rig import photos

from dfs_ros.cli.main import COMMANDS, VARIANTS, main

PATHS = {"FILE", "DIR", "BAG", "STACK", "FOLDER", "PATH", "NETWORK"}
"""Placeholders of arguments that name a file or folder."""
OUTPUTS = {
    "--output",
    "--json",
    "--markdown",
    "--report",
    "--picture",
    "--model-card",
    "--cache",
    "--work",
    "--predictions",
}
OTHERS = {
    *{"HZ", "WxH", "S", "PORT", "NAME", "NAMES", "FROM:=TO", "SECTION.SETTING=VALUE", "M", "N", "TOPIC", "BYTES", "MB"},
    *{"cameras", "methods", "robustness", "baselines"},
    *{
        "BOARD",
        "UNIT",
        "TEXT",
        "PATTERN",
        "MM",
        "UM",
        "MPX",
        "CODE",
        "SHARE",
        "D,D,...",
        "M,M,...",
        "W",
        "PX",
        "HZ,HZ",
        "NAME,NAME",
        "DEVICE",
        "name",
    },
}
OTHERWISE = {"run", "node", "camera", "sweeper", "capture", "view", "record", "bench --node", "eval", "calibrate"}
OTHERWISE |= {"calibrate aperture", "calibrate lens"}
"""Commands that load no such network, or have a node load it, which tells so on /diagnostics."""
POOLS = {"train --rgbd"}
"""Arguments whose images are read by processes of their own, which take seconds to start: one kind of junk."""
NEEDS = {
    "--calibration": ("--source", "v4l2"),
    "import --calibration": ("--csv", "CSV"),
    "calibrate lens folder": ("--csv", "CSV"),
    "calibrate lens --csv": ("FOLDER",),
    "calibrate lens --config": ("--source", "v4l2"),
    "calibrate check --calibration": (),
    "sweeper --calibration": (),
    "capture --calibration": ("--output", "out", "--source", "v4l2"),
    **dict.fromkeys((f"capture {name}" for name in ("--source", "--config")), ("--output", "out")),
    **dict.fromkeys((f"calibrate check {name}" for name in ("stack", "--csv", "--network")), ("--calibration", "LENS")),
    "train --data": ("--dataset", "nyu"),
    "eval --data": ("--conditions", "ideal"),
    "eval --config": ("--stack", "STACK"),
    "experiment --train-rgbd": ("--rgbd", "junk"),
}
"""Other arguments without which one is not read."""


class Input(NamedTuple):
    """Argument of a command that names a file or folder to read."""

    command: str
    name: str
    metavar: str
    positional: bool


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    importlib.import_module({**COMMANDS, **VARIANTS}[command][0]).add_arguments(parser)
    return parser


def _metavar(action: argparse.Action) -> str:
    """Placeholder of an argument; empty for flags, choices and numbers."""
    if action.nargs == 0 or action.choices or (action.metavar is None and action.type):
        return ""
    if "--network" in action.option_strings:
        return "NETWORK"
    if "--source" in action.option_strings:
        return "DIR"
    return str(action.metavar or action.dest)


def inputs() -> list[Input]:
    """All of them, as the parsers of all commands know them."""
    found = []
    for command in (*COMMANDS, *VARIANTS):
        for action in _parser(command)._actions:
            name, metavar = (*action.option_strings, action.dest)[0], _metavar(action)
            if metavar in PATHS and name not in OUTPUTS and (metavar != "NETWORK" or command not in OTHERWISE):
                found.append(Input(command, name, metavar, not action.option_strings))
    return found


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/b.txt", "text " * 100)
    return stream.getvalue()


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, depth=np.ones((40, 30)))
    return stream.getvalue()


JUNK = {
    "empty": b"",
    "random": np.random.default_rng(5).bytes(3000),
    "zeros": bytes(3000),
    "text": b"hello\nworld, 1.0\n",
    "yaml, cut": b"format: focal-stack/1\ncamera: {focal_length_m: 0.004, f_num",
    "list": b"- 1\n- [2, 3]\n",
    "zip, cut": _zip()[:100],
    "npz, cut": _npz()[:5000],
    "mcap, cut": b"\x89MCAP0\r\n\x01\x0c\0\0\0",
    "sqlite3, cut": b"SQLite format 3\0\x10\0\x01\x01",
    "safetensors, cut": (500).to_bytes(8, "little") + b'{"__metadata__": {"format": "dfs_ros',
    "png, cut": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10",
}
FILES = ("stack.yaml", "metadata.yaml", "0.png", "1.jpg", "x.mcap", "x.db3", "w.safetensors", "focus.csv")
SCENE = ("rgb.png", "depth_mm.png", "meta.json")
SETTINGS = {"--config", "--csv"}
"""Files of text: an empty file of settings is one without any, and no junk."""


def junk(folder: Path, content: bytes, given: Input) -> Iterator[Path]:
    """Paths of junk for an argument: files of each kind, and folders of them."""
    (folder / "scene").mkdir(parents=True)
    for name in (*FILES, *(f"scene/{name}" for name in SCENE)):
        (folder / name).write_bytes(content)
    if given.metavar == "NETWORK":
        yield folder / "w.safetensors"
        return
    yield folder
    if content or given.name not in SETTINGS:
        yield folder / "stack.yaml"
    if given.metavar == "BAG":
        yield from (folder / "x.mcap", folder / "x.db3")


def arguments(given: Input, path: Path, good: dict[str, str]) -> list[str]:
    """Arguments with a path of junk, and with others as far as the command needs them."""
    before = ["bag" if given.command == "calibrate lens" else "stack"] if given.name == "--source" else []
    words = [str(path)] if given.positional else [given.name, *before, str(path)]
    words += NEEDS.get(f"{given.command} {given.name}", NEEDS.get(given.name, ()))
    for action in _parser(given.command)._actions:
        name, metavar = (*action.option_strings, action.dest)[0], _metavar(action)
        if action.required and name not in (given.name, *words):
            choice = str(next(iter(action.choices or [metavar])))
            words += [*action.option_strings[:1], "out" if name in OUTPUTS else choice]
    return [{**good, "junk": str(path)}.get(word, word) for word in words]


@pytest.fixture
def good(tmp_path: Path) -> dict[str, str]:
    """Values of arguments that are right."""
    csv = tmp_path / "good.csv"
    csv.write_text("file,raw_position\n0.png,1\n")
    lens = tmp_path / "lens.yaml"
    lens.write_bytes(true_calibration().yaml())
    return {
        **{"CSV": str(csv), "LENS": str(lens)},
        **{"M": "1.0", "DEVICE": "/dev/null", "STACK": str(make_stack(tmp_path / "stack"))},
        **{"FOLDER": str(photos(tmp_path / "photos", 1, 2)), "BAG": str(record_plane(tmp_path / "bag"))},
    }


def test_every_argument_is_known() -> None:
    """A new placeholder belongs to PATHS or to OTHERS."""
    for command in (*COMMANDS, *VARIANTS):
        for action in _parser(command)._actions:
            assert _metavar(action) in {"", *PATHS, *OTHERS}, f"dfs {command} {action.option_strings or action.dest}"


@pytest.mark.parametrize("given", inputs(), ids=lambda given: f"{given.command} {given.name}")
def test_junk(
    given: Input, good: dict[str, str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = ["random"] if f"{given.command} {given.name}" in POOLS else list(JUNK)
    for number, kind in enumerate(kinds):
        for path in junk(tmp_path / f"junk{number}", JUNK[kind], given):
            words = arguments(given, path, good)
            status = main([*given.command.split(), *words])
            printed = capsys.readouterr()
            lines = printed.err.splitlines()
            told = f"dfs {given.command} {' '.join(words)}: status {status}\n{printed.out}{printed.err}"
            assert status != 0, told
            assert "Traceback" not in told and "a fault of this program" not in told, told
            assert sum(line.startswith(f"dfs {given.command}: error: ") for line in lines) == 1, told
            assert len(lines) <= 12 and f"junk{number}" in printed.err, told
            assert not list((tmp_path / "out").rglob("*")), told

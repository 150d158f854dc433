"""Every file of a stack is opened once, and its `stack.yaml` parsed once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from places import ROOT
from stack_folder_rig import write_folder

# Python tells audit hooks of every file that it opens, whoever does; a hook stays, and so does the process.
COUNT = """
import json, os, sys
folder, opened = os.path.realpath(sys.argv[1]) + os.sep, []

def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and os.path.realpath(arguments[0]).startswith(folder):
        opened.append(os.path.basename(arguments[0]))

import cv2, yaml
import dfs_ros.cli.estimate, dfs_ros.io.results, dfs_ros.estimator.estimator
from dfs_ros.camera.recorded import RecordedSource
from dfs_ros.cli.main import main
from dfs_ros.config import CameraConfig
from dfs_ros.io.stack_folder import load_stack

def by_opencv(*arguments):
    raise AssertionError("opened by OpenCV, which tells no hook")

cv2.imread = by_opencv
sys.addaudithook(note)
exec(sys.argv[2])
print(json.dumps(opened))
"""
ESTIMATE = """
fast = ["--network", "none", "--hypotheses", "8", "--set", "alignment.mode=off", "--set", "processing.threads=1"]
assert main(["estimate", folder, "--output", folder.rstrip("/") + "_out", *fast]) == 0
sys.stdout.flush()
"""


def opened(folder: Path, code: str) -> Counter[str]:
    """How often each file of the folder was opened, by a process of its own."""
    command: Sequence[str] = [sys.executable, "-c", COUNT, str(folder) + "/", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return Counter(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_folder(tmp_path_factory.mktemp("once") / "stack", reference_depth="depth.png")
    depth = np.full((24, 32), 1500, np.uint16)
    (made / "depth.png").write_bytes(cv2.imencode(".png", depth)[1].tobytes())
    return made


@pytest.mark.parametrize(
    ("code", "reference"),
    [
        ("assert load_stack(folder).size == (24, 32)", False),
        ("assert RecordedSource(folder, CameraConfig()).size == (24, 32)", False),
        (ESTIMATE, True),
    ],
    ids=["load_stack", "recorded source", "dfs estimate"],
)
def test_each_file_is_opened_once(folder: Path, code: str, reference: bool) -> None:
    expected = dict.fromkeys(("stack.yaml", "0.png", "1.png", *(["depth.png"] if reference else [])), 1)
    assert opened(folder, code) == expected


def test_the_count_counts(folder: Path) -> None:
    twice = "open(folder + '/0.png', 'rb').read(), open(folder + '/0.png', 'rb').read()"
    assert opened(folder, f"import warnings; warnings.simplefilter('ignore'); {twice}") == {"0.png": 2}

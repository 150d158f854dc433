"""`dfs run`: camera, depth node and what receives, as processes over DDS and as threads; nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from cli_rig import FILES
from dds_names import new_domain
from report_rig import violations

from dfs_ros.cli.main import main
from dfs_ros.config import Config
from dfs_ros.io.stack_folder import save_stack
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera

PLANE_M = 0.9
SIZE = (96, 128)
DOMAIN = str(new_domain())
CAMERA = Camera(focal_length_m=0.025, f_number=1.4, pixel_pitch_m=12.8e-3 / SIZE[1])
FAST = [
    *("--network", "none", "--hypotheses", "24", "--min-depth", "0.4", "--max-depth", "4"),
    *("--set", "cost.channels=luma", "--set", "processing.threads=1", "--set", "lens.aperture=given"),
    *("--rate", "10", "--no-viewer"),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded stack of a plane at PLANE_M."""
    scene = plane_scene(PLANE_M, SIZE[1], SIZE[0], seed=5, fx_px=CAMERA.focal_length_m / CAMERA.pixel_pitch_m)
    rendered = render_stack(scene.rgb, scene.depth_m, CAMERA, [2.2, 1.1, 0.5], breathing=True)
    return save_stack(rendered, tmp_path_factory.mktemp("recorded") / "plane")


def is_there(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two
        return False


def left_behind(before: list[psutil.Process]) -> list[psutil.Process]:
    """Children of this process that were not there before; those of other tests may have ended meanwhile."""
    return [child for child in psutil.Process().children() if child not in before]


class Run:
    """`dfs run` with the recorded stack, as a process; what it prints, and its children."""

    def __init__(self, stack: Path, *arguments: str, output: Path) -> None:
        command = [sys.executable, "-m", "dfs_ros.cli.main", "run", "--source", "stack", str(stack), *FAST, *arguments]
        self._printed = output.with_suffix(".txt")
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": DOMAIN,
            "ROS_LOCALHOST_ONLY": "1",
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(output.parent),  # a run that is killed cannot tidy up
        }
        with self._printed.open("w") as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self._known: dict[int, psutil.Process] = {}

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    @property
    def children(self) -> list[psutil.Process]:
        """All children that were ever seen and are still there."""
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._known[child.pid] = child
        return [child for child in self._known.values() if is_there(child)]

    def child(self, command: str) -> psutil.Process:
        return next(c for c in self.children if command in c.cmdline())

    def wait_until(self, condition: Callable[[], object], timeout_s: float = 240) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"still waiting; printed so far:\n{self.printed}"
            time.sleep(0.05)

    def wait_for_depth(self) -> None:
        """Wait for a status after the second depth image: all outputs of the first have come."""
        self.wait_until(lambda: len(self.children) == 2)
        self.wait_until(lambda: re.search(r"\| depth (?!0 Hz)", self.printed))

    def end(self) -> int:
        status = self.process.wait(240)
        assert "Traceback" not in self.printed, self.printed
        return status


@pytest.fixture
def start(stack: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs = []

    def make(*arguments: str) -> Run:
        runs.append(Run(stack, *arguments, output=tmp_path / f"run{len(runs)}"))
        return runs[-1]

    yield make
    for run in runs:
        for process in [*run.children, psutil.Process(run.process.pid)] if run.process.poll() is None else run.children:
            process.kill()
        run.process.wait()


def check_result(folder: Path, printed: str) -> None:
    """The plane stands where it stood in the recorded stack, in every file."""
    assert sorted(p.name for p in folder.iterdir()) == FILES
    depth_m, sigma_m = np.load(folder / "depth.npy"), np.load(folder / "sigma.npy")
    assert depth_m.shape == SIZE == sigma_m.shape
    assert np.isfinite(depth_m).mean() > 0.5
    assert np.nanmedian(depth_m) == pytest.approx(PLANE_M, rel=0.03)
    report = json.loads((folder / "report.json").read_text())
    assert violations(report, "dfs run") == []
    assert report["measured"]["depth_images"] >= 1  # the duration counts from the first
    assert report["measured"]["latency_s"]["p50"] > 0 and report["measured"]["images_hz"] > 0
    assert report["camera"]["f_number"] == pytest.approx(1.4)
    assert report["camera"]["pixel_pitch_m"] == pytest.approx(CAMERA.pixel_pitch_m)
    assert report["camera"]["reference_focus_diopters"] == pytest.approx(1.1)
    assert report["source"].startswith("recorded stack plane: 3 images of 128 x 96")
    assert f"{folder}: 128 x 96 depth as it was received" in printed


def test_over_dds_each_part_a_process(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start("--duration", "3", "--output", str(tmp_path / "out"), "--transport", "dds")
    run.wait_until(lambda: len(run.children) == 2)
    assert run.end() == 0, run.printed
    check_result(tmp_path / "out", run.printed)
    assert run.children == []
    assert re.search(
        r"^\d+ depth images, [\d.]+ a second; latency \d+ ms \(99 %: \d+ ms\); dropped: ", run.printed, re.M
    )


def test_within_one_process(stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--duration", "3", "--output", str(out), "--transport", "local"]
    assert main(["run", "--source", "stack", str(stack), *FAST, *arguments]) == 0
    check_result(out, capsys.readouterr().out)


def test_ctrl_c_ends_every_part(start: Callable[..., Run]) -> None:
    run = start()
    run.wait_for_depth()
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0, run.printed
    assert run.children == []
    assert "depth images" in run.printed.splitlines()[-1]


def test_a_part_that_dies_ends_the_run(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start("--duration", "240", "--output", str(tmp_path / "out"))
    run.wait_for_depth()
    run.child("camera").kill()
    assert run.end() == 1
    assert run.printed.splitlines()[-1] == "dfs run: error: the camera ended by itself, exit status -9"
    assert run.children == []
    assert not (tmp_path / "out").exists()


def test_no_part_outlives_a_run_that_is_killed(start: Callable[..., Run]) -> None:
    run = start()
    run.wait_until(lambda: len(run.children) == 2)
    run.process.kill()
    run.process.wait()
    run.wait_until(lambda: run.children == [])


def test_interrupted_before_its_time_it_says_so(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start("--duration", "240", "--output", str(tmp_path / "out"))
    run.wait_for_depth()
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM
    assert run.children == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "stack", "/no/such/stack"], "/no/such/stack: no such file"),
        (
            ["--source", "webcam"],
            "'picamera2 [NUMBER]', 'oak [ID]' or 'rgbd [DIR|BAG]', received 'webcam'",
        ),
        (
            ["--source", "stack"],
            "'picamera2 [NUMBER]', 'oak [ID]' or 'rgbd [DIR|BAG]', received 'stack'",
        ),
        (["--duration", "0"], "--duration: expected seconds over 0"),
        (["--rate", "0"], "camera.rate_hz: expected 0.01 to 1000 Hz, received 0.0"),
        (["--output", "/proc/no/out"], "cannot be written"),
        (["--namespace", "1st"], "namespace: expected words"),
        (["--remap", "image"], "remapping: expected FROM:=TO"),
        (["--set", "node.cloud_skip=0"], "node.cloud_skip: expected 1 to 64 px"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = psutil.Process().children()  # of other tests of this process, such as a tracker of shared memory
    assert main(["run", "--no-viewer", "--size", "32x32", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert left_behind(before) == []


def test_bench_of_the_node(stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", DOMAIN)
    arguments = ["--duration", "2", "--source", "stack", str(stack), "--output", str(tmp_path), "--network", "none"]
    before = psutil.Process().children()
    assert main(["bench", "--node", *arguments]) == 0
    record = json.loads((tmp_path / "bench_node.json").read_text())
    assert record["depth_hz"] > 0
    assert record["seconds"] >= 2
    expected = Config().to_dict()
    assert record["configuration"]["hypotheses"] == expected["hypotheses"]
    assert record["configuration"]["cost"] == expected["cost"]
    steps_s = record["steps_s"]
    assert {"align", "cost volume", "aggregate"} <= set(steps_s) and "total" not in steps_s
    assert 0 < sum(steps_s.values()) < 60
    callback_ms = record["image_callback_p99_ms"]
    assert set(callback_ms) == {"wall", "processor"} and callback_ms["wall"] > 0
    assert 20 < record["node_rss_mb"]["first"] <= record["node_rss_mb"]["most"] < 2000
    latency = record["latency_s"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert left_behind(before) == []

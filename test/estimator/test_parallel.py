"""Depth of several stacks at once, each in a process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from node_rig import CAMERA, FAST, FOCUS_DIOPTERS, SIZE

from dfs_ros.config import Config
from dfs_ros.estimator import parallel as parallel_module
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.estimator.parallel import ParallelEstimator, live_estimator, one_by_one, stacks_at_once
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import FocalStack

CONFIG = Config.from_dict(FAST)
PATIENCE_S = 240.0


def plane_stack(depth_m: float, times: int = 1) -> FocalStack:
    """A textured plane facing the camera, in images larger by `times`."""
    fx_px = CAMERA.focal_length_m / CAMERA.pixel_pitch_m
    scene = plane_scene(depth_m, times * SIZE[1], times * SIZE[0], seed=3, fx_px=fx_px)
    return render_stack(scene.rgb, scene.depth_m, CAMERA, FOCUS_DIOPTERS)


@pytest.fixture(scope="module")
def parallel() -> Iterator[ParallelEstimator]:
    yield ParallelEstimator(CONFIG, 2)


def processes() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended meanwhile
            found += [process] if "multiprocessing.spawn" in " ".join(process.cmdline()) else []
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 2),
        ({"processing": {"threads": 8, "processes": 3}}, 3),
        ({"processing": {"threads": 2, "processes": 3}}, 2),
        ({"processing": {"processes": 1}}, 1),
        ({"processing": {"threads": 1, "processes": 2}}, 1),
        ({"stack": {"mode": "sliding"}}, 1),
    ],
)
def test_stacks_at_once(settings: dict[str, dict[str, object]], expected: int) -> None:
    config = Config.from_dict({"processing": {"threads": 8, "device": "cpu"}}).updated(settings)
    assert stacks_at_once(config) == expected


@pytest.mark.parametrize(
    ("size", "processing", "threads_each", "expected"),
    [
        ((240, 320), {}, 1, False),
        ((480, 640), {}, 1, True),
        ((480, 640), {}, 2, False),
        ((480, 640), {"processes": 2}, 1, False),
        ((1088, 1920), {}, 1, True),
        ((1088, 1920), {"max_megapixels": 0.15}, 1, False),
    ],
)
def test_large_images_come_one_by_one_where_each_stack_has_one_thread(
    size: tuple[int, int], processing: dict[str, float], threads_each: int, expected: bool
) -> None:
    assert one_by_one(size, Config.from_dict({"processing": processing}), threads_each) is expected


def test_stacks_that_come_one_by_one_need_no_process() -> None:
    config = CONFIG.updated({"processing": {"threads": 8}})
    assert isinstance(live_estimator(config, alone=True), DepthEstimator)


def test_two_stacks_at_once_have_the_depth_of_each(parallel: ParallelEstimator) -> None:
    stacks = [plane_stack(0.8), plane_stack(1.6)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(parallel.estimate, stacks))
    for stack, result in zip(stacks, results, strict=True):
        alone = DepthEstimator(CONFIG).estimate(stack)
        np.testing.assert_array_equal(result.depth_m, alone.depth_m)
        np.testing.assert_array_equal(result.all_in_focus, alone.all_in_focus)
        assert result.camera == alone.camera
    assert (parallel.at_once, parallel.network, parallel.network_faults, parallel.preparing) == (2, "none", [], "")


def test_a_stack_has_all_threads_where_it_comes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its share again after it; depth is the same."""
    config = CONFIG.updated({"processing": {"threads": 2}})
    estimator, stack = ParallelEstimator(config, 2), plane_stack(0.8)
    results = [estimator.estimate(stack)]
    with monkeypatch.context() as patch:
        patch.setattr(parallel_module, "_LARGE_PX", SIZE[0] * SIZE[1] - 1)
        results.append(estimator.estimate(stack))
    results.append(estimator.estimate(stack))
    ran_on = [result.report["ran_on"]["cost volume"] for result in results]
    assert ran_on == ["cpu, 1 threads", "cpu, 2 threads", "cpu, 1 threads"]
    for result in results[1:]:
        np.testing.assert_array_equal(result.depth_m, results[0].depth_m)


def test_stacks_after_each_other_are_those_of_one_camera(parallel: ParallelEstimator) -> None:
    """Judged, fitted and looked over for their range at first, then no more, in whichever process."""
    config = Config.from_dict({"network": {"name": "none"}, "processing": {"threads": 1}})
    both = [ParallelEstimator(config, 2), DepthEstimator(config, one_camera=True)]
    stack = plane_stack(0.9)
    results = [[estimator.estimate(stack, sharpen=False) for _ in range(3)] for estimator in both]
    for several, one in zip(*results, strict=True):
        np.testing.assert_array_equal(several.depth_m, one.depth_m)
        assert several.report["aperture"] == one.report["aperture"]
        assert several.report["hypotheses_m"] == one.report["hypotheses_m"]
        assert ("range" in several.report["seconds"]) == ("range" in one.report["seconds"])
    assert "range" in results[0][0].report["seconds"] and "range" not in results[0][2].report["seconds"]


def test_a_stack_waits_for_the_first_of_its_camera() -> None:
    """Which has to tell the aperture: both stacks, begun at once, have that of the first."""
    config = Config.from_dict({"network": {"name": "none"}, "processing": {"threads": 1}})
    wrong = replace(CAMERA, f_number=1.15 * CAMERA.f_number)
    stack = replace(plane_stack(0.9), camera=wrong)
    expected = DepthEstimator(config, one_camera=True).estimate(stack, sharpen=False).report["aperture"]
    estimator = ParallelEstimator(config, 2)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda s: estimator.estimate(s, sharpen=False), [stack, stack]))
    assert expected["measured"] != 1.0
    assert [result.report["aperture"] for result in results] == [expected, expected]


def test_a_later_fit_of_the_aperture_keeps_no_stack_waiting() -> None:
    """The fourth stack has the aperture of the first; what is fitted beside it comes to a later one."""
    config = Config.from_dict({"network": {"name": "none"}, "processing": {"threads": 1}})
    stacks = [plane_stack(depth_m) for depth_m in (0.9, 0.9, 0.9, 1.0)]
    one = DepthEstimator(config, one_camera=True)
    alone = [one.estimate(stack, sharpen=False).report for stack in stacks]
    assert [r["aperture"] == alone[0]["aperture"] for r in alone] == [True, True, True, False]
    estimator = ParallelEstimator(config, 2)
    several = [estimator.estimate(stack, sharpen=False).report for stack in stacks]
    assert [r["aperture"] for r in several] == [alone[0]["aperture"]] * 4
    deadline = time.monotonic() + PATIENCE_S
    while (newest := estimator.estimate(stacks[3], sharpen=False).report["aperture"]) == alone[0]["aperture"]:
        assert time.monotonic() < deadline
    assert newest == alone[3]["aperture"]


def test_errors_are_those_of_the_estimator(parallel: ParallelEstimator) -> None:
    parallel.config = CONFIG.updated({"hypotheses": {"min_depth_m": 0.01, "max_depth_m": 0.02}})
    with pytest.raises(ValueError, match=r"hypotheses: this sweep can tell depths of .* received 0\.01 and 0\.02"):
        parallel.estimate(plane_stack(0.8))
    parallel.config = CONFIG
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        ParallelEstimator(CONFIG.updated({"network": {"name": "nowhere.safetensors"}}), 2)


def test_what_progress_raises_ends_the_wait(parallel: ParallelEstimator) -> None:
    class Stop(Exception):
        pass

    def stop(step: str, share_done: float) -> None:
        raise Stop

    slow = parallel.config.updated({"hypotheses": {"count": 256}})
    parallel.config, before = slow, parallel.config
    with pytest.raises(Stop):
        parallel.estimate(plane_stack(0.8, times=4), progress=stop)
    parallel.config = before
    assert np.nanmedian(parallel.estimate(plane_stack(0.8)).depth_m) == pytest.approx(0.8, rel=0.03)


def test_a_process_that_ends_fails_one_stack_and_is_replaced() -> None:
    before = processes()
    estimator = ParallelEstimator(CONFIG, 2)
    estimator.estimate(plane_stack(0.8))
    for process in processes():
        if process not in before:
            os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="a process of the estimator ended; is there enough memory"):
        for _ in range(100):
            estimator.estimate(plane_stack(0.8))
            time.sleep(0.01)
    assert np.nanmedian(estimator.estimate(plane_stack(0.8)).depth_m) == pytest.approx(0.8, rel=0.03)


def test_no_process_is_left_without_an_estimator() -> None:
    before = processes()
    estimator = ParallelEstimator(CONFIG, 2)
    own = [process for process in processes() if process not in before]
    assert own
    del estimator
    _, alive = psutil.wait_procs(own, PATIENCE_S)
    assert alive == []


OWNER = """
import os, sys
from dfs_ros.config import Config
from dfs_ros.estimator.parallel import ParallelEstimator
if __name__ == "__main__":
    estimator = ParallelEstimator(Config.from_dict({"network": {"name": "none"}}), 2)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_script_without_a_guard_of_its_main_module_is_run_once(tmp_path: Path) -> None:
    """As the executables are that colcon installs."""
    script = tmp_path / "owner.py"
    script.write_text(OWNER.replace('if __name__ == "__main__":', "if True:"), encoding="utf-8")
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_its_node(ending: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER, encoding="utf-8")
    command = [sys.executable, str(script)]
    owner = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
    own = psutil.Process(owner.pid).children()
    assert own
    if ending == signal.SIGKILL:
        owner.kill()
    else:
        os.killpg(owner.pid, signal.SIGINT)  # as Ctrl-C in a terminal: to all of them
    _, alive = psutil.wait_procs(own, PATIENCE_S)
    said = owner.communicate()[1]
    assert alive == []
    assert said.count("Traceback") <= (ending == signal.SIGINT), said  # of the owner alone


def test_a_log_record_of_a_process_reaches_the_log_here(
    parallel: ParallelEstimator, caplog: pytest.LogCaptureFixture
) -> None:
    """Of an alignment that leaves an image out."""
    stack = plane_stack(0.8)
    noise = np.random.default_rng(0).integers(0, 255, stack.images.shape[1:], np.uint8)
    images = stack.images.copy()
    images[-1] = noise
    config = Config.from_dict({"network": {"name": "none"}, "processing": {"threads": 1}})
    with caplog.at_level(logging.DEBUG, "dfs_ros"):
        alone = DepthEstimator(config, one_camera=True).estimate(replace(stack, images=images))
        expected = [(r.name, r.getMessage()) for r in caplog.records]
        caplog.clear()
        several = ParallelEstimator(config, 2).estimate(replace(stack, images=images))
    assert several.report["warnings"] == alone.report["warnings"]
    assert [(r.name, r.getMessage()) for r in caplog.records] == expected

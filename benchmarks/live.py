"""Throughput of the estimator behind a camera: rate, latency, missed images, memory.

A camera delivers images at a fixed rate, each with the next focus; every image completes a sliding stack. Like the
depth node, the estimator takes the newest image when it is ready and misses those in between. Latency counts from the
image to its depth. At rate 0 the next image is always there, which gives the highest rate of the machine.

``python -m benchmarks.live CASE`` measures one case in a separate process; case and result are JSON.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from benchmarks.speed import peak_bytes
from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera, DepthResult, FocalStack

_CAMERA = Camera(0.008, 1.4, 6e-6)
_NEAREST_FOCUS, _FARTHEST_FOCUS = 2.2, 0.5  # dioptres
_DEPTH_M = 0.9


@dataclass(frozen=True)
class LiveCase:
    """Case: settings of the estimator, and image rates, each measured for `seconds`.

    `runner` `none` is the regularised minimum; others as in :class:`dfs_ros.config.NetworkConfig`, with the default
    network. Other settings are the defaults.
    """

    device: str = "cpu"
    runner: str = "torch"
    height: int = 256
    width: int = 256
    images: int = 5
    hypotheses: int = 64
    threads: int = 0
    rates_hz: tuple[float, ...] = (0.0, 5.0, 10.0, 30.0)
    seconds: float = 5.0
    sharpen: bool = False

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.device}, {self.runner}"


def cases_here(base: LiveCase, runners: Sequence[str]) -> list[LiveCase]:
    """Cases of the runners on each present device.

    A case that cannot run reports the reason when it is measured.
    """
    from dfs_ros.cost_volume import cuda

    cuda_here = cuda.why_not() is None
    cases = []
    for device in ("cpu", "cuda") if cuda_here else ("cpu",):
        for runner in runners:
            module = {"onnx": "onnxruntime"}.get(runner, runner)
            on_gpu_alone = runner.startswith("tensorrt")
            if runner == "none" or (importlib.util.find_spec(module) and (device == "cuda" or not on_gpu_alone)):
                cases.append(dataclasses.replace(base, device=device, runner=runner))
    return cases


def measure(case: LiveCase, timeout_s: float = 1200.0) -> dict[str, Any]:
    """Measure a case in a fresh process; `absent` holds the reason if it fails."""
    command = [sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(case))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return {"absent": f"not done after {timeout_s:g} s"}
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"absent": said[-1]}
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def measure_here(case: LiveCase) -> dict[str, Any]:
    """Measure a case in this process."""
    began = time.perf_counter()
    estimator = DepthEstimator(config_of(case), one_camera=True)
    camera = SweepingCamera(case)
    previous: list[DepthResult] = []

    def compute(newest: int) -> DepthResult:
        stack, reference = camera.stack(newest)
        before = previous[-1].alignment if previous else None
        previous[:] = [estimator.estimate(stack, reference=reference, initial_alignment=before, sharpen=case.sharpen)]
        return previous[-1]

    # Two sweeps of warm-up: build engines, record graphs, fill caches.
    first = compute(case.images - 1)
    ready_s = time.perf_counter() - began
    for newest in range(case.images, 3 * case.images):
        last = compute(newest)
    rates = [follow(compute, 3 * case.images, rate, case.seconds) for rate in case.rates_hz]
    return {
        "ran_on": last.report["ran_on"],
        "first_depth_after_s": ready_s,
        "first_steps_s": first.report["seconds"],
        "rates": rates,
        "memory_mb": {
            "cpu": psutil.Process().memory_info().rss / 1e6,
            "cpu_peak": peak_bytes() / 1e6,
            **gpu_memory_mb(),
        },
        "network_faults": [fault.text for fault in estimator.network_faults],
        "warnings": last.report["warnings"],
        "depth_m": float(np.nanmedian(last.depth_m)),
    }


def follow(
    compute: Callable[[int], DepthResult],
    first: int,
    rate_hz: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Follow a camera with images `first`, `first` + 1 ... at a rate (0: on demand).

    Returns `offered` and `missed` images, the mean rate of depth, the standard deviation of its intervals (jitter), the
    first, last, median and largest latency, and the mean seconds and the share of each step.
    """
    began = clock()
    following, missed = first, 0
    done_s, latencies, steps = [began], [], defaultdict(list)
    while clock() - began < seconds:
        newest = following
        if rate_hz > 0:
            came = math.floor((clock() - began) * rate_hz) + first
            newest = max(following, came)
            wait = began + (newest - first) / rate_hz - clock()
            if wait > 0:
                sleep(wait)
        arrived = began + (newest - first) / rate_hz if rate_hz > 0 else clock()
        missed += newest - following
        result = compute(newest)
        following = newest + 1
        done_s.append(clock())
        latencies.append(done_s[-1] - arrived)
        for step, spent in result.report["seconds"].items():
            steps[step].append(spent)
    intervals = np.diff(done_s)
    mean_steps = {step: float(np.sum(spent) / len(latencies)) for step, spent in steps.items() if step != "total"}
    total = sum(mean_steps.values()) or 1.0
    return {
        "input_hz": rate_hz,
        "depth_hz": len(latencies) / (done_s[-1] - began),
        "jitter_s": float(intervals.std()) if len(intervals) > 1 else 0.0,
        "latency_s": {
            "first": latencies[0],
            "last": latencies[-1],
            "median": float(np.median(latencies)),
            "most": max(latencies),
        },
        "offered": following - first,
        "missed": missed,
        "steps_s": mean_steps,
        "shares": {step: spent / total for step, spent in mean_steps.items()},
    }


class SweepingCamera:
    """Camera with a cyclic focus sweep before a plane at 0.9 m; all images differ."""

    def __init__(self, case: LiveCase) -> None:
        self._count = case.images
        focus = np.linspace(_NEAREST_FOCUS, _FARTHEST_FOCUS, case.images)
        scene = plane_scene(_DEPTH_M, case.width, case.height)
        self._sweep = render_stack(scene.rgb, scene.depth_m, _CAMERA, focus, rng=1)

    def stack(self, newest: int) -> tuple[FocalStack, int]:
        """Stack completed by image `newest`, and the index of that image in it."""
        images = self._sweep.images.copy()
        for image in range(newest - self._count + 1, newest + 1):
            images[image % self._count, 0, 0] = (image & 255, image >> 8 & 255, image >> 16 & 255)
        return dataclasses.replace(self._sweep, images=images), newest % self._count


def config_of(case: LiveCase) -> Config:
    """Settings of a case."""
    network = {"name": "none"} if case.runner == "none" else {"runner": case.runner}
    return Config.from_dict(
        {
            "network": network,
            "hypotheses": {"count": case.hypotheses},
            "processing": {"device": case.device, "threads": case.threads},
            "stack": {"mode": "sliding"},
        }
    )


def gpu_memory_mb() -> dict[str, float | None]:
    """Peak of tensors, and use of the whole device, in MB; None without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {"gpu_tensors_peak": None, "gpu_device": None}
    free, total = torch.cuda.mem_get_info()
    return {"gpu_tensors_peak": torch.cuda.max_memory_allocated() / 1e6, "gpu_device": (total - free) / 1e6}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(measure_here(LiveCase(**{**given, "rates_hz": tuple(given["rates_hz"])}))))

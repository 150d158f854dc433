"""Times of the CUDA path by the device's clock: volumes, network, frames to depth."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch

from benchmarks.gpu import floor_of, rendered_planes, textured_problem
from benchmarks.gpu_alignment import moving_problem
from benchmarks.memory_plan import planned_depth_bytes, planned_volume_bytes
from dfs_ros.alignment.align import aligned_as_is
from dfs_ros.config import Config, CostConfig
from dfs_ros.cost_volume.cuda import moving
from dfs_ros.cost_volume.cuda.driver import Kernels
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.cuda.graphs import CudaGraphs
from dfs_ros.cost_volume.moving import moving_stack
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.estimator.gpu import GpuSteps
from dfs_ros.estimator.observed import ObservedSteps
from dfs_ros.network import Network
from dfs_ros.network.export import Shape, golden_inputs
from dfs_ros.network.runners.base import RunnerError
from dfs_ros.network.runners.choose import golden_of, make_runner
from dfs_ros.network.weights import load_weights, model_file
from dfs_ros.pipeline import Steps, infer
from dfs_ros.system.transfers import uploaded

_COPY_BYTES = 1 << 30
_WARM_UP = 5

OTHER_RUNNERS = (
    ("tensorrt", "fp16"),
    ("tensorrt", "fp32"),
    ("onnx", "fp32"),
    ("tensorrt_rtx", "fp16"),
    ("tensorrt_rtx", "fp32"),
)
"""Runners beside PyTorch, and precisions."""


def time_ms(work: Callable[[], object], repeats: int = 50) -> dict[str, float]:
    """Median, least and largest time in ms after a warm-up.

    Measured by events of the device; without a device, by the host's clock.
    """
    for _ in range(_WARM_UP):
        work()
    if torch.cuda.is_available():
        event: Callable[..., Any] = torch.cuda.Event
        events = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(repeats)]
        for begin, end in events:
            begin.record()
            work()
            end.record()
        torch.cuda.synchronize()
        times = [begin.elapsed_time(end) for begin, end in events]
    else:
        times = host_times_ms(work, repeats)
    return {"median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times)}


def host_times_ms(work: Callable[[], object], repeats: int) -> list[float]:
    """Time of every call in ms, by the host's clock; `work` must wait for its result."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def copy_bandwidth(device: torch.device) -> float:
    """Bandwidth of a copy on the device in bytes/s, reads and writes counted."""
    source = torch.empty(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _COPY_BYTES / (time_ms(lambda: target.copy_(source), 20)["median_ms"] * 1e-3)


def measure_volume(
    problem: Problem, kernels: Kernels, device: torch.device, bandwidth: float, repeats: int
) -> dict[str, Any]:
    """Time and memory of a volume from frames on the device, beside its floor.

    The kernels are launched one by one, then as a CUDA graph.
    """
    with torch.inference_mode():
        images = uploaded(problem.stack.images, device)
        engine = Engines(kernels, device).of(problem)

        def volume(graphs: CudaGraphs | None = None) -> torch.Tensor:
            return engine.volume(engine.spectra(images), problem.coc_px, graphs)

        before = _used(device)
        volume()
        result: dict[str, Any] = {"planned_mb": planned_volume_bytes(problem) / 1e6, **_growth(device, before)}
        result["eager"] = time_ms(volume, repeats)
        graphs = CudaGraphs()
        result["graph"] = time_ms(lambda: volume(graphs), repeats)
        result["profile_us"] = profile(volume)
    if problem.cost.method == "residual":
        floor = floor_of(problem)
        best_s = 1e-3 * min(result[way]["median_ms"] for way in ("eager", "graph"))
        result["floor"] = {**asdict(floor), "at_copy_bandwidth_ms": 1e3 * floor.bytes / bandwidth}
        result["bytes_per_s"], result["operations_per_s"] = floor.bytes / best_s, floor.operations / best_s
    return result


def measure_moving(kernels: Kernels, device: torch.device, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Time and memory of the volume of a moving camera, luma, from frames on the device."""
    problem = moving_problem(size, 64)
    with torch.inference_mode():
        source, engines = uploaded(moving_stack(problem).source, device), Engines(kernels, device)

        def volume() -> torch.Tensor:
            return moving.cost_volume(problem, source, engines)

        before = _used(device)
        volume()
        return {**_growth(device, before), "eager": time_ms(volume, repeats), "profile_us": profile(volume)}


def profile(work: Callable[[], object], repeats: int = 10) -> dict[str, float]:
    """Time of each kernel in one call in us, largest first; empty without a GPU."""
    if not torch.cuda.is_available():
        return {}
    work()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(repeats):
            work()
        torch.cuda.synchronize()
    spent = {
        event.key: float(getattr(event, "device_time_total", 0.0) or getattr(event, "cuda_time_total", 0.0)) / repeats
        for event in profiler.key_averages()
    }
    return dict(sorted(((k, round(v, 1)) for k, v in spent.items() if v > 0), key=lambda item: -item[1]))


def measure_network(
    network: str, runner: str, precision: str, shape: tuple[int, int, int], device: torch.device, repeats: int
) -> dict[str, Any]:
    """Measure a runner of a network of models/ with tensors in and out: time, and difference from the reference.

    `shape`: hypotheses, height, width. `absent` holds the reason if it cannot run.
    """
    module, sizes = load_weights(model_file(network)), Shape(*shape)
    try:
        made = make_runner(module, runner, device.type, precision)
        tensors = [uploaded(array, device) for array in golden_inputs(sizes)]
        answer = made.run_tensors(*tensors).cpu().numpy()
    except (ValueError, RunnerError) as error:
        return {"absent": str(error)}
    golden = golden_of(module, sizes, "fp16" if precision == "fp16" else "fp32")
    return {
        "ran": made.description,
        "difference": golden.difference(answer),
        "tolerance": golden.tolerance,
        "faults": [fault.text for fault in made.faults if fault.level != "note"],
        **time_ms(lambda: made.run_tensors(*tensors), repeats),
    }


def loaded(network: str, runner: str, device: torch.device) -> Network | None:
    """A network of models/ in a runner; None for `none`."""
    if network == "none":
        return None
    return Network(network, make_runner(load_weights(model_file(network)), runner, device.type))


def measure_live(
    device: torch.device, size: tuple[int, int], network: str, repeats: int, *, shaken: bool = False
) -> dict[str, Any]:
    """Time from the images of a stack to its result, whose stacks share all frames but one.

    The whole estimator with default settings: alignment and all-in-focus image too. `shaken`: by a hand, whose motions
    are refined by the first depth. Steps: medians.
    """
    settings = {"stack": {"mode": "sliding"}, "network": {"name": network, "runner": "torch"}}
    config = Config.from_dict({**settings, "processing": {"device": device.type}})
    estimator = DepthEstimator(config, one_camera=True)
    before = _used(device)
    stack, noise = rendered_planes(size), np.random.default_rng(0)
    images, stamps, last = stack.images.copy(), 1 + np.arange(len(stack)), None
    times, steps = [], []
    for turn in range(_WARM_UP + repeats):
        changed = turn % len(stack)
        images[changed] = np.clip(stack.images[changed] + noise.normal(0.0, 1.0, images[0].shape), 0, 255)
        if shaken:
            images[changed] = np.roll(images[changed], tuple(noise.integers(-3, 4, 2)), (0, 1))
        stamps[changed] += len(stack)
        shot = dataclasses.replace(stack, images=images.copy(), stamp_ns=stamps.copy())
        begin = time.perf_counter()
        result = estimator.estimate(shot, initial_alignment=last)
        times.append(1e3 * (time.perf_counter() - begin))
        steps.append(result.report["seconds"])
        last = result.alignment
    times, steps = times[_WARM_UP:], steps[_WARM_UP:]
    return {
        **_growth(device, before),
        "network": estimator.network,
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "steps_ms": {name: 1e3 * statistics.median(s.get(name, 0.0) for s in steps) for name in steps[-1]},
        "coverage": result.coverage,
    }


def measure_end_to_end(
    network: Network | None,
    kernels: Kernels,
    device: torch.device,
    size: tuple[int, int],
    repeats: int,
    hypotheses: int = 64,
) -> dict[str, Any]:
    """Time from uint8 frames to depth, both on the host, with default settings.

    Alignment, which is the host's, and the all-in-focus image are left out.
    """
    config = Config.from_dict({})
    problem = textured_problem(CostConfig(), size, 5, hypotheses)
    steps = GpuSteps(kernels, device, network, graphs=CudaGraphs())
    aligned = aligned_as_is(problem.stack, reference=2)

    def frames_to_depth() -> tuple[Any, dict[str, float]]:
        observed = ObservedSteps(steps, None)
        with steps.current():
            planes = observed.download(infer(aligned, problem.depths_m, config, cast(Steps, observed)))
            return planes, observed.seconds()

    before = _used(device)
    for _ in range(_WARM_UP):
        planes, _ = frames_to_depth()
    result = {"planned_mb": planned_depth_bytes(problem) / 1e6, **_growth(device, before)}
    times = host_times_ms(frames_to_depth, repeats)
    _, seconds = frames_to_depth()
    return {
        **result,
        "network": "none" if network is None else network.description,
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "steps_ms": {step: 1e3 * s for step, s in seconds.items()},
        "depth_finite": bool(np.isfinite(planes[0]).all()),
        "profile_us": profile(frames_to_depth),
    }


def _used(device: torch.device) -> tuple[int, int]:
    """Bytes in tensors and free bytes of the device, after emptying torch's cache."""
    if device.type != "cuda":
        return 0, 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]


def _growth(device: torch.device, before: tuple[int, int]) -> dict[str, float | None]:
    """Growth since `before` in MB: peak of the tensors, and use of the device.

    The device's figure includes workspaces and the allocator's reserve.
    """
    if device.type != "cuda":
        return {"peak_tensor_mb": None, "device_mb": None}
    torch.cuda.synchronize()
    return {
        "peak_tensor_mb": (torch.cuda.max_memory_allocated() - before[0]) / 1e6,
        "device_mb": (before[1] - torch.cuda.mem_get_info()[0]) / 1e6,
    }

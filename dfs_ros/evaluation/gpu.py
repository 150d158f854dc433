"""Checks and measurements of the CUDA path on a machine with a GPU: parity, memory, time beside a counted floor.

The least is counted: bytes that must go through memory when every stage reads its input and writes its output once (a
2-D FFT twice), and operations. Over the bandwidth of a copy measured on the same card it is a floor for memory; what
stays in the L2 cache may go under it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dfs_ros import optics, regularization
from dfs_ros.config import Config, CostConfig
from dfs_ros.cost_volume import cuda, reference
from dfs_ros.cost_volume.confidence import bound_and_scale
from dfs_ros.cost_volume.problem import Problem, make_problem
from dfs_ros.types import Camera, FocalStack

METHODS = ("residual", "released", "paper")
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3}
_CAMERA = Camera(focal_length_m=0.015, f_number=2.8, pixel_pitch_m=11.2e-6)
_COPY_BYTES = 1 << 30

Volume = NDArray[Any]
Compute = Callable[..., Volume]
"""``compute(problem, **settings)``: a volume on the host; settings as :func:`dfs_ros.cost_volume.cuda.cost_volume`."""


@dataclass(frozen=True)
class Comparison:
    """One volume against the reference; `error` is the norm of the difference over the norm of what is expected."""

    case: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Within the tolerance; NaN is not."""
        return self.error <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class Floor:
    """What a volume must at least take."""

    bytes: int
    operations: int


def textured_problem(
    cost: CostConfig, size: tuple[int, int], images: int, hypotheses: int, *, grey: bool = False, darker: int = 1
) -> Problem:
    """A problem with random texture at two scales; the time does not depend on what the images show.

    `darker`: pixel values are divided by this.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (images, -(-size[0] // 8), -(-size[1] // 8), 3))
    stack = np.kron(coarse, np.ones((1, 8, 8, 1), int))[:, : size[0], : size[1]] + rng.integers(
        0, 56, (images, *size, 3)
    )
    pixels = np.ascontiguousarray((stack[..., 0] if grey else stack) // darker, np.uint8)
    focal_stack = FocalStack(pixels, np.linspace(2.0, 0.1, images), _CAMERA)
    depths_m = optics.depth_hypotheses(0.4, 8.0, hypotheses) if hypotheses > 1 else np.array([0.8])
    return make_problem(focal_stack, depths_m, cost)


def compare(case: str, volume: Volume, expected: Volume, tolerance: float) -> Comparison:
    """A volume against what is expected; another shape is infinitely wrong."""
    if volume.shape != expected.shape:
        return Comparison(case, float("inf"), tolerance)
    difference = np.linalg.norm(volume.astype(np.float64) - expected)
    return Comparison(case, float(difference / np.linalg.norm(expected)), tolerance)


def check_parity(compute: Compute, methods: Sequence[str] = METHODS) -> list[Comparison]:
    """Every method, precision and output against the float64 reference, for many sizes and settings."""
    cases: list[tuple[tuple[int, int], int, int, bool, dict[str, Any]]] = [
        ((33, 47), 2, 5, False, {}),
        ((48, 31), 5, 9, True, {}),
        ((51, 90), 16, 3, False, {"psf": "gaussian", "window_sigma_px": 2.7}),
        ((36, 40), 4, 1, False, {"window_sigma_px": 20.0, "padding_px": 40, "channels": "luma"}),
        ((40, 64), 3, 128, False, {"psf": "table", "max_coc_px": 15.0}),
    ]
    results = []
    for method in methods:
        for size, images, hypotheses, grey, extra in cases:
            problem = textured_problem(
                CostConfig(**{"method": method, "channels": "rgb", **extra}), size, images, hypotheses, grey=grey
            )
            expected = reference.cost_volume(problem)
            name = f"{method} {size[1]}x{size[0]}x{images}x{hypotheses}{' grey' if grey else ''} {extra or ''}".strip()
            for dtype, tolerance in TOLERANCE.items():
                label = f"{name} {str(dtype).removeprefix('torch.')}"
                results.append(compare(label, compute(problem, dtype=dtype), expected, tolerance))
        # So dark that the bounded cost is not 1 everywhere.
        problem = textured_problem(CostConfig(method=method), (40, 54), 3, 6, darker=24)
        cost = reference.cost_volume(problem).astype(np.float32)
        energy, bounded = regularization.log_energy(cost, method), bound_and_scale(cost)
        for dtype, tolerance in TOLERANCE.items():
            label = f"{method} {str(dtype).removeprefix('torch.')}"
            log_volume = compute(problem, dtype=dtype, output="log_energy")
            results.append(compare(f"{label} log_energy", log_volume, energy, tolerance))
            # Scaling enlarges rounding where a pixel's costs hardly differ.
            bounded_volume = compute(problem, dtype=dtype, output="bounded")
            results.append(compare(f"{label} bounded", bounded_volume, bounded, max(tolerance, 1e-3)))
    return results


def floor_of(problem: Problem) -> Floor:
    """Bytes and operations of a `residual` volume in float32, spectra of the frames at hand."""
    frames, channels, depths = len(problem.stack), problem.channel_count, len(problem.depths_m)
    height, width = problem.padded_size
    plane, bins = height * width, height * (width // 2 + 1)
    pixels = problem.stack.size[0] * problem.stack.size[1]
    pairs = (frames * channels + 1) // 2
    taps = 2 * int(4.0 * problem.cost.window_sigma_px + 0.5) + 1
    # Residual spectra written; FFT: two passes, each reads and writes; squares read; rows written and read; volume.
    each = 8 * pairs * plane + 32 * pairs * plane + 8 * pairs * pixels + 8 * pixels + 4 * pixels
    fft = round(5 * plane * np.log2(plane)) * pairs
    # Transfer function 12, sums 4 + 2, subtraction 4 for each colour; squares 4 for each pair; window twice.
    arithmetic = bins * frames * (14 + 10 * channels) + pixels * (4 * pairs + 4 * taps)
    return Floor(8 * frames * channels * bins + depths * each, depths * (fft + arithmetic))


def time_ms(work: Callable[[], object], repeats: int = 50) -> dict[str, float]:
    """Median, least and largest milliseconds on the device, by events, after a warm-up."""
    for _ in range(5):
        work()
    event: Callable[..., Any] = torch.cuda.Event
    events = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in events:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize()
    times = [begin.elapsed_time(end) for begin, end in events]
    return {"median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times)}


def copy_bandwidth() -> float:
    """Bytes a second of a copy on the device, read and written both counted."""
    source = torch.empty(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * _COPY_BYTES / (time_ms(lambda: target.copy_(source), 20)["median_ms"] * 1e-3)


def measure_volume(problem: Problem, bandwidth: float, repeats: int) -> dict[str, Any]:
    """Time of a volume from frames on the device, eager and as a CUDA graph, beside its floor; peak memory."""
    images = torch.from_numpy(problem.stack.images).cuda()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    free_before = torch.cuda.mem_get_info()[0]
    result: dict[str, Any] = {"eager": time_ms(lambda: cuda.cost_volume(problem, images=images), repeats)}
    result["peak_tensor_mb"] = (torch.cuda.max_memory_allocated() - before) / 1e6
    # With the workspaces of cuFFT and what the allocator holds in reserve.
    result["device_mb"] = (free_before - torch.cuda.mem_get_info()[0]) / 1e6
    result["graph"] = time_ms(lambda: cuda.cost_volume(problem, images=images, graph=True), repeats)
    if problem.cost.method == "residual":
        floor = floor_of(problem)
        result["floor"] = {**asdict(floor), "at_copy_bandwidth_ms": 1e3 * floor.bytes / bandwidth}
    return result


def profile_volume(problem: Problem, repeats: int = 10) -> dict[str, float]:
    """Microseconds of each kernel in one volume, as the profiler sees it, most first."""
    images = torch.from_numpy(problem.stack.images).cuda()
    cuda.cost_volume(problem, images=images)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(repeats):
            cuda.cost_volume(problem, images=images)
        torch.cuda.synchronize()
    spent = {
        event.key: float(getattr(event, "device_time_total", 0.0) or getattr(event, "cuda_time_total", 0.0)) / repeats
        for event in profiler.key_averages()
    }
    return dict(sorted(((k, round(v, 1)) for k, v in spent.items() if v > 0), key=lambda item: -item[1]))


def guided_filter(volume: Tensor, guide: Tensor, radius_px: int, eps: float) -> Tensor:
    """:func:`dfs_ros.regularization.guided_filter` of tensors, (D, H, W) with the guide (H, W)."""
    if radius_px == 0:
        return volume

    def mean(planes: Tensor) -> Tensor:
        # The edge repeated, as OpenCV's reflection has it, which torch's lacks.
        for axis in (1, 2):
            before = planes.narrow(axis, 0, radius_px).flip(axis)
            after = planes.narrow(axis, planes.shape[axis] - radius_px, radius_px).flip(axis)
            planes = torch.cat([before, planes, after], axis)
        return F.avg_pool2d(planes[None], 2 * radius_px + 1, stride=1)[0]

    guide = guide[None]
    guide_mean = mean(guide)
    scale = 1.0 / ((mean(guide * guide) - guide_mean * guide_mean).clamp(min=0.0) + eps)
    cost_mean = mean(volume)
    a = (mean(guide * volume) - guide_mean * cost_mean) * scale
    return mean(a) * guide + mean(cost_mean - a * guide_mean)


def depth_on_device(problem: Problem, module: torch.nn.Module, images: Tensor, energy: Tensor) -> Tensor:
    """Depth (H, W) in metres by the network, from images uint8 (F, H, W, 3) and log energy (D, H, W) on the device.

    Height and width must fit the network.
    """
    from dfs_ros.network.readout_torch import median_and_spread

    settings = Config().regularization
    guide = images.float().mean(dim=(0, 3)) / 255.0
    smoothed = guided_filter(energy, guide, settings.guided_radius_px, settings.guided_eps)
    planes = torch.cat([guide[None], images[len(images) // 2].permute(2, 0, 1).float() / 255.0])
    index = median_and_spread(module(energy[None], smoothed[None], planes[None]))[0][0]
    diopters = torch.as_tensor(1.0 / problem.depths_m, dtype=torch.float32, device=energy.device)
    below = index.long().clamp(max=len(diopters) - 2)
    return 1.0 / torch.lerp(diopters[below], diopters[below + 1], index - below)

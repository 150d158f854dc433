"""Checks of the CUDA path, and lower bounds of its time; gpu_speed.py measures it.

Everything runs on the CPU as well, with the host build of the kernels, so that tests cover the checks themselves.

Lower bounds are counted: bytes through memory if each stage reads its input and writes its output once (a 2-D FFT
twice), and operations. Bytes over the copy bandwidth measured on the same card bound the time; data that stays in the
L2 cache may beat the bound.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dfs_ros.config import CostConfig, RegularizationConfig
from dfs_ros.cost_volume import reference
from dfs_ros.cost_volume.bounding import bound_and_scale
from dfs_ros.cost_volume.energy import log_energy
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.cost_volume.problem import Problem, make_problem
from dfs_ros.depth import regularization
from dfs_ros.depth.cuda import Aggregation
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.system.transfers import uploaded
from dfs_ros.types import Camera, FocalStack

METHODS = ("residual", "released", "paper")
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3}
_CAMERA = Camera(focal_length_m=0.015, f_number=2.8, pixel_pitch_m=11.2e-6)

Volume = NDArray[Any]
Compute = Callable[..., Volume]
"""``compute(problem, **settings)``: a volume on the host; settings as :func:`dfs_ros.cost_volume.cuda.cost_volume`."""


@dataclass(frozen=True)
class Comparison:
    """Comparison with the reference; `error` is relative, norm over norm."""

    case: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """True if the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class Floor:
    """Lower bounds of a volume: bytes through memory, operations."""

    bytes: int
    operations: int


def textured_problem(
    cost: CostConfig, size: tuple[int, int], images: int, hypotheses: int, *, grey: bool = False, darker: int = 1
) -> Problem:
    """Problem with random texture at two scales; its time does not depend on the images.

    `darker`: divisor of the pixel values.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (images, -(-size[0] // 8), -(-size[1] // 8), 3))
    stack = np.kron(coarse, np.ones((1, 8, 8, 1), int))[:, : size[0], : size[1]] + rng.integers(
        0, 56, (images, *size, 3)
    )
    pixels = np.ascontiguousarray((stack[..., 0] if grey else stack) // darker, np.uint8)
    focal_stack = FocalStack(pixels, np.linspace(2.0, 0.1, images), _CAMERA)
    depths_m = depth_hypotheses(0.4, 8.0, hypotheses) if hypotheses > 1 else np.array([0.8])
    return make_problem(focal_stack, depths_m, cost)


def compare(case: str, volume: Volume, expected: Volume, tolerance: float) -> Comparison:
    """Compare a volume with the expected one; another shape has infinite error."""
    if volume.shape != expected.shape:
        return Comparison(case, float("inf"), tolerance)
    difference = np.linalg.norm(volume.astype(np.float64) - expected)
    return Comparison(case, float(difference / np.linalg.norm(expected)), tolerance)


@functools.cache
def parity_cases(method: str) -> tuple[tuple[str, Problem, tuple[tuple[str, Volume], ...]], ...]:
    """Problems of a method in many sizes and settings, each with its outputs by the float64 reference."""
    cases: list[tuple[tuple[int, int], int, int, bool, dict[str, Any]]] = [
        ((33, 47), 2, 5, False, {}),
        ((48, 31), 5, 9, True, {}),
        ((51, 90), 16, 3, False, {"psf": "gaussian", "window_sigma_px": 2.7}),
        ((36, 40), 4, 1, False, {"window_sigma_px": 20.0, "padding_px": 40, "channels": "luma"}),
        ((40, 64), 3, 128, False, {"psf": "table", "max_coc_px": 15.0}),
    ]
    made = []
    for size, images, hypotheses, grey, extra in cases:
        cost = CostConfig(**{"method": method, "channels": "rgb", **extra})
        problem = textured_problem(cost, size, images, hypotheses, grey=grey)
        name = f"{method} {size[1]}x{size[0]}x{images}x{hypotheses}{' grey' if grey else ''} {extra or ''}".strip()
        made.append((name, problem, (("cost", reference.cost_volume(problem)),)))
    # So dark that the bounded cost is not 1 everywhere.
    problem = textured_problem(CostConfig(method=method), (40, 54), 3, 6, darker=24)
    cost_volume = reference.cost_volume(problem).astype(np.float32)
    outputs = ("log_energy", log_energy(cost_volume, method)), ("bounded", bound_and_scale(cost_volume))
    return (*made, (method, problem, outputs))


def check_parity(compute: Compute, methods: Sequence[str] = METHODS) -> list[Comparison]:
    """Compare every method, precision and output with the float64 reference."""
    results = []
    for method in methods:
        for name, problem, outputs in parity_cases(method):
            for dtype, tolerance in TOLERANCE.items():
                for output, expected in outputs:
                    label = f"{name} {str(dtype).removeprefix('torch.')}{'' if output == 'cost' else ' ' + output}"
                    # Scaling enlarges rounding where a pixel's costs hardly differ.
                    within = max(tolerance, 1e-3) if output == "bounded" else tolerance
                    results.append(compare(label, compute(problem, dtype=dtype, output=output), expected, within))
    return results


def floor_of(problem: Problem) -> Floor:
    """Lower bounds of a `residual` volume in float32, from given spectra of the frames."""
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


def check_aggregation(aggregation: Aggregation, device: torch.device) -> list[Comparison]:
    """Compare guided filter, semi-global matching and readout with numpy, at several sizes."""
    from dfs_ros.depth import readout

    results = []
    rng = np.random.default_rng(0)
    for shape in ((5, 33, 47), (64, 64, 96), (300, 20, 31)):
        depths_m = depth_hypotheses(0.4, 8.0, shape[0])
        energy = (np.minimum(np.abs(rng.normal(0, 2, shape)), 4) - 5).astype(np.float32)
        guide = rng.random(shape[1:], np.float32)
        config = RegularizationConfig()
        aggregated = regularization.aggregated(energy, guide, config)
        smoothed = regularization.optimized(aggregated, guide, config)
        probability = regularization.probability_of(smoothed, config.sharpness)
        expected = (aggregated, smoothed, *readout.read_out(probability, depths_m))
        guide_there = uploaded(guide, device)
        found = (
            aggregation.aggregated(uploaded(energy, device), guide_there, config),
            aggregation.optimized(uploaded(aggregated, device), guide_there, config),
            *aggregation.read_out(uploaded(probability, device), depths_m),
        )
        for name, a, b in zip(("aggregated", "optimised", "depth", "sigma"), found, expected, strict=True):
            label = f"{name} {shape[2]}x{shape[1]}x{shape[0]}"
            # Sigma is a difference of nearly equal sums, which enlarges rounding.
            results.append(compare(label, a.cpu().numpy(), b, 1e-3 if name == "sigma" else TOLERANCE[torch.float32]))
    return results


def check_depth(found: Volume, expected: Volume) -> list[Comparison]:
    """Share of pixels with 1 % or more between two depths of the whole estimator, and their median difference.

    `expected` is that of the CPU. Ties between hypotheses and the threshold of known depth may fall either way.
    Infinite if half of the pixels or fewer are known in both.
    """
    known = np.isfinite(found) & np.isfinite(expected)
    apart = np.isfinite(found) != np.isfinite(expected)
    difference = np.abs(found[known] / expected[known] - 1.0)
    apart[known] |= difference > 0.01
    enough = known.mean() > 0.5
    share, median = (float(apart.mean()), float(np.median(difference))) if enough else (np.inf, np.inf)
    return [
        Comparison("depth of the whole estimator, share apart", share, 2e-3),
        Comparison("depth of the whole estimator, median", median, 1e-3),
    ]


def rendered_planes(size: tuple[int, int]) -> FocalStack:
    """Rendered stack (H, W) of two textured planes, at 0.6 m and 1.3 m."""
    height, width = size
    scene = plane_scene(1.0, width, height)
    depth = np.where(np.arange(width) < width // 2, 0.6, 1.3) * np.ones((height, 1))
    return render_stack(scene.rgb, depth, Camera(0.008, 1.4, 6e-6), (2.2, 1.7, 1.3, 0.9, 0.5), rng=1)

"""Comparison of what happens before the volume of a still camera, and of the volume of a moving one, with the host."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch

from benchmarks.gpu import Comparison, rendered_planes
from dfs_ros.alignment import refinement, refinement_torch
from dfs_ros.alignment.align import align
from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.alignment.operations import Operations
from dfs_ros.config import AlignmentConfig, CostConfig
from dfs_ros.cost_volume import moving
from dfs_ros.cost_volume.cuda import moving as moving_on_device
from dfs_ros.cost_volume.cuda.driver import Kernels
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.cuda.graphs import CudaGraphs
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.cost_volume.problem import Problem, make_problem
from dfs_ros.depth.energies import HostEnergies
from dfs_ros.depth.energies_cuda import DeviceEnergies
from dfs_ros.estimator.gpu import GpuSteps
from dfs_ros.system.transfers import uploaded
from dfs_ros.types import FocalStack

_APART_PX = 0.02
_SHARE = 0.01  # of values that may differ: positions that round to the other 32nd of a pixel, pixels at an outline


def shaken(stack: FocalStack, turn: int) -> FocalStack:
    """The stack as a hand takes it: images shifted by some pixels, the second one darker."""
    images = np.stack([np.roll(image, (k * turn % 3, k * turn % 5), (0, 1)) for k, image in enumerate(stack.images)])
    images[1] = images[1] // 10 * 9
    return dataclasses.replace(stack, images=images)


def moving_problem(size: tuple[int, int], hypotheses: int, channels: str = "luma") -> Problem:
    """Volume of a camera that moves sideways and a little forward, by 3 mm from image to image."""
    stack = rendered_planes(size)
    views = tuple(
        View(np.array([0.003, 0.001, 0.0005]) * (i - 2), log_scale=0.001 * (i - 2)) for i in range(len(stack))
    )
    own = {name: getattr(stack, name) for name in ("images", "focus_diopters", "camera")}
    followed = MovingStack(
        **own, source=stack.images, gains=np.linspace(0.9, 1.1, len(stack)), views=views, reference=2
    )
    return make_problem(followed, depth_hypotheses(0.4, 8.0, hypotheses), CostConfig(channels=channels))


def check_alignment(kernels: Kernels, device: torch.device, size: tuple[int, int]) -> list[Comparison]:
    """Compare registration, exposure, resampling, refinement and energies; computed, recorded and replayed."""
    steps = GpuSteps(kernels, device, None, graphs=CudaGraphs())
    config, results = AlignmentConfig(), []
    known: dict[str, Operations] = {"device": steps.operations, "host": Operations()}
    before = dict.fromkeys(known, None)
    for turn in range(3):
        stack = shaken(rendered_planes(size), turn)
        with steps.current():
            found, expected = (
                align(stack, config, reference=2, initial=before[of], operations=operations)
                for of, operations in known.items()
            )
            frames = {k: k for k in range(len(stack)) if k != 2}
            diopters = np.where(np.arange(size[1]) < size[1] // 2, 1 / 0.6, 1 / 1.3) * np.ones((size[0], 1))
            arguments = stack, expected, diopters.astype(np.float32), "srgb", frames, 2
            refined, refined_by_host = (
                fit(*arguments)
                for fit in (functools.partial(refinement_torch.fitted, upload=steps.upload), refinement.fitted)
            )
        before = {"device": found.estimates, "host": expected.estimates}
        apart = max(
            float(np.abs(m - n).max())
            for a, b in zip(found.estimates, expected.estimates, strict=True)
            for m, n in zip(a.motion.maps(size), b.motion.maps(size), strict=True)
        )
        gain = max(abs(a.gain / b.gain - 1.0) for a, b in zip(found.estimates, expected.estimates, strict=True))
        off = np.abs(found.stack.images.astype(int) - expected.stack.images) > 1
        results += [
            Comparison(f"registration in pixels, turn {turn}", apart, _APART_PX),
            Comparison(f"gain of exposure, turn {turn}", gain, 1e-3),
            Comparison(f"resampled, share off by over a grey level, turn {turn}", float(off.mean()), _SHARE),
            Comparison(f"pixels covered, turn {turn}", float((found.valid != expected.valid).mean()), _SHARE),
            Comparison(f"refinement in pixels, turn {turn}", _fits_apart_px(refined, refined_by_host, size), _APART_PX),
        ]
    return [*results, *check_energies(kernels, device, size), check_moving(kernels, device, size)]


def check_energies(kernels: Kernels, device: torch.device, size: tuple[int, int]) -> list[Comparison]:
    """Compare the energies by which range, aperture and motion are searched."""
    stack, depths_m = rendered_planes(size), depth_hypotheses(0.4, 8.0, 9)
    on_device = DeviceEnergies(kernels, device, functools.partial(uploaded, device=device))
    on_host, cost = HostEnergies(), CostConfig(channels="luma")
    pairs = {
        "energies": [of.volume(stack, depths_m, cost) for of in (on_device, on_host)],
        "least energies": [of.least(stack, depths_m, cost) for of in (on_device, on_host)],
    }
    return [
        Comparison(f"{name}, share off by 0.002", float((np.abs(a - b) > 2e-3).mean()), _SHARE)
        for name, (a, b) in pairs.items()
    ]


def check_moving(kernels: Kernels, device: torch.device, size: tuple[int, int]) -> Comparison:
    """Compare the volume of a moving camera, in all colours."""
    problem = moving_problem(size, 7, "rgb")
    source = uploaded(moving.moving_stack(problem).source, device)
    found = moving_on_device.cost_volume(problem, source, Engines(kernels, device)).cpu().numpy()
    apart = np.abs(np.log(found / moving.cost_volume(problem))) > 2e-3
    return Comparison("volume of a moving camera, share off by 0.002", float(apart.mean()), _SHARE)


def _fits_apart_px(found: refinement.Fits | None, expected: refinement.Fits | None, size: tuple[int, int]) -> float:
    """Largest difference of the parameters of any fit, in pixels at the image's edge."""
    if found is None or expected is None:
        return float("inf")
    apart = [
        np.abs(a.parameters - b.parameters).max()
        for i, fits in expected.models.items()
        for a, b in zip(found.models[i], fits, strict=True)
    ]
    return float(max(apart)) * max(size) / 2.0

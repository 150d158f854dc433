"""Ablation of the steps from cost volume to depth, without a network.

Like DDFS's table 2 and figure 10. The paper bounds its volume (tanh) and scales every pixel to [0, 1] over depth
before the network. Here these steps, and the logarithm that this package takes instead, go before the regularisation
of `--network none`, on the paper's volume and on ours; the number of hypotheses is varied, too. The raw argmin does
not change with steps that keep the order of a pixel's costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_research.evaluation import protocol
from dfs_research.evaluation.methods import make_method
from dfs_research.evaluation.protocol import FARTHEST_M, NEAREST_M
from dfs_research.evaluation.rendered import RenderedStack
from dfs_research.experiments.training import Say
from dfs_ros.config import Config, CostConfig, HypothesesConfig, RegularizationConfig
from dfs_ros.cost_volume import bound_and_scale, cost_volume_from_config
from dfs_ros.cost_volume.bounding import BOUND_C_MAX, BOUND_F1
from dfs_ros.cost_volume.energy import log_energy
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.cost_volume.problem import make_problem, noise_gain
from dfs_ros.depth import regularization
from dfs_ros.depth.guide import guide_image
from dfs_ros.depth.readout import at_index
from dfs_ros.io.markdown import markdown_table
from dfs_ros.scoring import metrics

Volume = NDArray[np.float32]

HYPOTHESES = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Step:
    """Row of the table: a volume, and the `energy` made of it before the regularisation."""

    volume: str
    name: str
    energy: Callable[[Volume, float], Volume]
    noise_normalized: bool = True


def _as_it_is(misfit: Volume, unused: float) -> Volume:
    return misfit


def _bounded(misfit: Volume, c_max: float) -> Volume:
    return np.asarray(np.tanh(np.float32(math.atanh(BOUND_F1) / c_max) * misfit))


def _scaled(misfit: Volume, unused: float) -> Volume:
    low = misfit.min(axis=0)
    return np.asarray((misfit - low) / (misfit.max(axis=0) - low + np.float32(1e-8)))


def _bounded_and_scaled(misfit: Volume, c_max: float) -> Volume:
    # The bound assumes values up to BOUND_C_MAX.
    return bound_and_scale(misfit * np.float32(BOUND_C_MAX / c_max))


def _logarithm(misfit: Volume, unused: float) -> Volume:
    return log_energy(misfit * misfit, "residual")


_PLAIN_STEPS = tuple(
    Step(volume, name, energy)
    for volume in ("paper", "residual")
    for name, energy in (
        ("as it is", _as_it_is),
        ("outlier bound", _bounded),
        ("normalised", _scaled),
        ("outlier bound, normalised (the paper's)", _bounded_and_scaled),
        ("logarithm (ours)", _logarithm),
    )
)
STEPS = (
    *_PLAIN_STEPS,
    Step("residual", "logarithm, not divided by what noise leaves", _logarithm, noise_normalized=False),
)


def steps_table(stacks: Sequence[RenderedStack], say: Say) -> str:
    """Mean Abs Rel of every step, raw and regularised, in Markdown."""
    errors: dict[Step, list[tuple[float, float]]] = {step: [] for step in STEPS}
    for rendered in stacks:
        depths_m = depth_hypotheses(NEAREST_M, FARTHEST_M, protocol.HYPOTHESES)
        for volume in dict.fromkeys(step.volume for step in STEPS):
            cost = CostConfig(method=volume)
            misfit = misfits(rendered, depths_m, cost)
            gain = np.sqrt(noise_gain(make_problem(rendered.stack, depths_m, cost))).astype(np.float32)
            for step in (s for s in STEPS if s.volume == volume):
                chosen = misfit if step.noise_normalized else misfit * gain[:, None, None]
                errors[step].append(_errors(chosen, step, rendered, depths_m))
        say(f"steps: {rendered.camera_name} {rendered.name}")
    rows = [[step.volume, step.name, *np.mean(found, axis=0)] for step, found in errors.items()]
    return markdown_table(["volume", "before the regularisation", "raw argmin", "regularised"], rows, 4)


def hypotheses_errors(stacks: Iterable[RenderedStack], say: Say) -> dict[str, dict[int, float]]:
    """Mean Abs Rel by number of hypotheses, raw and regularised.

    Each volume is taken after its own best step.
    """
    best = {"paper": _scaled, "residual": _logarithm}
    found: dict[str, dict[int, list[float]]] = {}
    for rendered in stacks:
        for count in HYPOTHESES:
            depths_m = depth_hypotheses(NEAREST_M, FARTHEST_M, count)
            for volume, energy in best.items():
                misfit = misfits(rendered, depths_m, CostConfig(method=volume))
                step = Step(volume, "", energy)
                for way, error in zip(
                    ("raw argmin", "regularised"), _errors(misfit, step, rendered, depths_m), strict=True
                ):
                    found.setdefault(f"{volume}, {way}", {}).setdefault(count, []).append(error)
        say(f"hypotheses: {rendered.camera_name} {rendered.name}")
    return {way: {count: float(np.mean(e)) for count, e in by_count.items()} for way, by_count in found.items()}


def network_errors(stacks: Iterable[RenderedStack], say: Say) -> dict[str, dict[int, float]]:
    """Mean Abs Rel of the light network by number of hypotheses.

    One set of weights, with and without costs interpolated between the hypotheses.
    """
    ways = {"light": HypothesesConfig().interpolate_to, "light, nothing in between": 0}
    found: dict[str, dict[int, list[float]]] = {way: {count: [] for count in HYPOTHESES} for way in ways}
    methods = {}
    for way, least in ways.items():
        for count in HYPOTHESES:
            hypotheses = {"min_depth_m": NEAREST_M, "max_depth_m": FARTHEST_M, "count": count, "interpolate_to": least}
            methods[way, count] = make_method("light", Config.from_dict({"hypotheses": hypotheses}))
    for rendered in stacks:
        for (way, count), method in methods.items():
            found[way][count].append(metrics.abs_rel(method(rendered.stack).depth_m, rendered.depth_m))
        say(f"light: {rendered.camera_name} {rendered.name}")
    return {way: {count: float(np.mean(e)) for count, e in by_count.items()} for way, by_count in found.items()}


def hypotheses_table(errors: Mapping[str, Mapping[int, float]]) -> str:
    """Markdown table of the errors, a column for each number of hypotheses."""
    rows = ([way, *(by_count[count] for count in HYPOTHESES)] for way, by_count in errors.items())
    return markdown_table(["", *(f"D = {count}" for count in HYPOTHESES)], rows, 4)


def misfits(rendered: RenderedStack, depths_m: NDArray[np.float64], cost: CostConfig) -> Volume:
    """Cost volume as a misfit, not its square: the root of `residual`, which is squared."""
    volume = cost_volume_from_config(rendered.stack, depths_m, cost)
    return np.sqrt(volume) if cost.method == "residual" else volume


def energy_of(misfit: Volume, step: Step) -> Volume:
    """Energy for the regularisation, scaled to the contrast it is set for.

    Contrast: difference between typical and best depth.
    """
    # The paper's constant suits its volume; for ours the 99th percentile takes its place.
    c_max = BOUND_C_MAX if step.volume == "paper" else float(np.percentile(misfit, 99.0))
    energy, reference = step.energy(misfit, c_max), _logarithm(misfit, c_max)
    return np.asarray(energy * np.float32(_contrast(reference) / max(_contrast(energy), 1e-12)), np.float32)


def _errors(misfit: Volume, step: Step, rendered: RenderedStack, depths_m: NDArray[np.float64]) -> tuple[float, float]:
    """Abs Rel of the raw argmin and of regularised depth."""
    energy = energy_of(misfit, step)
    settings, guide = RegularizationConfig(), guide_image(rendered.stack.images)
    threads = Config().processing.threads or 1
    smoothed = regularization.guided_filter(
        energy, guide, settings.guided_radius_px, settings.guided_eps, threads=threads
    )
    optimised = regularization.semi_global_at_half(smoothed, guide, settings.smoothness, settings.edge_contrast)
    found = 1.0 / at_index(1.0 / depths_m, regularization.minimum_with_offset(optimised))
    raw = depths_m[misfit.argmin(axis=0)]
    return metrics.abs_rel(raw, rendered.depth_m), metrics.abs_rel(found, rendered.depth_m)


def _contrast(energy: Volume) -> float:
    return float(np.mean(energy.mean(axis=0) - energy.min(axis=0)))

"""Light network trained on other cost volumes and energies (DDFS, table 2).

The steps of :mod:`.ablation` before a network, which can learn to undo some of them. All trainings are alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dfs_research.evaluation.protocol import FARTHEST_M, HYPOTHESES, NEAREST_M
from dfs_research.evaluation.rendered import RenderedStack
from dfs_research.experiments.ablation import STEPS, Step, energy_of
from dfs_research.experiments.training import Say
from dfs_research.training.samples import Energies
from dfs_ros.config import CostConfig, RegularizationConfig
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.depth import regularization
from dfs_ros.depth.guide import guide_image, image_channels
from dfs_ros.depth.readout import read_out
from dfs_ros.io.markdown import markdown_table
from dfs_ros.network.light import DOWNSAMPLING
from dfs_ros.network.weights import load_weights
from dfs_ros.scoring import metrics
from dfs_ros.types import FocalStack

Volume = NDArray[np.float32]

_TRAINED = (
    ("residual", "logarithm (ours)"),
    ("residual", "as it is"),
    ("residual", "outlier bound, normalised (the paper's)"),
    ("paper", "logarithm (ours)"),
    ("paper", "outlier bound, normalised (the paper's)"),
)
VARIANTS: tuple[Step, ...] = tuple(step for wanted in _TRAINED for step in STEPS if (step.volume, step.name) == wanted)
"""Energies of the trainings; the first is that of the shipped network."""


def energies_of(step: Step) -> Energies:
    """Energies of a stack after that step, for training."""
    return partial(_energies, step)


def error(weights: Path, step: Step, stacks: Sequence[RenderedStack], say: Say) -> float:
    """Mean Abs Rel of weights that were trained after that step."""
    network = load_weights(weights).eval()
    depths_m = depth_hypotheses(NEAREST_M, FARTHEST_M, HYPOTHESES)
    found = []
    for rendered in stacks:
        images = rendered.stack.images
        energy, smoothed, _ = _energies(step, rendered.stack, depths_m, CostConfig(), 0)
        planes = image_channels(guide_image(images), images[len(images) // 2])
        height, width = planes.shape[1:]
        padding = ((0, 0), (0, -height % DOWNSAMPLING), (0, -width % DOWNSAMPLING))
        inputs = (torch.from_numpy(np.pad(x, padding, mode="edge"))[None] for x in (energy, smoothed, planes))
        with torch.inference_mode():
            probability = network(*inputs)[0, :, :height, :width].numpy()
        diopters, _ = read_out(probability, depths_m)
        found.append(metrics.abs_rel(1.0 / diopters, rendered.depth_m))
    say(f"{step.volume}, {step.name}: mean Abs Rel {np.mean(found):.4f} on {len(found)} stacks")
    return float(np.mean(found))


def markdown(errors: Mapping[Step, float], chance: float) -> str:
    """Markdown table of the errors, relative to the first.

    `chance`: error of the first with another seed.
    """
    base = errors[VARIANTS[0]]
    rows = [(step.volume, step.name, value) for step, value in errors.items()]
    rows.insert(1, (VARIANTS[0].volume, f"{VARIANTS[0].name}, another seed", chance))
    headings = ["volume", "before the network", "Abs Rel", "against ours"]
    return markdown_table(headings, ((*row, f"{100 * (row[-1] / base - 1):+.1f} %") for row in rows), 4)


def _energies(
    step: Step, stack: FocalStack, depths_m: NDArray[np.float64], cost: CostConfig, unused: int
) -> tuple[Volume, Volume, NDArray[np.float64]]:
    """Energies as of :func:`~dfs_research.training.samples.estimator_energies`, of another step and volume."""
    cost = dataclasses.replace(cost, method=step.volume)
    volume = cost_volume_from_config(stack, depths_m, cost, threads=1)
    energy = energy_of(np.sqrt(volume) if step.volume == "residual" else volume, step)
    smoothed = regularization.smoothed_energy(energy, guide_image(stack.images), RegularizationConfig())
    return energy, smoothed, depths_m

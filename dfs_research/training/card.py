"""Report of a training: progress line, and model card beside the weights."""

from __future__ import annotations

import dataclasses
import os
import platform
import textwrap
from collections import deque
from typing import Any

import numpy as np
import torch

import dfs_ros
from dfs_research.training.datasets import TrainingData
from dfs_research.training.loop import Step, Trainer
from dfs_research.training.stacks import RECIPE_VERSION
from dfs_ros.simulation.render import RENDERER_VERSION

_MEAN_OVER = 200


def _processes(trainer: Trainer) -> str:
    return f"{trainer.processes.count} x " if trainer.processes.count > 1 else ""


class Record:
    """Running means over the last steps, as single batches vary."""

    def __init__(self) -> None:
        self._loss: deque[float] = deque(maxlen=_MEAN_OVER)
        self._parts: dict[str, deque[float]] = {}

    def add(self, step: Step) -> None:
        """Add a step to the means."""
        self._loss.append(step.loss)
        for name, value in step.parts.items():
            self._parts.setdefault(name, deque(maxlen=_MEAN_OVER)).append(value)

    def line(self, step: Step) -> str:
        """Loss, its parts, rate and time left."""
        parts = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in self._parts.items())
        minutes, seconds = divmod(round(step.remaining_s), 60)
        rate = f"{step.learning_rate:.1e}"
        return f"loss {np.mean(self._loss):.3f} ({parts}), rate {rate}, {minutes}:{seconds:02d} left"

    def facts(self, trainer: Trainer, data: TrainingData) -> dict[str, Any]:
        """Facts for the model card, as plain values."""
        means = {"loss": self._loss, **self._parts}
        return {
            "dfs_ros": dfs_ros.__version__,
            "renderer": RENDERER_VERSION,
            "recipe": RECIPE_VERSION,
            "about": trainer.recipe.about,
            "augmentation": trainer.recipe.augmentation,
            "limits": trainer.recipe.limits,
            "architecture": f"dfs_ros/network/{trainer.settings.network}.py",
            "data": data.describe(),
            "parameters": sum(p.numel() for p in trainer.network.parameters()),
            "steps": trainer.step,
            "hours": round(trainer.elapsed_s / 3600.0, 3),
            "hardware": f"{_processes(trainer)}{trainer.device.type}, {platform.machine()}, {os.cpu_count()} cores",
            "torch": torch.__version__,
            "settings": dataclasses.asdict(trainer.settings),
            "last": {name: round(float(np.mean(values)), 4) for name, values in means.items() if values},
        }


def model_card(name: str, facts: dict[str, Any]) -> str:
    """Model card in Markdown: network, data, training, limits."""
    made_by = f"dfs_ros {facts['dfs_ros']} (renderer {facts['renderer']}, recipe {facts['recipe']})"
    data = textwrap.fill(f"{facts['data']}. Read or rendered by {made_by}.", width=120)
    about = textwrap.fill(f"{facts['about']} ({facts['parameters']:,} parameters).", width=120)
    augmentation, limits = (textwrap.fill(facts[key], width=120) for key in ("augmentation", "limits"))
    settings = "\n".join(f"- `{key}`: {value}" for key, value in facts["settings"].items())
    last = ", ".join(f"{key} {value}" for key, value in facts["last"].items())
    return f"""# {name}

{about}
Architecture: `{facts["architecture"]}`. Made by `dfs train`; the safetensors file carries these facts too.

## Data
{data}

{augmentation}

## Training
{facts["steps"]} steps in {facts["hours"]} hours on {facts["hardware"]}, PyTorch {facts["torch"]}.

{settings}

At the end, mean of the last {_MEAN_OVER} steps: {last}.
{_sigma_text(facts)}
## Limits
{limits}
"""


def _sigma_text(facts: dict[str, Any]) -> str:
    if "sigma" not in facts:
        return ""
    sigma = facts["sigma"]
    text = (
        f"Sigma is scaled by {sigma['scale']}, found on {sigma['stacks']} stacks of scenes that were not trained with, "
        f"where {100 * sigma['within_before']:.0f} % of errors were within it before and 68 % are now."
    )
    return f"\n{textwrap.fill(text, width=120)}\n"

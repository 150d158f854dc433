"""Short trainings of an experiment, found again by their settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch

from dfs_research.training.card import Record
from dfs_research.training.datasets import open_dataset
from dfs_research.training.loop import Trainer
from dfs_research.training.recipes import LightRecipe
from dfs_research.training.samples import Energies
from dfs_research.training.settings import TrainingSettings
from dfs_research.training.stacks import RECIPE_VERSION
from dfs_ros.network.weights import save_network
from dfs_ros.simulation.render import RENDERER_VERSION

Say = Callable[[str], None]
_STACKS_SEED = 0


def trained(
    name: str,
    settings: TrainingSettings,
    rgbd: str | Path,
    folder: str | Path,
    cores: int,
    say: Say,
    energies: Energies | None = None,
) -> Path:
    """Train with these settings into `folder`, or find the weights there.

    `rgbd`: photos with depth to train on. `settings.seed` is for samples and initial weights; the stacks are always the
    same. An interrupted training continues from its checkpoint, which is saved every hundred steps. `say` gets one
    line at a time. `energies`: energies for the light network instead of the estimator's; `name` must tell them apart.
    """
    text = json.dumps([RENDERER_VERSION, RECIPE_VERSION, dataclasses.asdict(settings)])
    file = Path(folder) / f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}.safetensors"
    if file.is_file():
        say(f"{name}: weights found in {file}")
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    data = open_dataset("rendered", dataclasses.replace(settings, seed=_STACKS_SEED), rgbd=rgbd)
    for done in data.prepare(cores):
        if done % 50 == 0 or done == data.count:
            say(f"{name}: {done} of {data.count} stacks rendered")
    workers = max(1, cores - 1)
    torch.set_num_threads(workers)
    torch.manual_seed(settings.seed)
    recipe = None if energies is None else LightRecipe(settings, energies=energies)
    trainer = Trainer(settings, data.load(), workers=workers, recipe=recipe)
    checkpoint = file.with_suffix(".checkpoint")
    if checkpoint.is_file():
        trainer.load_checkpoint(checkpoint)
    record = Record()
    for step in trainer.run():
        record.add(step)
        if step.step % 100 == 0:
            say(f"{name}: step {step.step} of {settings.steps}, {record.line(step)}")
            trainer.save_checkpoint(checkpoint)
    facts = record.facts(trainer, data)
    save_network(file, trainer.averaged_weights(), trainer.network.architecture, facts)
    checkpoint.unlink(missing_ok=True)
    return file

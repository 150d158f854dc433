"""How a network is trained: every default of `dfs train`, once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from dfs_ros.config import setting


@dataclass(frozen=True)
class TrainingSettings:
    """What makes the weights what they are, beside the code and the photos; written beside them."""

    steps: int = setting(2400, "Optimiser steps", low=1, high=10**7)
    hours: float = setting(
        0.0,
        "Longest time; the schedule follows the clock where that is shorter; 0 = no limit",
        unit="h",
        low=0,
        high=1000,
    )
    stacks: int = setting(640, "Rendered focal stacks", low=1, high=10**6)
    seed: int = setting(0, "Of stacks, samples and initial weights", low=0, high=2**31)
    learning_rate: float = setting(2e-3, "Largest learning rate", low=1e-7, high=1)
    warmup_steps: int = setting(100, "Steps until the learning rate is at its largest", low=0, high=10**6)
    weight_decay: float = setting(1e-4, "Decoupled weight decay", low=0, high=1)
    gradient_norm: float = setting(1.0, "Gradients are cut to this norm", low=1e-3, high=1e3)
    average: float = setting(0.998, "Of the running mean of the weights, which is what is kept", low=0, high=0.99999)
    crop_px: int = setting(160, "Samples are squares of this size, a multiple of 32", unit="px", low=32, high=1024)
    hypotheses_per_step: int = setting(128, "Samples of a step times their hypotheses", low=16, high=4096)
    bf16: bool = setting(True, "Convolutions in bfloat16 where the device has it")


PRESETS: dict[str, TrainingSettings] = {
    "light": TrainingSettings(),
    "smoke": TrainingSettings(steps=20, stacks=4, warmup_steps=2, crop_px=96, average=0.8, hypotheses_per_step=32),
}
"""light: the network that ships in models/. smoke: a minute, to see that everything works."""


def preset(name: str, **changes: object) -> TrainingSettings:
    """A preset with some settings changed; None leaves one as it is. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"preset: unknown {name!r}; known: {', '.join(PRESETS)}")
    given = {key: value for key, value in changes.items() if value is not None}
    made = dataclasses.replace(PRESETS[name], **given)  # type: ignore[arg-type]
    for field in dataclasses.fields(made):
        value, low, high = getattr(made, field.name), field.metadata["low"], field.metadata["high"]
        if low is not None and not low <= value <= high:
            raise ValueError(f"{field.name}: expected {low} to {high}, received {value}")
    if made.crop_px % 32:
        raise ValueError(f"crop_px: expected a multiple of 32, received {made.crop_px}")
    return made

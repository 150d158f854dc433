"""Settings of trainings: every default of `dfs train`, once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from dfs_research.evaluation.protocol import FARTHEST_M, NEAREST_M
from dfs_research.training.cameras import TRAINING_CAMERAS
from dfs_ros.config import setting

NETWORKS = ("light", "ddfs", "dualfocus", "direct")
ANY_CAMERA = "any"


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training; with code and photos they determine the weights."""

    network: str = setting("light", "Which network", choices=NETWORKS)
    steps: int = setting(9000, "Optimiser steps", low=1, high=10**7)
    hours: float = setting(
        0.0,
        "Longest time; the schedule follows the clock where that is shorter; 0 = no limit",
        unit="h",
        low=0,
        high=1000,
    )
    stacks: int = setting(1920, "Rendered focal stacks", low=1, high=10**6)
    seed: int = setting(0, "Of stacks, samples and initial weights", low=0, high=2**31)
    camera: str = setting(
        ANY_CAMERA,
        "Lens and focus of the rendered stacks: any = another one for each",
        choices=(ANY_CAMERA, *TRAINING_CAMERAS),
    )
    focus_distances_m: tuple[float, ...] = setting(
        (), "Focus of that camera instead of its own; none = its own", unit="m"
    )
    learning_rate: float = setting(2e-3, "Largest learning rate", low=1e-7, high=1)
    warmup_steps: int = setting(100, "Steps until the learning rate is at its largest", low=0, high=10**6)
    weight_decay: float = setting(1e-4, "Decoupled weight decay", low=0, high=1)
    gradient_norm: float = setting(1.0, "Gradients are cut to this norm", low=1e-3, high=1e3)
    average: float = setting(0.998, "Of the running mean of the weights, which is what is kept", low=0, high=0.99999)
    crop_px: int = setting(160, "Samples are squares of this size, a multiple of 32", unit="px", low=32, high=1024)
    hypotheses_per_step: int = setting(128, "light: samples of a step times their hypotheses", low=16, high=4096)
    samples_per_step: int = setting(4, "Samples of a step; light counts hypotheses instead", low=1, high=1024)
    width: float = setting(1.0, "Channels over those of the architecture; light has its own", low=0.01, high=4)
    hypotheses: int = setting(64, "ddfs: number of depths, which are channels of it", low=2, high=512)
    wiring: str = setting("released", "ddfs: wiring of the decoder", choices=("released", "paper"))
    spacing: str = setting("inverse", "ddfs: spacing of the depths", choices=("inverse", "linear"))
    min_depth_m: float = setting(NEAREST_M, "ddfs: nearest depth", unit="m", low=0.001, high=1000)
    max_depth_m: float = setting(FARTHEST_M, "ddfs: farthest depth", unit="m", low=0.01, high=10000)
    scale_augmentation: bool = setting(
        False, "ddfs: depth and camera times 1.0, 1.5 ... 9.0, which leaves the images as they are"
    )
    focal_weight: float = setting(0.0, "Weight of the focal variational loss", low=0, high=1000)
    spatial_weight: float = setting(0.0, "Weight of the spatial variational loss", low=0, high=1000)
    bf16: bool = setting(True, "Convolutions in bfloat16 where the device has it")


_LIGHT = TrainingSettings()
_ON_CPU = TrainingSettings(
    steps=800,
    stacks=160,
    camera="B",
    learning_rate=2e-3,
    warmup_steps=50,
    average=0.99,
    crop_px=96,
    samples_per_step=4,
    width=0.5,
)

PRESETS: dict[str, TrainingSettings] = {
    "light": _LIGHT,
    "smoke": TrainingSettings(
        steps=20,
        stacks=4,
        warmup_steps=2,
        crop_px=96,
        average=0.8,
        hypotheses_per_step=32,
        samples_per_step=2,
        width=0.25,
        hypotheses=8,
    ),
    # No scale augmentation: most scaled scenes lie in the far half of the range, which takes longer to learn.
    "ddfs": dataclasses.replace(_ON_CPU, network="ddfs", width=0.25, hypotheses=16, steps=500),
    "ddfs_paper": TrainingSettings(
        network="ddfs",
        steps=100_000,
        stacks=4000,
        learning_rate=1e-4,
        weight_decay=0.0,
        samples_per_step=8,
        min_depth_m=0.1,
        max_depth_m=3.0,
        spacing="linear",
        scale_augmentation=True,
    ),
    "dualfocus": dataclasses.replace(_ON_CPU, network="dualfocus", focal_weight=1.0, spatial_weight=0.1, steps=600),
    "direct": dataclasses.replace(_ON_CPU, network="direct", steps=600),
}
"""light: the network in models/; an hour on two cores once stacks are rendered. ddfs, dualfocus, direct: as much of
them as a CPU can train, for one camera, for comparison; ddfs_paper: full size, trained as in its paper, for a GPU.
smoke: one minute, to test the whole way.
"""


def preset(name: str, **changes: object) -> TrainingSettings:
    """Preset with some settings changed; None keeps a setting.

    Raises ValueError for an unknown name or value.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: unknown {name!r}; known: {', '.join(PRESETS)}")
    given = {key: value for key, value in changes.items() if value is not None}
    made = dataclasses.replace(PRESETS[name], **given)  # type: ignore[arg-type]
    for field in dataclasses.fields(made):
        value, low, high = getattr(made, field.name), field.metadata["low"], field.metadata["high"]
        if low is not None and not low <= value <= high:
            raise ValueError(f"{field.name}: expected {low} to {high}, received {value}")
        choices = field.metadata["choices"]
        if choices and value not in choices:
            raise ValueError(f"{field.name}: expected one of {', '.join(choices)}, received {value!r}")
    if made.crop_px % 32:
        raise ValueError(f"crop_px: expected a multiple of 32, received {made.crop_px}")
    if made.min_depth_m >= made.max_depth_m:
        raise ValueError(f"min_depth_m: expected less than max_depth_m {made.max_depth_m}, received {made.min_depth_m}")
    if made.focus_distances_m and made.camera == ANY_CAMERA:
        raise ValueError("focus_distances_m: these belong to one camera; name it too")
    return made

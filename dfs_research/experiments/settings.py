"""Settings of the experiments, CPU-sized."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from dfs_research.evaluation.protocol import FARTHEST_M, NEAREST_M
from dfs_research.evaluation.rendered import EVALUATION_CAMERAS, EvaluationCamera
from dfs_research.training.cameras import training_camera
from dfs_research.training.settings import PRESETS, TrainingSettings
from dfs_ros.types import Camera

_NYU = EVALUATION_CAMERAS["A"]


@dataclass(frozen=True)
class TestSetting:
    """Test camera. `median_depth_m`: median depth that scenes are scaled to; None: as they are."""

    name: str
    setup: EvaluationCamera
    median_depth_m: float | None = None


@dataclass(frozen=True)
class InvarianceCase:
    """Case of the invariance experiment: training camera, range of depths, test cameras.

    `training`: settings by network. The first test has the training's camera; growth of the error is relative to it.
    """

    name: str
    about: str
    tests: tuple[TestSetting, ...]
    min_depth_m: float
    max_depth_m: float
    training: dict[str, TrainingSettings]


def _scaled(setup: EvaluationCamera, factor: float) -> EvaluationCamera:
    """Scale camera and focus with the scene; images stay the same (DDFS, section 3.1)."""
    lens = setup.camera
    camera = Camera(lens.focal_length_m * factor, lens.f_number, lens.pixel_pitch_m * factor)
    return EvaluationCamera(camera, tuple(focus / factor for focus in setup.focus_diopters))


_SHORT = dataclasses.replace(PRESETS["direct"], stacks=96, crop_px=96, samples_per_step=4, steps=600)
_SHORT_LIGHT = dataclasses.replace(
    PRESETS["light"], stacks=96, crop_px=96, steps=400, hypotheses_per_step=96, warmup_steps=50, average=0.99
)
_FOCUS_M = (0.1, 0.3, 1.5)
_MEDIAN_M = 0.35

INVARIANCE = (
    InvarianceCase(
        "focus",
        "Trained for camera B of the evaluation (8 mm, f/1.4) focused at 2.2, 1.7, 1.3, 0.9 and 0.5 dioptres; tested "
        "with it, with other focus of the same lens, and with camera C (6.8 mm, f/1.85, focus 2.5 to 0.2 dioptres)",
        (
            TestSetting("camera B as trained", EVALUATION_CAMERAS["B"]),
            TestSetting(
                "camera B focused at 2.0 1.5 1.1 0.7 0.3",
                dataclasses.replace(EVALUATION_CAMERAS["B"], focus_diopters=(2.0, 1.5, 1.1, 0.7, 0.3)),
            ),
            TestSetting("camera C", EVALUATION_CAMERAS["C"]),
        ),
        NEAREST_M,
        FARTHEST_M,
        {},
    ),
    InvarianceCase(
        "paper",
        "Trained for the DefocusNet camera (2.9 mm, f/1) focused at 0.1, 0.3 and 1.5 m; tested with it, focused at "
        "0.15 and 0.7 m (DDFS, table 3), and with the NYU camera (15 mm, f/2.8, 2, 4 and 8 m), scene and camera times "
        "0.3 (table 4)",
        (
            TestSetting("DefocusNet, 0.1 0.3 1.5 m as trained", training_camera("defocusnet", _FOCUS_M), _MEDIAN_M),
            TestSetting("DefocusNet, 0.15 0.7 m", training_camera("defocusnet", (0.15, 0.7)), _MEDIAN_M),
            TestSetting("NYU camera times 0.3", _scaled(_NYU, 0.3), _MEDIAN_M),
        ),
        0.1,
        3.0,
        {
            "direct": dataclasses.replace(_SHORT, camera="defocusnet", focus_distances_m=_FOCUS_M),
            "light": dataclasses.replace(_SHORT_LIGHT, camera="defocusnet", focus_distances_m=_FOCUS_M),
        },
    ),
)

_CONSTRAINTS_BASE = dataclasses.replace(
    PRESETS["light"], stacks=240, crop_px=96, steps=240, hypotheses_per_step=96, warmup_steps=30, average=0.98
)
CONSTRAINTS: dict[str, TrainingSettings] = {
    "neither": _CONSTRAINTS_BASE,
    "neither, another seed": dataclasses.replace(_CONSTRAINTS_BASE, seed=1),
    "focal": dataclasses.replace(_CONSTRAINTS_BASE, focal_weight=1.0),
    "spatial": dataclasses.replace(_CONSTRAINTS_BASE, spatial_weight=0.1),
}
"""Equally long trainings of the light network; the second measures the effect of chance."""

LEARNED = _CONSTRAINTS_BASE
"""Settings of each training on another volume."""
LEARNED_CHANCE_SEED = 1

"""Cameras to train for, to test invariance to the camera.

The paper's experiment on invariance to the camera (DDFS, tables 3 and 4) trains on some focus distances of a lens and
tests on others, and on another lens.
"""

from __future__ import annotations

from collections.abc import Sequence

from dfs_research.evaluation.rendered import EVALUATION_CAMERAS, EvaluationCamera
from dfs_ros.types import Camera, check_focus

DEFOCUSNET_CAMERA = EvaluationCamera(Camera(2.9e-3, 1.0, 3.1e-3 / 256), (1 / 0.1, 1 / 0.15, 1 / 0.3, 1 / 0.7, 1 / 1.5))
"""Camera of the DefocusNet (FoD500) data: 256 px wide, depth up to 3 m."""

TRAINING_CAMERAS: dict[str, EvaluationCamera] = {**EVALUATION_CAMERAS, "defocusnet": DEFOCUSNET_CAMERA}
"""Cameras A, B and C of the evaluation (A is that of DDFS's NYU experiments), and that of DefocusNet."""


def training_camera(name: str, focus_distances_m: Sequence[float] = ()) -> EvaluationCamera:
    """Camera by name, with other focus distances in metres if given.

    Raises ValueError for an unknown name, fewer than two distances, or distances where the lens cannot focus.
    """
    if name not in TRAINING_CAMERAS:
        raise ValueError(f"camera: unknown {name!r}; known: {', '.join(TRAINING_CAMERAS)}")
    setup = TRAINING_CAMERAS[name]
    if not focus_distances_m:
        return setup
    if len(set(focus_distances_m)) < 2 or min(focus_distances_m) <= 0:
        raise ValueError(
            f"focus distances: expected two or more different ones, in metres, received {list(focus_distances_m)}"
        )
    diopters = tuple(1.0 / distance for distance in focus_distances_m)
    for value in diopters:
        check_focus(value, setup.camera.focal_length_m, "focus distance")
    return EvaluationCamera(setup.camera, diopters)

"""Simulated focus-sweeping camera before the demo scene, with planes at known depths.

Images are rendered once (seconds; a minute or two with a slowly swaying camera) and cached; noise is added when they
are sent. A swaying camera tells its true place at each image.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.camera.source import SoftwareSource, SourceFrame, sweep_order
from dfs_ros.config import CameraConfig, SimulationConfig
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.simulation.render import RENDERER_VERSION, render_images
from dfs_ros.simulation.scenes import DEMO_FOCUS_DIOPTERS, Scene, demo_camera, demo_origin, demo_scene
from dfs_ros.system.cache import keep_array, read_array
from dfs_ros.system.folders import cache_folder
from dfs_ros.transforms.rigid import Transform
from dfs_ros.types import FocusMetadata, LensState

_NOISE_MARGIN_PX = 64
_SEED = 1


@dataclass(frozen=True)
class Shot:
    """One image of the loop: its time, its place in the sweep, its focus."""

    time_s: float
    focus_start_diopters: float
    focus_end_diopters: float
    index: int
    count: int

    @property
    def focus_diopters(self) -> float:
        return (self.focus_start_diopters + self.focus_end_diopters) / 2

    @property
    def moving(self) -> bool:
        return self.focus_start_diopters != self.focus_end_diopters


class SimulatedSource(SoftwareSource):
    """Source of thin-lens images of the demo scene, still or swaying, swept in a loop.

    Parameters
    ----------
    config
        Settings: size, rate, sweep, noise and more.
    progress
        Called with the completed share of the rendering.
    cache
        Folder of rendered images; None = the user's cache folder.
    """

    def __init__(
        self, config: CameraConfig, progress: Callable[[float], None] | None = None, cache: Path | None = None
    ) -> None:
        self._config = config
        self._camera = demo_camera(config.width)
        self._shots = loop_of_shots(config)
        self.size = (config.height, config.width)
        self.intrinsics = intrinsics(self._camera, self.size)
        self.frames_per_sweep = self._shots[0].count
        self.description = (
            f"simulated camera, {config.width} x {config.height}, {'swaying' if config.moving else 'still'}, "
            f"{len(DEMO_FOCUS_DIOPTERS)} focus positions from {min(DEMO_FOCUS_DIOPTERS):g} to "
            f"{max(DEMO_FOCUS_DIOPTERS):g} dioptres"
        )
        self._images = _rendered(config, self._shots, progress or (lambda share: None), cache or cache_folder("camera"))

    def frames(self) -> Generator[SourceFrame, None, None]:
        """Yield the loop without end, with fresh noise and rising sweep ids."""
        add_noise = Noise(self.size, self._config.noise)
        image_of = _image_numbers(self._shots)
        sweep_id = -1
        for shot in itertools.cycle(self._shots):
            sweep_id += shot.index == 0
            focus = FocusMetadata(
                stamp_ns=0,
                focus_diopters=shot.focus_diopters,
                focus_start_diopters=shot.focus_start_diopters,
                focus_end_diopters=shot.focus_end_diopters,
                focus_sigma_diopters=0.0,
                lens_state=LensState.MOVING if shot.moving else LensState.STATIONARY,
                focal_length_m=self._camera.focal_length_m,
                f_number=self._camera.f_number,
                magnification=math.nan if self._config.breathing else 1.0,
                sweep_id=sweep_id % 2**32,
                index=shot.index,
                count=shot.count,
            )
            image = add_noise(self._images[image_of[shot.time_s, shot.focus_diopters]])
            origin = demo_origin(shot.time_s, self._config.sway_period_s)
            moved = Transform(np.eye(3), np.array(origin)) if self._config.moving else None
            yield SourceFrame(image, focus, moved=moved)


def loop_of_shots(config: CameraConfig) -> list[Shot]:
    """Shots of one lens cycle, or of one sway of the moving camera."""
    cycle = [shot for sweep in sweep_order(len(DEMO_FOCUS_DIOPTERS), config.sweep) for shot in _sweep(sweep, config)]
    if not config.moving:
        return cycle
    cycles = max(1, round(config.sway_period_s * config.rate_hz / len(cycle)))
    step_s = config.sway_period_s / (cycles * len(cycle))
    return [
        Shot(i * step_s, shot.focus_start_diopters, shot.focus_end_diopters, shot.index, shot.count)
        for i, shot in enumerate(cycle * cycles)
    ]


def _sweep(order: list[int], config: CameraConfig) -> list[Shot]:
    """One sweep; a saw-tooth starts with a fly-back, a triangle turns without one."""
    focus = [DEMO_FOCUS_DIOPTERS[i] for i in order]
    at = focus[-1] if config.sweep == "sawtooth" else focus[0]
    spans: list[tuple[float, float]] = []
    for target in focus:
        if target != at:
            ends = np.linspace(at, target, config.moving_frames + 1).tolist()
            spans += itertools.pairwise(ends) if config.moving_frames else []
        spans.append((target, target))
        at = target
    return [Shot(0.0, start, end, i, len(spans)) for i, (start, end) in enumerate(spans)]


def _image_numbers(shots: list[Shot]) -> dict[tuple[float, float], int]:
    """Number of the image to each time and focus; a still scene needs each focus once."""
    wanted = dict.fromkeys((shot.time_s, shot.focus_diopters) for shot in shots)
    return {key: number for number, key in enumerate(wanted)}


def _rendered(
    config: CameraConfig, shots: list[Shot], progress: Callable[[float], None], cache: Path
) -> NDArray[np.uint8]:
    """Images (N, H, W, 3) without noise, from the cache or rendered and put there."""
    keys = list(_image_numbers(shots))
    # Exact edges and many layers cost eight times as much: only for a few images.
    oversampling, layer_step_px = (1, 1.0) if config.moving else (2, SimulationConfig().layer_step_px)
    shape = (len(keys), config.height, config.width, 3)
    sway = config.sway_period_s if config.moving else 0
    rendering = f"{RENDERER_VERSION} {oversampling} {layer_step_px} {config.breathing} {sway}"
    recipe = f"{rendering} {demo_camera(config.width)} {shape} {keys}"
    file = cache / f"{hashlib.sha256(recipe.encode()).hexdigest()[:24]}.npy"
    images = read_array(file, shape, np.uint8)
    if images is None:
        images = _render(keys, shape, oversampling, layer_step_px, config, progress)
        keep_array(file, images)
    return images


def _render(
    keys: list[tuple[float, float]],
    shape: tuple[int, ...],
    oversampling: int,
    layer_step_px: float,
    config: CameraConfig,
    progress: Callable[[float], None],
) -> NDArray[np.uint8]:
    height, width = shape[1:3]
    images = np.empty(shape, np.uint8)

    def scene_at(time_s: float) -> Scene:
        return demo_scene(width * oversampling, height * oversampling, time_s, period_s=config.sway_period_s)

    scenes = {time_s: scene_at(time_s) for time_s in {keys[0][0]}}

    def render(number: int) -> None:
        time_s, focus = keys[number]
        scene = scenes.get(time_s) or scene_at(time_s)
        images[number] = render_images(
            scene.rgb,
            scene.depth_m,
            demo_camera(width),
            [focus],
            oversampling=oversampling,
            noise=0.0,
            breathing=config.breathing,
            layer_step_px=layer_step_px,
        )[0]

    workers = ThreadPoolExecutor(os.cpu_count())
    try:
        progress(0.0)
        for done, _ in enumerate(workers.map(render, range(len(keys))), start=1):
            progress(done / len(keys))
    finally:
        workers.shutdown(cancel_futures=True)
    return images


class Noise:
    """Gaussian noise for 8-bit images, cut from one large tile to save time."""

    def __init__(self, size: tuple[int, int], sigma: float) -> None:
        self._rng = np.random.default_rng(_SEED)
        shape = (size[0] + _NOISE_MARGIN_PX, size[1] + _NOISE_MARGIN_PX, 3)
        grain = self._rng.standard_normal(shape, np.float32) * np.float32(255.0 * sigma)
        self._tile = np.rint(grain).astype(np.int16)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        y, x = self._rng.integers(_NOISE_MARGIN_PX, size=2)
        noisy = cv2.add(image, self._tile[y : y + height, x : x + width], dtype=cv2.CV_8U)
        return np.asarray(noisy, np.uint8)

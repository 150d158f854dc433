"""A scene through a camera in use: what its lens truly is, and the light that reached it.

Everything drawn depends on the names of camera and scene alone, so that a stack is the same in every run and beside
whatever others, and the same lens takes it under every condition.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_research.evaluation.lens_blur import LensBlur
from dfs_research.evaluation.rendered import (
    EVALUATION_CAMERAS,
    EvaluationCamera,
    RgbdScene,
    cache_folder,
    load_rgbd,
    procedural_scene,
    rgbd_folders,
)
from dfs_research.evaluation.views import View, render_views
from dfs_ros.simulation.pupil import Pupil
from dfs_ros.simulation.render import decode, encode
from dfs_ros.system.cache import keep_array, read_array

OVERSAMPLING = 2
VERSION = 1
"""Raised whenever the same shot gives other light, so that what is cached is rendered again."""

_SEED = 20_261_128
_LIGHT_STEPS = 65535  # of the cached light, sRGB-encoded
_FULL_WELL_E = 15_000.0
_READ_NOISE_E = 5.0


@dataclass(frozen=True)
class LensDraw:
    """One lens as it truly is, drawn. `f_number_told`: the told f-number over the true one; `gains`: exposures."""

    pupil: Pupil
    softness_px: float
    breathing: float
    f_number_told: float
    gains: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Shot:
    """A scene, twice as fine as the stack, before a camera of the evaluation set. `cache`: folder for the light."""

    scene: RgbdScene
    camera_name: str
    cache: Path = field(default_factory=cache_folder)

    @property
    def setup(self) -> EvaluationCamera:
        """Camera and focus sweep, as they truly are."""
        return EVALUATION_CAMERAS[self.camera_name]

    @property
    def focus_diopters(self) -> NDArray[np.float64]:
        """Focus (F,) of the sweep."""
        return np.array(self.setup.focus_diopters)

    @property
    def reference(self) -> int:
        """The image whose geometry is the photo's: the middle one in focus, which the estimator takes by default."""
        order = np.argsort(self.focus_diopters, kind="stable")
        return int(order[len(order) // 2])

    @property
    def depth_m(self) -> NDArray[np.float32]:
        """True depth (H, W) in the geometry of the reference, NaN = unknown."""
        middle = slice(OVERSAMPLING // 2, None, OVERSAMPLING)
        return self.scene.depth_m[middle, middle].copy()

    def rng(self, what: str) -> np.random.Generator:
        """Random numbers for one purpose on this shot."""
        return np.random.default_rng([_SEED, zlib.crc32(f"{self.camera_name}/{self.scene.name}/{what}".encode())])

    def lens(self) -> LensDraw:
        """The lens: 0 or 5 to 9 blades, aberration to +-0.3 between rim and centre, breathing 0.8 to 2 times a thin
        lens', an f-number that is told with a log-normal error of 10 %, at most 20 %, and exposures to +-5 %."""
        rng = self.rng("lens")
        pupil = Pupil(int(rng.choice([0, 5, 6, 7, 8, 9])), rng.uniform(0.0, 2 * math.pi), rng.uniform(-0.3, 0.3))
        softness, breathing = rng.uniform(0.35, 0.65), rng.uniform(0.8, 2.0)
        told = math.exp(0.1 * float(np.clip(rng.standard_normal(), -2.0, 2.0)))
        gains = rng.uniform(0.95, 1.05, len(self.focus_diopters))
        return LensDraw(pupil, float(softness), float(breathing), told, tuple(map(float, gains)))

    def breathing_scale(self, focus_diopters: NDArray[np.float64], breathing: float) -> NDArray[np.float64]:
        """Image scale (F,) of the lens against its reference image: a thin lens' ``1 / (1 - f D)`` to that power."""
        f = self.setup.camera.focal_length_m
        magnification = 1.0 / (1.0 - f * focus_diopters)
        return np.asarray((magnification / magnification[self.reference]) ** breathing, np.float64)

    def light(self, views: Sequence[View], lens: LensDraw, scene: RgbdScene | None = None) -> NDArray[np.float32]:
        """Linear light (F, H, W, 3) of the views through the lens, from the cache where it is there.

        `scene` stands in for the shot's own.
        """
        scene = self.scene if scene is None else scene
        recipe = f"{VERSION} {OVERSAMPLING} {self.setup.camera} {tuple(views)} {lens.pupil} {lens.softness_px}"
        content = scene.rgb.tobytes() + scene.depth_m.tobytes()
        digest = hashlib.sha256(recipe.encode() + content).hexdigest()[:24]
        file = self.cache / f"light_{scene.name}_{self.camera_name}_{digest}.npy"
        height, width = (n // OVERSAMPLING for n in scene.depth_m.shape)
        encoded = read_array(file, (len(views), height, width, 3), np.uint16)
        if encoded is None:
            blur = LensBlur(lens.pupil, OVERSAMPLING * lens.softness_px)
            light = render_views(decode(scene.rgb), scene.depth_m, self.setup.camera, tuple(views), blur, OVERSAMPLING)
            encoded = np.rint(encode(light) * _LIGHT_STEPS).astype(np.uint16)
            keep_array(file, encoded)
        value = encoded.astype(np.float32) / np.float32(_LIGHT_STEPS)
        return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)

    def developed(
        self,
        light: NDArray[np.float32],
        gains: Sequence[float],
        what: str,
        full_well_e: float = _FULL_WELL_E,
        jpeg_quality: int | None = None,
    ) -> NDArray[np.uint8]:
        """Images (F, H, W, 3) of the light: exposure, photon and read noise, sRGB, 8 bits, JPEG (4:2:0) where wanted.

        Noise is drawn for the purpose `what`, with variance ``L / full_well + (read / full_well)^2`` in light L.
        """
        exposed = light * np.asarray(gains, np.float32)[:, None, None, None]
        deviation = np.sqrt(exposed / np.float32(full_well_e) + np.float32((_READ_NOISE_E / full_well_e) ** 2))
        noisy = exposed + deviation * self.rng(f"noise {what}").standard_normal(exposed.shape, np.float32)
        images = np.rint(encode(noisy) * 255.0).astype(np.uint8)
        return images if jpeg_quality is None else np.stack([_jpeg(image, jpeg_quality) for image in images])


def shots(
    scenes: Sequence[tuple[str, Path | int]], cameras: Sequence[str], width: int, cache: str | Path | None = None
) -> Iterator[Shot]:
    """Every scene before every camera that it suits, camera by camera; scenes as :func:`scene_list` gives them."""
    folder = cache_folder() if cache is None else Path(cache)
    for camera_name in cameras:
        setup = EVALUATION_CAMERAS[camera_name]
        for _, source in scenes:
            if isinstance(source, int):
                scene = procedural_scene(source, setup, width)
            else:
                scene = load_rgbd(source, width * OVERSAMPLING, multiple_of=OVERSAMPLING)
            if float(np.nanmedian(scene.depth_m)) > setup.min_median_depth_m:
                yield Shot(scene, camera_name, folder)


def scene_list(folder: str | Path | None, procedural: int = 0) -> list[tuple[str, Path | int]]:
    """Names of the RGB-D scenes of a folder and of random ones, with the place or number of each."""
    photos: list[tuple[str, Path | int]] = (
        [] if folder is None else [(path.name, path) for path in rgbd_folders(folder)]
    )
    return photos + [(f"procedural_{index}", index) for index in range(procedural)]


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    _, packed = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(image[..., ::-1])

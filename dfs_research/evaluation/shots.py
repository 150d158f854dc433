"""Shot: scene and camera in use, with the true lens and the light on its sensor.

Random draws depend on the names of camera and scene alone: a stack is the same in every run and in any selection,
and the same lens takes it under every condition.
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
from dfs_ros.optics.srgb import decode_srgb
from dfs_ros.simulation.pupil import Pupil
from dfs_ros.simulation.render import decode, encode
from dfs_ros.system.cache import keep_array, read_array

OVERSAMPLING = 2
VERSION = 1
"""Increment when the same shot gives other light, which invalidates the cache."""

_SEED = 20_261_128
_LIGHT_STEPS = 65535  # of the cached light, sRGB-encoded
_FULL_WELL_E = 15_000.0
_READ_NOISE_E = 5.0


@dataclass(frozen=True)
class LensDraw:
    """True lens, drawn at random.

    `f_number_told`: stated f-number / true f-number; `gains`: exposures of the images.
    """

    pupil: Pupil
    softness_px: float
    breathing: float
    f_number_told: float
    gains: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Shot:
    """Scene, at twice the stack's resolution, with a camera. `cache`: folder for the light."""

    scene: RgbdScene
    camera_name: str
    cache: Path = field(default_factory=cache_folder)

    @property
    def setup(self) -> EvaluationCamera:
        """True camera and focus sweep."""
        return EVALUATION_CAMERAS[self.camera_name]

    @property
    def focus_diopters(self) -> NDArray[np.float64]:
        """Focus (F,) of the sweep."""
        return np.array(self.setup.focus_diopters)

    @property
    def reference(self) -> int:
        """Index of the image with the photo's geometry: the middle one in focus.

        The estimator takes the same reference by default.
        """
        order = np.argsort(self.focus_diopters, kind="stable")
        return int(order[len(order) // 2])

    @property
    def depth_m(self) -> NDArray[np.float32]:
        """True depth (H, W) in the geometry of the reference, NaN = unknown."""
        middle = slice(OVERSAMPLING // 2, None, OVERSAMPLING)
        return self.scene.depth_m[middle, middle].copy()

    def rng(self, what: str) -> np.random.Generator:
        """Random generator for one purpose on this shot."""
        return np.random.default_rng([_SEED, zlib.crc32(f"{self.camera_name}/{self.scene.name}/{what}".encode())])

    def lens(self) -> LensDraw:
        """Draw the lens.

        0 or 5 to 9 blades; aberration to +-0.15 between rim and centre; breathing 0.8 to 2 times that of a thin lens;
        stated f-number with a log-normal error of 10 %, at most 20 %; exposures to +-5 %.
        """
        rng = self.rng("lens")
        pupil = Pupil(int(rng.choice([0, 5, 6, 7, 8, 9])), rng.uniform(0.0, 2 * math.pi), rng.uniform(-0.15, 0.15))
        softness, breathing = rng.uniform(0.35, 0.65), rng.uniform(0.8, 2.0)
        told = math.exp(0.1 * float(np.clip(rng.standard_normal(), -2.0, 2.0)))
        gains = rng.uniform(0.95, 1.05, len(self.focus_diopters))
        return LensDraw(pupil, float(softness), float(breathing), told, tuple(map(float, gains)))

    def breathing_scale(self, focus_diopters: NDArray[np.float64], breathing: float) -> NDArray[np.float64]:
        """Image scale (F,) relative to the reference image.

        The scale of a thin lens, ``1 / (1 - f D)``, to the power `breathing`.
        """
        f = self.setup.camera.focal_length_m
        magnification = 1.0 / (1.0 - f * focus_diopters)
        return np.asarray((magnification / magnification[self.reference]) ** breathing, np.float64)

    def light(self, views: Sequence[View], lens: LensDraw, scene: RgbdScene | None = None) -> NDArray[np.float32]:
        """Linear light (F, H, W, 3) of the views through the lens, cached.

        `scene` replaces the shot's own.
        """
        scene = self.scene if scene is None else scene
        recipe = f"{VERSION} {OVERSAMPLING} {self.setup.camera} {tuple(views)} {lens.pupil} {lens.softness_px}"
        if any(yaws := [view.yaw_rad for view in views]):
            recipe += f" {yaws}"
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
        return decode_srgb(value).astype(np.float32)

    def developed(
        self,
        light: NDArray[np.float32],
        gains: Sequence[float],
        what: str,
        full_well_e: float = _FULL_WELL_E,
        jpeg_quality: int | None = None,
    ) -> NDArray[np.uint8]:
        """Images (F, H, W, 3) of the light, 8-bit sRGB.

        Exposure and photon and read noise are applied, and JPEG (4:2:0) if `jpeg_quality` is given. Noise is drawn for
        the purpose `what`, with variance ``L / full_well + (read / full_well)^2`` in light L.
        """
        exposed = light * np.asarray(gains, np.float32)[:, None, None, None]
        deviation = np.sqrt(exposed / np.float32(full_well_e) + np.float32((_READ_NOISE_E / full_well_e) ** 2))
        noisy = exposed + deviation * self.rng(f"noise {what}").standard_normal(exposed.shape, np.float32)
        images = np.rint(encode(noisy) * 255.0).astype(np.uint8)
        return images if jpeg_quality is None else np.stack([_jpeg(image, jpeg_quality) for image in images])


def shots(
    scenes: Sequence[tuple[str, Path | int]], cameras: Sequence[str], width: int, cache: str | Path | None = None
) -> Iterator[Shot]:
    """Shots of every scene with every suitable camera, camera by camera.

    `scenes` as from :func:`scene_list`.
    """
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
    """Names and sources of scenes: RGB-D folders, then numbers of random scenes."""
    photos: list[tuple[str, Path | int]] = (
        [] if folder is None else [(path.name, path) for path in rgbd_folders(folder)]
    )
    return photos + [(f"procedural_{index}", index) for index in range(procedural)]


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    _, packed = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(image[..., ::-1])

"""Evaluation set: focal stacks rendered from photos with depth, for three cameras.

A folder holds one folder for each scene, with `rgb.png`, `depth_mm.png` (uint16, 0 = unknown) and `meta.json`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import SimulationConfig
from dfs_ros.simulation.render import RENDERER_VERSION, decode, encode_uint8, reduce_image, render_stack
from dfs_ros.simulation.scenes import random_scene
from dfs_ros.system import folders
from dfs_ros.system.cache import keep_array, read_array
from dfs_ros.types import Camera, FocalStack

_SEED = 1
_OVERSAMPLING = 2
_PROCEDURAL_SEED = 20_240_117


@dataclass(frozen=True)
class EvaluationCamera:
    """Camera of the evaluation set with its focus sweep.

    `camera.pixel_pitch_m` is that of the rendered pixels, at any width of the photo. Scenes must have a median depth
    over `min_median_depth_m`.
    """

    camera: Camera
    focus_diopters: tuple[float, ...]
    min_median_depth_m: float = 0.0


EVALUATION_CAMERAS = {
    "A": EvaluationCamera(Camera(15e-3, 2.8, 5.6e-6), (1 / 2, 1 / 4, 1 / 8), min_median_depth_m=1.2),
    "B": EvaluationCamera(Camera(8e-3, 1.4, 6e-6), (2.2, 1.7, 1.3, 0.9, 0.5)),
    "C": EvaluationCamera(Camera(6.8e-3, 1.85, 9e-6), (2.5, 1.6, 1.0, 0.5, 0.2)),
}
"""A: camera of DDFS's NYU evaluation, for distant scenes; B, C: small lenses swept over near depths."""


@dataclass(frozen=True, eq=False)
class RgbdScene:
    """Photo with depth.

    `rgb` uint8 (H, W, 3); `depth_m` float32 (H, W), NaN = unknown; `meta` as in meta.json.
    """

    name: str
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    meta: dict[str, object]


@dataclass(frozen=True, eq=False)
class RenderedStack:
    """Rendered focal stack with its ground truth.

    `depth_m` float32 (H, W), NaN where there is no ground truth; `sharp` uint8 (H, W, 3), the photo before blur.
    """

    name: str
    camera_name: str
    stack: FocalStack
    depth_m: NDArray[np.float32]
    sharp: NDArray[np.uint8]


def load_rgbd(folder: str | Path, width: int | None = None, multiple_of: int = 1) -> RgbdScene:
    """Read an RGB-D scene; resize it to `width`, if given.

    Colour is resized by area, depth by nearest neighbour, which keeps edges. The aspect ratio stays, with the height
    rounded to a multiple of `multiple_of`. Raises FileNotFoundError or ValueError, with the file's name, for missing or
    unexpected files.
    """
    folder = Path(folder)
    rgb = _read(folder / "rgb.png", cv2.IMREAD_COLOR)
    if rgb.dtype != np.uint8:
        raise ValueError(f"{folder / 'rgb.png'}: expected 8-bit colour, received {rgb.dtype}")
    depth_mm = _read(folder / "depth_mm.png", cv2.IMREAD_UNCHANGED)
    if depth_mm.dtype != np.uint16 or depth_mm.shape != rgb.shape[:2]:
        raise ValueError(
            f"{folder / 'depth_mm.png'}: expected uint16 of shape {rgb.shape[:2]}, as rgb.png, "
            f"received {depth_mm.dtype} {depth_mm.shape}"
        )
    meta_file = folder / "meta.json"
    if not meta_file.is_file():
        raise FileNotFoundError(f"{meta_file}: no such file")
    try:
        meta = json.loads(meta_file.read_text())
    except ValueError as error:
        raise ValueError(f"{meta_file}: not readable as JSON: {error}") from error
    rgb = np.ascontiguousarray(rgb[..., ::-1])
    if width is not None and width != rgb.shape[1]:
        size = (width, multiple_of * round(rgb.shape[0] * width / rgb.shape[1] / multiple_of))
        smaller = width < rgb.shape[1]
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC))
        depth_mm = np.asarray(cv2.resize(depth_mm, size, interpolation=cv2.INTER_NEAREST_EXACT))
    depth_m = np.where(depth_mm > 0, depth_mm.astype(np.float32) / 1000.0, np.float32(np.nan))
    return RgbdScene(folder.name, rgb, depth_m, meta)


def rgbd_folders(folder: str | Path) -> list[Path]:
    """RGB-D scenes in `folder`, sorted. Raises FileNotFoundError if there are none."""
    folder = Path(folder)
    scenes = sorted(path.parent for path in folder.glob("*/depth_mm.png"))
    if not scenes:
        raise FileNotFoundError(f"{folder}: expected folders with rgb.png, depth_mm.png and meta.json, found none")
    return scenes


def evaluation_stacks(
    rgbd_folder: str | Path, cameras: Sequence[str] = ("A", "B", "C"), width: int = 320, cache: str | Path | None = None
) -> Iterator[RenderedStack]:
    """Render every scene of `rgbd_folder` through every camera that suits it.

    Noise 0.4 %, no breathing, fixed seed. Camera by camera, scenes by name. Rendered stacks are kept in `cache` (None:
    `cache_folder()`), under a digest of their inputs. Ground truth is not clipped. Raises ValueError for an unknown
    camera.
    """
    check_cameras(cameras)
    folders = rgbd_folders(rgbd_folder)
    for camera_name in cameras:
        for folder in folders:
            scene = load_rgbd(folder, width * _OVERSAMPLING, multiple_of=_OVERSAMPLING)
            if float(np.nanmedian(scene.depth_m)) > EVALUATION_CAMERAS[camera_name].min_median_depth_m:
                yield render_scene(scene, camera_name, EVALUATION_CAMERAS[camera_name], cache)


def procedural_stacks(
    count: int, cameras: Sequence[str] = ("A", "B", "C"), width: int = 320, cache: str | Path | None = None
) -> Iterator[RenderedStack]:
    """Render random scenes through the cameras, for pictures that may be published.

    Camera by camera; no training uses these seeds. Otherwise as :func:`evaluation_stacks`.
    """
    check_cameras(cameras)
    for camera_name in cameras:
        setup = EVALUATION_CAMERAS[camera_name]
        for index in range(count):
            yield render_scene(procedural_scene(index, setup, width), camera_name, setup, cache)


def procedural_scene(index: int, setup: EvaluationCamera, width: int) -> RgbdScene:
    """Random scene `index` for a camera, at twice the width of the stack."""
    size = (width * _OVERSAMPLING, round(0.75 * width) * _OVERSAMPLING)
    near_m, far_m = (1.5, 8.0) if setup.min_median_depth_m else (0.4, 4.0)
    made = random_scene(np.random.default_rng((_PROCEDURAL_SEED, index)), *size, near_m=near_m, far_m=far_m)
    return RgbdScene(f"procedural_{index}", made.rgb, np.asarray(made.depth_m, np.float32), {})


def cache_folder() -> Path:
    """Folder of rendered stacks: `$XDG_CACHE_HOME` (default ~/.cache) /dfs_ros/rendered."""
    return folders.cache_folder("rendered")


def check_cameras(cameras: Sequence[str]) -> None:
    """Raise ValueError for an unknown camera."""
    unknown = [name for name in cameras if name not in EVALUATION_CAMERAS]
    if unknown:
        raise ValueError(f"cameras: unknown {unknown}; known: {', '.join(EVALUATION_CAMERAS)}")


def render_scene(
    scene: RgbdScene, camera_name: str, setup: EvaluationCamera, cache: str | Path | None = None
) -> RenderedStack:
    """Render a scene, of twice the stack's width, through a camera, with the cache."""
    cache = cache_folder() if cache is None else Path(cache)
    simulation = SimulationConfig()
    recipe = f"{RENDERER_VERSION} {_SEED} {_OVERSAMPLING} {setup} {simulation} {scene.rgb.shape}"
    digest = hashlib.sha256(recipe.encode() + scene.rgb.tobytes() + scene.depth_m.tobytes()).hexdigest()[:24]
    file = cache / f"{scene.name}_{re.sub('[^A-Za-z0-9]+', '_', camera_name)}_{digest}.npy"
    height, width = (n // _OVERSAMPLING for n in scene.depth_m.shape)
    images = read_array(file, (len(setup.focus_diopters), height, width, 3), np.uint8)
    if images is None:
        images = render_stack(
            scene.rgb, scene.depth_m, setup.camera, setup.focus_diopters, oversampling=_OVERSAMPLING, rng=_SEED
        ).images
        keep_array(file, images)
    focus = np.array(setup.focus_diopters)
    exact = np.zeros(len(focus))
    stack = FocalStack(images, focus, setup.camera, magnification=np.ones(len(focus)), focus_sigma_diopters=exact)
    depth_m = scene.depth_m[_OVERSAMPLING // 2 :: _OVERSAMPLING, _OVERSAMPLING // 2 :: _OVERSAMPLING]
    sharp = encode_uint8(reduce_image(decode(scene.rgb), _OVERSAMPLING))
    return RenderedStack(scene.name, camera_name, stack, depth_m.copy(), sharp)


def _read(file: Path, mode: int) -> NDArray[Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    image = cv2.imread(str(file), mode)
    if image is None:
        raise ValueError(f"{file}: not readable as an image")
    return np.asarray(image)

"""Training stacks: random scenes and photos with depth, through random lenses.

No particular robot's camera is imitated. A stack depends on its number alone, so a set of stacks can be made again, in
any order and by any number of processes, and is cached beside its recipe.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_research.evaluation import rendered
from dfs_research.evaluation.rendered import EvaluationCamera, RgbdScene, load_rgbd, rgbd_folders
from dfs_ros.optics.thin_lens import coc_px
from dfs_ros.simulation.pupil import Pupil
from dfs_ros.simulation.render import RENDERER_VERSION, render_stack
from dfs_ros.simulation.scenes import random_scene
from dfs_ros.system.atomic import atomic_file
from dfs_ros.types import Camera, FocalStack

_LOG = logging.getLogger(__name__)

RECIPE_VERSION = 2
"""Increment when the same number gives another stack."""

PARTS = ("train", "validation", "calibration")
"""Parts of the scenes, disjoint."""

SIZE_PX = 176
_PART_OF_SCENE = (0, 0, 2, 0, 0, 1)  # index in PARTS of scene i modulo 6
_OVERSAMPLING = 2
_LAYER_STEP_PX = 0.7
_MAX_LAYERS = 48
_PACKAGED_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "brick.png", "grass.png", "gravel.png")


@dataclass(frozen=True, eq=False)
class TrainingStack:
    """Rendered stack, without noise but for 8 bits, with its true depth.

    `depth_m` float32 (H, W), NaN where unknown.
    """

    stack: FocalStack
    depth_m: NDArray[np.float32]


@dataclass(frozen=True)
class Sources:
    """Sources of scenes: folders of photos with depth, and photos for textures."""

    rgbd: tuple[Path, ...] = ()
    photos: tuple[Path, ...] = ()

    @classmethod
    def find(cls, rgbd_folder: str | Path | None = None, part: str = "train") -> Sources:
        """Sources of a part: `train`, `validation` (to choose by) or `calibration` of sigma.

        Of the RGB-D scenes of a folder (None: no such scenes), sorted by name, every sixth is for validation and
        another sixth for calibration. The photos of scikit-image, if installed, are for training.
        """
        if part not in PARTS:
            raise ValueError(f"part: expected one of {', '.join(PARTS)}, received {part!r}")
        every = rgbd_folders(rgbd_folder) if rgbd_folder is not None else []
        rgbd = tuple(path for i, path in enumerate(every) if PARTS[_PART_OF_SCENE[i % len(_PART_OF_SCENE)]] == part)
        if part != "train":
            return cls(rgbd, tuple(path / "rgb.png" for path in rgbd))
        spec = importlib.util.find_spec("skimage")
        folder = Path(spec.origin).parent / "data" if spec is not None and spec.origin else Path()
        packaged = tuple(folder / name for name in _PACKAGED_PHOTOS if (folder / name).is_file())
        return cls(rgbd, packaged + tuple(path / "rgb.png" for path in rgbd))

    def describe(self) -> str:
        """For the model card."""
        scenes = ", ".join(path.name for path in self.rgbd) or "none"
        photos = ", ".join(path.name for path in self.photos if path.name != "rgb.png") or "none"
        return f"Photos with depth: {scenes}; further textures from photos: {photos}; the rest is procedural"


def cache_folder() -> Path:
    """Folder of training stacks, beside those of the evaluation."""
    return rendered.cache_folder().parent / "training"


@dataclass(frozen=True)
class StackSet:
    """Set of `count` training stacks of a seed, rendered once and cached.

    `setup`: one camera and its focus for all stacks; None: another lens for each.
    """

    sources: Sources
    count: int
    seed: int = 0
    size_px: int = SIZE_PX
    folder: Path = field(default_factory=cache_folder)
    setup: EvaluationCamera | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"stacks: expected 1 or more, received {self.count}")

    def recipe(self) -> str:
        """Digest of the inputs of the stacks, which names a sub-folder of the cache."""
        names = [str(path) for path in (*self.sources.rgbd, *self.sources.photos)]
        contents = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self.sources.photos]
        text = repr(
            (RECIPE_VERSION, RENDERER_VERSION, self.seed, self.size_px, [Path(n).name for n in names], contents)
        )
        if self.setup is not None:
            text += repr(self.setup)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """For the model card."""
        lens = "random lenses" if self.setup is None else f"one lens, {describe_setup(self.setup)}"
        return f"{self.count} focal stacks rendered through {lens}. {self.sources.describe()}"

    def prepare(self, processes: int) -> Iterator[int]:
        """Render missing stacks; yield the number of available ones as it grows."""
        folder = self.folder / self.recipe()
        missing = [i for i in range(self.count) if not (folder / f"{i:05d}.npz").is_file()]
        done = self.count - len(missing)
        yield done
        if not missing:
            return
        if processes <= 1:
            for index in missing:
                _render_to_file(self, folder, index)
                done += 1
                yield done
            return
        spawn = multiprocessing.get_context("spawn")  # a fork would hold the locks of OpenCV's and PyTorch's threads
        with ProcessPoolExecutor(processes, spawn, _one_thread) as pool:
            try:
                for _ in pool.map(_render_to_file, *zip(*((self, folder, i) for i in missing), strict=True)):
                    done += 1
                    yield done
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def load(self) -> list[TrainingStack]:
        """Load all stacks, in order; render missing ones."""
        folder = self.folder / self.recipe()
        stacks = []
        for index in range(self.count):
            file = folder / f"{index:05d}.npz"
            if not file.is_file():
                _render_to_file(self, folder, index)
            stacks.append(read_training_stack(file))
        return stacks


def random_stack(
    rng: np.random.Generator, sources: Sources, size_px: int = SIZE_PX, setup: EvaluationCamera | None = None
) -> TrainingStack:
    """Random stack: photo with depth or random scene, random lens, random focus.

    2 to 10 images in any order. With a `setup`: its ideal lens, its focus, and scenes scaled to suit it.
    """
    scale = math.exp(rng.uniform(math.log(0.25), math.log(2.5)))  # only blur may show the size of a scene
    if sources.rgbd and rng.random() < 0.5:
        rgb, depth_m = _photo_crop(rng, load_rgbd(sources.rgbd[int(rng.integers(len(sources.rgbd)))]), size_px)
        depth_m = depth_m * np.float32(scale)
    else:
        rgb, depth_m = _random_scene(rng, sources.photos, scale, size_px)
    if setup is None:
        camera, focus = random_lens(rng, 1.0 / depth_m[np.isfinite(depth_m)], size_px)
        pupil = random_pupil(rng)
    else:
        camera, focus, pupil = setup.camera, np.array(setup.focus_diopters), None
        depth_m = depth_m * np.float32(_median_for(rng, focus) / np.nanmedian(depth_m))
    stack = render_stack(
        rgb,
        depth_m,
        camera,
        focus,
        oversampling=_OVERSAMPLING,
        rng=rng,
        noise=0.0,
        layer_step_px=_LAYER_STEP_PX,
        max_layers=_MAX_LAYERS,
        pupil=pupil,
    )
    middle = slice(_OVERSAMPLING // 2, None, _OVERSAMPLING)
    return TrainingStack(stack, np.ascontiguousarray(depth_m[middle, middle], dtype=np.float32))


def _median_for(rng: np.random.Generator, focus_diopters: NDArray[np.float64]) -> float:
    """Random median depth in metres around the focus distances of a sweep."""
    farthest, nearest = max(0.6 * focus_diopters.min(), 0.05), 1.2 * focus_diopters.max()
    return math.exp(-rng.uniform(math.log(farthest), math.log(nearest)))


def describe_setup(setup: EvaluationCamera) -> str:
    """Camera and focus in words."""
    lens = setup.camera
    focus = ", ".join(f"{value:.4g}" for value in setup.focus_diopters)
    return (
        f"{1e3 * lens.focal_length_m:g} mm, f/{lens.f_number:g}, {1e6 * lens.pixel_pitch_m:.4g} um pixels, "
        f"focused at {focus} dioptres"
    )


def random_lens(
    rng: np.random.Generator, inverse_depth: NDArray[np.floating], size_px: int
) -> tuple[Camera, NDArray[np.float64]]:
    """Random camera and focus (F,) in dioptres, with 2 to 25 px of widest blur."""
    far, near = np.percentile(inverse_depth, [1.0, 99.0])
    span = max(near - far, 0.15 * near)
    low = max(0.0, far + span * rng.uniform(-0.6, 0.35))
    high = max(near + span * rng.uniform(-0.35, 0.5), low + 0.3 * span)
    count = int(np.clip(round(rng.normal(5.0, 2.0)), 2, 10))
    focus = np.linspace(low, high, count)
    focus += rng.uniform(-0.3, 0.3, count) * (high - low) / count
    focus = rng.permutation(np.clip(focus, 0.0, None))
    widest_px = math.exp(rng.uniform(math.log(2.0), math.log(25.0)))
    px_per_diopter = widest_px / max(np.abs(near - focus).max(), np.abs(far - focus).max())
    focal_length = min(math.exp(rng.uniform(math.log(3e-3), math.log(50e-3))), 0.2 / max(high, 1e-6))
    f_number = rng.uniform(1.2, 5.6)
    # c = f^2 / (N p) per dioptre gives the pitch; if no sensor has it, the aperture changes.
    pitch = float(np.clip(focal_length**2 / (f_number * px_per_diopter), 1e-6, 5e-4))
    camera = Camera(focal_length, focal_length**2 / (pitch * px_per_diopter), pitch)
    extremes = 1.0 / inverse_depth.max(), 1.0 / inverse_depth.min()
    blur = max(float(coc_px(1.0 / depth, focus, camera).max()) for depth in extremes)
    if blur > size_px / 3:  # a stray near pixel
        camera = Camera(camera.focal_length_m, camera.f_number * blur / (size_px / 3), camera.pixel_pitch_m)
    return camera, focus


def random_pupil(rng: np.random.Generator) -> Pupil | None:
    """Random pupil: mostly a disk (None), else a polygon, spherical aberration, or both."""
    if rng.random() < 0.6:
        return None
    blades = int(rng.integers(5, 10)) if rng.random() < 0.6 else 0
    aberration = float(np.clip(rng.normal(0.0, 0.25), -0.7, 0.7)) if blades == 0 or rng.random() < 0.5 else 0.0
    return Pupil(blades, rng.uniform(0.0, 2.0 * math.pi), aberration)


def _photo_crop(
    rng: np.random.Generator, scene: RgbdScene, size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Random square of the photo, `_OVERSAMPLING` times finer than the stack, mirrored or not."""
    height, width = scene.depth_m.shape
    wanted = _OVERSAMPLING * size_px
    for _ in range(20):
        side = int(min(height, width) * rng.uniform(0.55, 1.0))
        top, left = (int(rng.integers(n - side + 1)) for n in (height, width))
        rgb = scene.rgb[top : top + side, left : left + side]
        depth = scene.depth_m[top : top + side, left : left + side]
        if np.isfinite(depth).mean() > 0.6:
            break
    shrink = side > wanted
    rgb = np.asarray(cv2.resize(rgb, (wanted, wanted), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC))
    depth = np.asarray(cv2.resize(depth, (wanted, wanted), interpolation=cv2.INTER_NEAREST_EXACT))
    if rng.random() < 0.5:
        rgb, depth = rgb[:, ::-1], depth[:, ::-1]
    return np.ascontiguousarray(rgb), np.ascontiguousarray(depth, dtype=np.float32)


def _random_scene(
    rng: np.random.Generator, photos: Sequence[Path], scale: float, size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    textures = []
    for i in rng.permutation(len(photos))[:4]:
        photo = cv2.imread(str(photos[int(i)]), cv2.IMREAD_COLOR)
        if photo is not None:
            textures.append(np.ascontiguousarray(photo[..., ::-1], dtype=np.uint8))
    near, ratio = scale * rng.uniform(0.4, 2.0), math.exp(rng.uniform(math.log(1.3), math.log(12.0)))
    side = _OVERSAMPLING * size_px
    scene = random_scene(rng, side, side, near_m=near, far_m=near * ratio, photos=textures)
    return scene.rgb, scene.depth_m


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _render_to_file(stacks: StackSet, folder: Path, index: int) -> None:
    made = random_stack(np.random.default_rng((stacks.seed, index)), stacks.sources, stacks.size_px, stacks.setup)
    write_training_stack(folder / f"{index:05d}.npz", made)


def write_training_stack(file: Path, made: TrainingStack) -> None:
    """Write a stack to a .npz file atomically; create its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lens = made.stack.camera
    with atomic_file(file) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            images=made.stack.images,
            depth_m=made.depth_m,
            focus_diopters=made.stack.focus_diopters,
            lens=np.array([lens.focal_length_m, lens.f_number, lens.pixel_pitch_m]),
        )


def read_training_stack(file: Path) -> TrainingStack:
    """Read a file of :func:`write_training_stack`."""
    with np.load(file, allow_pickle=False) as archive:
        focus = archive["focus_diopters"]
        stack = FocalStack(
            archive["images"], focus, Camera(*archive["lens"].tolist()), magnification=np.ones(len(focus))
        )
        return TrainingStack(stack, archive["depth_m"])

"""NYU Depth V2, labelled part: stacks rendered from photos with depth, as in DDFS.

Silberman et al., ECCV 2012. One MATLAB 7.3 file (HDF5), nyu_depth_v2_labeled.mat:

    images    uint8 (1449, 3, 640, 480)         MATLAB's order: columns before rows
    depths    float32 (1449, 640, 480)          metres, filled in

The official split is in splits.mat beside it (`trainNdxs`, `testNdxs`, from 1); without that file the first 795 are for
training. Stacks are rendered through the lens of DDFS's experiments (camera A of the evaluation: 15 mm, f/2.8, 5.6 um,
focused at 2, 4 and 8 m) or another one, and kept in the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfs_research.evaluation.rendered import EvaluationCamera
from dfs_research.training.cameras import training_camera
from dfs_research.training.lazy_stacks import LazyStacks, open_hdf5
from dfs_research.training.settings import ANY_CAMERA, TrainingSettings
from dfs_research.training.stacks import TrainingStack, read_training_stack, write_training_stack
from dfs_ros.simulation.render import RENDERER_VERSION, render_stack

_TRAINING_SCENES = 795
_BORDER_PX = 8  # white frame of the photos, left by their rectification
_LAYOUT = "expected the datasets images (N, 3, W, H) and depths (N, W, H) of nyu_depth_v2_labeled.mat"
_SPLITS = "splits.mat"
_INDICES = {"train": "trainNdxs", "validation": "testNdxs"}


@dataclass(frozen=True)
class NyuData:
    """Part of the scenes through one lens; stacks are rendered on access or by `prepare`."""

    file: Path
    part: str
    scenes: tuple[int, ...]
    setup: EvaluationCamera
    cache: Path

    @classmethod
    def find(cls, file: str | Path, part: str, settings: TrainingSettings, cache: Path) -> NyuData:
        """Open the scenes of a part, `train` or `validation`.

        The camera is the settings', or camera A for `any`. Raises FileNotFoundError for a missing file, ValueError for
        an unexpected one.
        """
        file = Path(file)
        with open_hdf5(file) as opened:
            missing = [key for key in ("images", "depths") if key not in opened]
            if missing:
                raise ValueError(f"{file}: {_LAYOUT}; {missing[0]} is missing, it has {', '.join(opened) or 'none'}")
            images, depths = opened["images"].shape, opened["depths"].shape
        if len(images) != 4 or images[1] != 3 or depths != (images[0], *images[2:]):
            raise ValueError(f"{file}: {_LAYOUT}; received {images} and {depths}")
        scenes = _split(file.parent / _SPLITS, part, images[0])
        if not scenes:
            raise ValueError(f"{file}: none of its {images[0]} scenes is for {part}")
        name = "A" if settings.camera == ANY_CAMERA else settings.camera
        setup = training_camera(name, settings.focus_distances_m)
        stat = file.stat()
        recipe = f"{RENDERER_VERSION} {setup} {file.name} {stat.st_size} {stat.st_mtime_ns}"
        return cls(file, part, scenes, setup, cache / f"nyu_{hashlib.sha256(recipe.encode()).hexdigest()[:16]}")

    @property
    def count(self) -> int:
        return len(self.scenes)

    def prepare(self, processes: int) -> Iterator[int]:
        """Render missing stacks in sequence: the renderer uses all cores."""
        for done, scene in enumerate(self.scenes, 1):
            if not self._cached(scene).is_file():
                self._render(scene)
            yield done

    def load(self) -> Sequence[TrainingStack]:
        return LazyStacks(self)

    def describe(self) -> str:
        focus = ", ".join(f"{1.0 / d:g}" for d in self.setup.focus_diopters)
        return f"NYU Depth V2, {self.count} scenes of the part {self.part}, rendered as focused at {focus} m"

    def read(self, index: int) -> TrainingStack:
        """Read a stack by number."""
        scene = self.scenes[index]
        if not self._cached(scene).is_file():
            self._render(scene)
        return read_training_stack(self._cached(scene))

    def _cached(self, scene: int) -> Path:
        return self.cache / f"{scene:05d}.npz"

    def _render(self, scene: int) -> None:
        with open_hdf5(self.file) as opened:
            rgb = np.ascontiguousarray(opened["images"][scene].transpose(2, 1, 0), np.uint8)
            depth_m = np.ascontiguousarray(opened["depths"][scene].T, np.float32)
        inside = (slice(_BORDER_PX, -_BORDER_PX),) * 2
        rgb, depth_m = np.ascontiguousarray(rgb[inside]), depth_m[inside].copy()
        depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
        stack = render_stack(rgb, depth_m, self.setup.camera, self.setup.focus_diopters, rng=scene, noise=0.0)
        write_training_stack(self._cached(scene), TrainingStack(stack, depth_m))


def _split(file: Path, part: str, count: int) -> tuple[int, ...]:
    """Scenes of a part, numbered from 0."""
    if not file.is_file():
        first_validation = min(_TRAINING_SCENES, count)
        return tuple(range(first_validation)) if part == "train" else tuple(range(first_validation, count))
    from scipy.io import loadmat

    try:
        numbers = np.asarray(loadmat(file)[_INDICES[part]]).ravel().astype(int) - 1
    except (KeyError, ValueError, OSError, NotImplementedError) as error:
        raise ValueError(f"{file}: expected the official split, trainNdxs and testNdxs: {error}") from error
    return tuple(int(n) for n in numbers if 0 <= n < count)

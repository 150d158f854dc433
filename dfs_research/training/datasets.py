"""Training data: stacks rendered here, or a public dataset on disk.

Every dataset is a :class:`TrainingData`. None is downloaded; errors name the expected layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from dfs_research.training.cameras import training_camera
from dfs_research.training.settings import ANY_CAMERA, TrainingSettings
from dfs_research.training.stacks import Sources, StackSet, TrainingStack, cache_folder

DATASETS = ("rendered", "defocusnet", "nyu", "ddff12")


class TrainingData(Protocol):
    """Stacks with depth to train on."""

    @property
    def count(self) -> int:
        """Number of stacks."""

    def prepare(self, processes: int) -> Iterator[int]:
        """Prepare the stacks; yield the number of prepared ones as it grows."""

    def load(self) -> Sequence[TrainingStack]:
        """Stacks with depth; some datasets read each on access."""

    def describe(self) -> str:
        """Description for the model card."""


def open_dataset(
    name: str,
    settings: TrainingSettings,
    *,
    data: str | Path | None = None,
    rgbd: str | Path | None = None,
    part: str = "train",
    cache: str | Path | None = None,
) -> TrainingData:
    """Open a dataset by name.

    Parameters
    ----------
    name
        `rendered` (from the photos with depth in `rgbd`, procedural scenes and textures, through the settings' camera),
        `defocusnet`, `nyu` or `ddff12`.
    data
        Path of a dataset other than `rendered`: a folder for `defocusnet`, else a file.
    part
        `train` or `validation`, split as the dataset's authors do.
    cache
        Folder of rendered stacks; None: the user's cache.

    Raises ValueError for an unknown name or incompatible options, FileNotFoundError for missing or unexpected `data`;
    both name what is expected.
    """
    folder = cache_folder() if cache is None else Path(cache)
    if name == "rendered":
        setup = None
        if settings.camera != ANY_CAMERA:
            setup = training_camera(settings.camera, settings.focus_distances_m)
        return StackSet(Sources.find(rgbd, part), settings.stacks, settings.seed, folder=folder, setup=setup)
    if name not in DATASETS:
        raise ValueError(f"dataset: expected one of {', '.join(DATASETS)}, received {name!r}")
    if data is None:
        raise ValueError(f"dataset {name}: expected --data, where it lies; see `dfs train --help`")
    if name == "defocusnet":
        from dfs_research.training.defocusnet import DefocusNetData

        return DefocusNetData.find(data, part, settings.focus_distances_m)
    if name == "nyu":
        from dfs_research.training.nyu import NyuData

        return NyuData.find(data, part, settings, folder)
    from dfs_research.training.ddff import DdffData

    return DdffData.find(data, part)

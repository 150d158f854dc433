"""What a network is trained on: stacks rendered here, or one of the public datasets where it lies on disk.

Every dataset is a :class:`TrainingData`: something that can be prepared, loaded as a sequence of stacks with depth, and
described in the model card. None is downloaded; errors name the layout that is expected.
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
        """How many there are."""

    def prepare(self, processes: int) -> Iterator[int]:
        """Make ready what takes time; yields the number of stacks that are ready as it grows."""

    def load(self) -> Sequence[TrainingStack]:
        """The stacks; some are only read when they are asked for."""

    def describe(self) -> str:
        """For the model card."""


def open_dataset(
    name: str,
    settings: TrainingSettings,
    *,
    data: str | Path | None = None,
    rgbd: str | Path | None = None,
    part: str = "train",
    cache: str | Path | None = None,
) -> TrainingData:
    """A dataset by name.

    Parameters
    ----------
    name
        `rendered` (from the photos with depth in `rgbd`, procedural scenes and textures, through the settings' camera),
        `defocusnet`, `nyu` or `ddff12`.
    data
        Where a dataset other than `rendered` lies: a folder for `defocusnet`, else a file.
    part
        `train` or `validation`, split as the dataset's authors do.
    cache
        Folder for what is rendered; None: the user's.

    Raises ValueError for an unknown name and options that do not go together, FileNotFoundError where `data` is not
    what it should be; both say what is expected.
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

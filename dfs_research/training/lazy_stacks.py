"""Stacks of a dataset on disk, read one by one as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, overload

from dfs_research.training.stacks import TrainingStack


class LazyData(Protocol):
    """Data whose stacks are read one by one."""

    @property
    def count(self) -> int:
        """How many there are."""

    def read(self, index: int) -> TrainingStack:
        """One of them."""


class LazyStacks(Sequence[TrainingStack]):
    """Stacks that are read each time they are asked for."""

    def __init__(self, data: LazyData) -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.count

    @overload
    def __getitem__(self, index: int) -> TrainingStack: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainingStack]: ...
    def __getitem__(self, index: int | slice) -> TrainingStack | list[TrainingStack]:
        numbers = range(len(self))[index]
        return self._data.read(numbers) if isinstance(numbers, int) else [self._data.read(i) for i in numbers]


def open_hdf5(file: str | Path) -> Any:
    """An h5py.File to read. Raises FileNotFoundError or ValueError, also where h5py is not installed."""
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{file}: reading it needs h5py; `pip install dfs_ros[datasets]`") from error
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{file}: not readable as HDF5 (MATLAB 7.3 files are HDF5): {error}") from error

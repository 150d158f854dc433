"""Stacks of a dataset on disk, read on access."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, overload

from dfs_research.training.stacks import TrainingStack


class LazyData(Protocol):
    """Data whose stacks are read one by one."""

    @property
    def count(self) -> int:
        """Number of stacks."""

    def read(self, index: int) -> TrainingStack:
        """Read a stack by number."""


class LazyStacks(Sequence[TrainingStack]):
    """Sequence of stacks, read at every access."""

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
    """Open an HDF5 file to read. Raises FileNotFoundError, or ValueError, also without h5py."""
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

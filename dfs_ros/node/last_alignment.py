"""How the images of the last stack were aligned: where the search for the next begins."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfs_ros.types import DepthResult, FocalStack


class _Kept(NamedTuple):
    focus_diopters: NDArray[np.float64]
    shape: tuple[int, ...]
    frames: tuple[Any, ...]


class LastAlignment:
    """The alignment of the newest stack, for the next one of the same focus positions and image size."""

    def __init__(self, tolerance_diopters: float) -> None:
        self._tolerance_diopters = tolerance_diopters
        self._last: _Kept | None = None

    def keep(self, stack: FocalStack, result: DepthResult) -> None:
        """`stack` gave `result`."""
        self._last = _Kept(stack.focus_diopters, stack.images.shape, result.alignment)

    def forget(self) -> None:
        """The next stack has nothing to do with the last."""
        self._last = None

    def of(self, stack: FocalStack) -> tuple[Any, ...] | None:
        """The alignment of each frame of the last stack, if that had the same focus sequence."""
        if self._last is None:
            return None
        before = self._last
        if before.shape != stack.images.shape or len(before.frames) != len(stack):
            return None
        alike = np.abs(before.focus_diopters - stack.focus_diopters).max() <= self._tolerance_diopters
        return before.frames if alike else None

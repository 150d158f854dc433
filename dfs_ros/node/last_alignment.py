"""Alignment of the last stack, as initial value for the next."""

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
    """Alignment of the newest stack, for stacks of the same focus positions and image size."""

    def __init__(self, tolerance_diopters: float) -> None:
        self._tolerance_diopters = tolerance_diopters
        self._last: _Kept | None = None

    def keep(self, stack: FocalStack, result: DepthResult) -> None:
        """Keep the alignment in the `result` of `stack`."""
        self._last = _Kept(stack.focus_diopters, stack.images.shape, result.alignment)

    def forget(self) -> None:
        """Forget the alignment."""
        self._last = None

    def of(self, stack: FocalStack) -> tuple[Any, ...] | None:
        """Alignment of each frame of the last stack; None for another focus sequence or size."""
        if self._last is None:
            return None
        before = self._last
        if before.shape != stack.images.shape or len(before.frames) != len(stack):
            return None
        alike = np.abs(before.focus_diopters - stack.focus_diopters).max() <= self._tolerance_diopters
        return before.frames if alike else None

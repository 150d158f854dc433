"""Transfer functions of the blur for every hypothesis and image, fast: from a table along the radius, or separably.

All models are symmetric, so one quadrant of frequencies holds everything: rows 0 ... H' / 2, columns 0 ... W' / 2.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from dfs_ros import optics
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.cost_volume.reference import laplacian_transfer, table_psf

Real = NDArray[np.float32]

_TABLE_ENTRIES_PER_UNIT = 1024.0  # of x = c rho: linear interpolation errs by less than 1e-6 where the peak is 1
_KEPT_BYTES = 128 << 20


class TransferFunctions:
    """Transfer functions of a camera setting, image size and set of hypotheses.

    Quadrants that were asked for are kept while they fit in `_KEPT_BYTES`, so that the next stack of the same
    camera setting finds them.
    """

    def __init__(self, problem: Problem) -> None:
        self._coc_px = problem.coc_px
        self._psf = problem.cost.psf
        self._size = problem.padded_size
        height, width = self._size
        self._mirror = np.minimum(np.arange(height), height - np.arange(height))
        rows, columns = height // 2 + 1, width // 2 + 1
        self._kept: dict[int, Real] = {}
        self._most_kept = _KEPT_BYTES // (4 * self._coc_px.shape[1] * rows * columns)
        if self._psf == "table":
            self._cosines = [
                np.cos(2 * np.pi * np.arange(n)[:, None] * np.arange(_half_support(self._coc_px.max()) + 1) / size)
                for n, size in ((rows, height), (columns, width))
            ]
        else:
            frequency = np.hypot(np.arange(rows)[:, None] / height, np.arange(columns)[None, :] / width)
            self._frequency = frequency.astype(np.float32)
            reach = np.arange(int(frequency.max() * self._coc_px.max() * _TABLE_ENTRIES_PER_UNIT) + 3)
            model = optics.disk_transfer if self._psf == "disk" else optics.gaussian_transfer
            self._table = model(1.0, reach / _TABLE_ENTRIES_PER_UNIT).astype(np.float32)
            self._steps = np.diff(self._table, append=0).astype(np.float32)

    def half_spectra(self, d: int) -> Real:
        """Hypothesis d: float32 (F, H', 2 (W' // 2 + 1)), every value twice, to multiply real and imaginary parts."""
        return self.expanded(self.quadrants(d))

    def quadrants(self, d: int) -> Real:
        """Hypothesis d: float32 (F, H' // 2 + 1, W' // 2 + 1)."""
        kept = self._kept.get(d)
        if kept is not None:
            return kept
        one = self._separable if self._psf == "table" else self._radial
        quadrants = np.stack([one(float(c)) for c in self._coc_px[d]])
        if len(self._kept) < self._most_kept:
            self._kept[d] = quadrants
        return quadrants

    def expanded(self, quadrants: Real) -> Real:
        """Quadrants (..., H' // 2 + 1, W' // 2 + 1) as half spectra with every value twice."""
        return np.repeat(quadrants, 2, axis=-1)[..., self._mirror, :]

    def laplacian_squared(self) -> Real:
        """|L|^2 of the Laplacian, float32 (H' // 2 + 1, W' // 2 + 1)."""
        rows, columns = self._size[0] // 2 + 1, self._size[1] // 2 + 1
        return np.asarray(laplacian_transfer(self._size)[:rows, :columns] ** 2, np.float32)

    def _radial(self, diameter_px: float) -> Real:
        position = self._frequency * np.float32(diameter_px * _TABLE_ENTRIES_PER_UNIT)
        index = position.astype(np.int32)
        position -= index
        position *= np.take(self._steps, index)
        position += np.take(self._table, index)
        return position

    def _separable(self, diameter_px: float) -> Real:
        # The kernel is small and symmetric both ways: its transform is a sum of cosines over one quadrant of it.
        kernel = table_psf(diameter_px)
        half = kernel.shape[0] // 2
        quadrant = kernel[half:, half:] * np.where(np.arange(half + 1) > 0, 2.0, 1.0)
        quadrant *= np.where(np.arange(half + 1) > 0, 2.0, 1.0)[:, None]
        down, across = (c[:, : half + 1] for c in self._cosines)
        return np.asarray(down @ quadrant @ across.T, np.float32)


def _half_support(diameter_px: float) -> int:
    return int(table_psf(float(diameter_px)).shape[0] // 2)


_recent: OrderedDict[object, TransferFunctions] = OrderedDict()
_recent_lock = threading.Lock()


def transfer_functions(problem: Problem) -> TransferFunctions:
    """The transfer functions of a problem; those of the last two camera settings are kept."""
    key = (problem.coc_px.tobytes(), problem.coc_px.shape, problem.cost.psf, problem.padded_size)
    with _recent_lock:
        if key not in _recent:
            _recent[key] = TransferFunctions(problem)
        _recent.move_to_end(key)
        while len(_recent) > 2:
            _recent.popitem(last=False)
        return _recent[key]

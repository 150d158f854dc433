"""Transfer functions of the blur, from a radial table or separably.

All models are symmetric, so one quadrant of frequencies holds everything: rows 0 ... H' / 2, columns 0 ... W' / 2.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from dfs_ros.cost_volume.problem import Problem
from dfs_ros.cost_volume.reference import laplacian_transfer, table_psf
from dfs_ros.optics import thin_lens

Real = NDArray[np.float32]

_TABLE_ENTRIES_PER_UNIT = 1024.0  # of x = c rho: error of linear interpolation under 1e-6 of the peak


class TransferFunctions:
    """Transfer functions of a problem: camera setting, image size and hypotheses.

    With `keep`, those of each focus are cached for later problems, within a limit.
    """

    def __init__(self, problem: Problem, keep: bool = False) -> None:
        self._coc_px, self._aberration = problem.coc_px, problem.aberration
        self._psf = problem.cost.psf
        self._size = height, width = problem.padded_size
        self._quadrant_size = height // 2 + 1, width // 2 + 1
        self._kept: list[list[Real | None]] | None = None
        if keep:
            shared = (self._psf, self._size, self._aberration)
            bytes_each = 4 * len(self._coc_px) * self._quadrant_size[0] * self._quadrant_size[1]
            self._kept = _store.columns([(*shared, c.tobytes()) for c in self._coc_px.T], len(self._coc_px), bytes_each)

    def quadrants(self, d: int) -> Real:
        """Hypothesis d: float32 (F, H' // 2 + 1, W' // 2 + 1)."""
        if self._kept is None:
            return np.stack([self._quadrant(c) for c in self._coc_px[d]])
        for column, diameter in zip(self._kept, self._coc_px[d], strict=True):
            if column[d] is None:
                column[d] = self._quadrant(diameter)
        return np.stack([column[d] for column in self._kept])  # type: ignore[misc]

    @functools.cached_property
    def laplacian_squared(self) -> Real:
        """|L|^2 of the Laplacian, float32 (H' // 2 + 1, W' // 2 + 1)."""
        rows, columns = self._quadrant_size
        return np.asarray(laplacian_transfer(self._size)[:rows, :columns] ** 2, np.float32)

    def _quadrant(self, diameter_px: float) -> Real:
        return self._separable(diameter_px) if self._psf == "table" else self._radial(diameter_px)

    def _radial(self, diameter_px: float) -> Real:
        position = self._frequency * np.float32(abs(diameter_px) * _TABLE_ENTRIES_PER_UNIT)
        index = position.astype(np.int32)
        position -= index
        values, steps = self._tables[int(diameter_px < 0.0)]
        position *= steps.take(index, mode="clip")  # no index is outside; to clip is three times as fast as to check
        position += values.take(index, mode="clip")
        return position

    @functools.cached_property
    def _frequency(self) -> Real:
        """Cycles per pixel (H' // 2 + 1, W' // 2 + 1)."""
        down, across = (np.arange(n) / size for n, size in zip(self._quadrant_size, self._size, strict=True))
        return np.asarray(np.hypot(down[:, None], across[None, :]), np.float32)

    @functools.cached_property
    def _tables(self) -> list[tuple[Real, Real]]:
        """Tables of the model over x = c rho in uniform steps, and its differences: near and far side of focus."""
        reach = float(self._frequency.max() * np.abs(self._coc_px).max())
        x = np.arange(int(reach * _TABLE_ENTRIES_PER_UNIT) + 3) / _TABLE_ENTRIES_PER_UNIT
        sides = [thin_lens.blur_transfer(self._psf, side, x, self._aberration) for side in (1.0, -1.0)]
        return [(v.astype(np.float32), np.diff(v, append=v[-1]).astype(np.float32)) for v in sides]

    def _separable(self, diameter_px: float) -> Real:
        # The kernel is small and symmetric both ways: its transform is a sum of cosines over one quadrant of it.
        kernel = table_psf(diameter_px)
        half = kernel.shape[0] // 2
        once_or_twice = np.where(np.arange(half + 1) > 0, 2.0, 1.0)
        quadrant = kernel[half:, half:] * once_or_twice[:, None] * once_or_twice
        down, across = (c[:, : half + 1] for c in self._cosines)
        return np.asarray(down @ quadrant @ across.T, np.float32)

    @functools.cached_property
    def _cosines(self) -> list[NDArray[np.float64]]:
        taps = np.arange(len(table_psf(float(self._coc_px.max()))) // 2 + 1)
        return [
            np.cos(2 * np.pi * np.arange(n)[:, None] * taps / size)
            for n, size in zip(self._quadrant_size, self._size, strict=True)
        ]


def doubled(quadrants: Real) -> Real:
    """Upper rows of half spectra (..., H' // 2 + 1, 2 (W' // 2 + 1)) from quadrants, every value twice.

    Real and imaginary parts then need one plain multiplication.
    """
    upper = np.empty((*quadrants.shape[:-1], 2 * quadrants.shape[-1]), np.float32)
    upper[..., 0::2] = quadrants
    upper[..., 1::2] = quadrants
    return upper


def times(upper: Real, spectrum: Real, out: Real | None = None) -> Real:
    """Product of a symmetric transfer function, by its upper rows, and half spectra (C, H', 2 (W' // 2 + 1))."""
    out = np.empty_like(spectrum) if out is None else out
    rows, height = len(upper), spectrum.shape[-2]
    np.multiply(upper, spectrum[:, :rows], out=out[:, :rows])
    np.multiply(upper[height - rows : 0 : -1], spectrum[:, rows:], out=out[:, rows:])
    return out


class _Store:
    """Quadrants of recent focus settings, filled hypothesis by hypothesis on demand."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._columns: OrderedDict[object, tuple[int, list[Real | None]]] = OrderedDict()
        self._lock = threading.Lock()

    def columns(self, keys: list[object], hypotheses: int, bytes_each: int) -> list[list[Real | None]] | None:
        """Lists of these keys, made if missing; None if they do not fit."""
        if bytes_each * len(set(keys)) > self._most_bytes:
            return None
        with self._lock:
            found = []
            for key in keys:
                self._columns.setdefault(key, (bytes_each, [None] * hypotheses))
                self._columns.move_to_end(key)
                found.append(self._columns[key][1])
            while sum(size for size, _ in self._columns.values()) > self._most_bytes:
                self._columns.popitem(last=False)
            return found


_store = _Store(most_bytes=144 << 20)  # five images of 640 x 480 at 67 hypotheses

"""Bounding of the DDFS cost volumes, as in the authors' training."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BOUND_F1 = 0.999  # tanh(a C_max) = F1, section 3.3 of Fujimura et al., IJCV 2024
BOUND_C_MAX = 0.3

_ROWS_AT_ONCE_BYTES = 1 << 22


def raw_confidence(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distinctness of the best hypothesis, float32 (H, W), 0 = none.

    ``median over d of (C - min C) / min C``: near 0 without texture or without defocus; unbounded above.
    """
    volume = _checked(volume)
    depths, height, width = volume.shape
    confidence = np.empty((height, width), np.float32)
    step = max(1, _ROWS_AT_ONCE_BYTES // (4 * depths * width))
    for row in range(0, height, step):
        # Hypotheses last: the selection then runs through memory in order.
        costs = np.ascontiguousarray(np.moveaxis(volume[:, row : row + step], 0, -1))
        lowest = costs.min(axis=-1)
        median = np.median(costs, axis=-1, overwrite_input=True)
        confidence[row : row + step] = (median - lowest) / np.maximum(lowest, np.finfo(np.float32).tiny)
    return confidence


def bound_and_scale(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale DDFS volumes for the DDFS network, float32 (D, H, W) in [0, 1].

    Outliers are bounded, ``tanh(a C)`` with a = atanh(0.999) / 0.3; then each pixel is scaled over depth,
    ``(C - min) / (max - min + 1e-8)``.
    """
    bounded = np.tanh(np.float32(math.atanh(BOUND_F1) / BOUND_C_MAX) * _checked(volume))
    lowest, highest = bounded.min(axis=0), bounded.max(axis=0)
    bounded -= lowest
    bounded /= highest - lowest + np.float32(1e-8)
    return np.asarray(bounded)


def _checked(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    if not isinstance(volume, np.ndarray) or volume.ndim != 3:
        raise ValueError(
            f"volume: expected an array (D, H, W), received {getattr(volume, 'shape', type(volume).__name__)}"
        )
    return volume

"""Bounding of the DDFS cost volumes, as in the authors' training."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BOUND_F1 = 0.999  # tanh(a C_max) = F1, section 3.3 of Fujimura et al., IJCV 2024
BOUND_C_MAX = 0.3


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

"""FFTs of real planes in float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Real = NDArray[np.float32]
Complex = NDArray[np.complex64]


def half_spectrum(planes: Real) -> Complex:
    """Half spectra (..., H, W // 2 + 1) of planes (..., H, W)."""
    return np.asarray(fft.rfft2(planes), np.complex64)


def pixels(spectrum: Complex, width: int, rows: slice, columns: slice) -> Real:
    """Rows and columns of the planes (C, H, `width`) of half spectra; overwrites the spectrum."""
    # One axis after the other: rows that are not kept need no transform along themselves.
    kept = fft.ifft(spectrum, axis=-2, overwrite_x=True)[:, rows]
    return np.asarray(fft.irfft(kept, width, axis=-1)[..., columns], np.float32)

"""FFTs of real planes in float32: by PyTorch where a network has loaded it, two to three times as fast, or by SciPy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from dfs_ros.system.cores import threads_sleep

Real = NDArray[np.float32]
Complex = NDArray[np.complex64]


def half_spectrum(planes: Real) -> Complex:
    """Half spectra (..., H, W // 2 + 1) of planes (..., H, W)."""
    torch = _torch()
    if torch is None:
        return np.asarray(fft.rfft2(planes), np.complex64)
    found: Complex = torch.fft.rfft2(torch.from_numpy(planes)).numpy()
    return found


def pixels(spectrum: Complex, width: int, rows: slice, columns: slice) -> Real:
    """Rows and columns of the planes (C, H, `width`) of half spectra; overwrites the spectrum."""
    # One axis after the other: rows that are not kept need no transform along themselves.
    torch = _torch()
    if torch is None:
        kept = fft.ifft(spectrum, axis=-2, overwrite_x=True)[:, rows]
        return np.asarray(fft.irfft(kept, width, axis=-1)[..., columns], np.float32)
    kept = torch.fft.ifft(torch.from_numpy(spectrum), dim=-2)[:, rows]
    found: Real = torch.fft.irfft(kept, n=width, dim=-1).numpy()
    return found[..., columns]


def _torch() -> Any:
    """PyTorch; None if no network has loaded it, or its threads would spin beside those of a volume."""
    return sys.modules.get("torch") if threads_sleep() else None

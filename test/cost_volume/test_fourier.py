"""FFTs of real planes: half spectra, and the rows and columns that are kept."""

from __future__ import annotations

import numpy as np
import pytest

from dfs_ros.cost_volume import fourier


@pytest.mark.parametrize("size", [(24, 30), (25, 31)])
def test_half_spectra_and_what_is_kept(size: tuple[int, int]) -> None:
    planes = np.random.default_rng(0).random((2, *size), np.float32)
    rows, columns = slice(3, 20), slice(1, 29)
    spectrum = fourier.half_spectrum(planes)
    assert spectrum.dtype == np.complex64
    np.testing.assert_allclose(spectrum, np.fft.rfft2(planes), atol=1e-4)
    kept = fourier.pixels(spectrum, size[1], rows, columns)
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept, planes[:, rows, columns], atol=1e-6)

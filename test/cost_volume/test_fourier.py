"""FFTs by PyTorch and by SciPy: the same planes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfs_ros.cost_volume import fourier


@pytest.mark.parametrize("size", [(24, 30), (25, 31)])
def test_both_libraries_agree(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    planes = np.random.default_rng(0).random((2, *size), np.float32)
    rows, columns, found = slice(3, 20), slice(1, 29), []
    for policy, library in (("passive", torch), ("active", None)):
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
        assert fourier._torch() is library
        spectrum = fourier.half_spectrum(planes)
        found.append((spectrum.copy(), fourier.pixels(spectrum, size[1], rows, columns)))
    for by_torch, by_scipy in zip(*found, strict=True):
        assert by_torch.dtype == by_scipy.dtype
        np.testing.assert_allclose(by_torch, by_scipy, atol=1e-4)
    np.testing.assert_allclose(found[0][1], planes[:, rows, columns], atol=1e-6)
    np.testing.assert_allclose(found[0][0], np.fft.rfft2(planes), atol=1e-4)

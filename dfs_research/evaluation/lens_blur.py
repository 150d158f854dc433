"""Lens blur beyond the estimator's model: transfer functions of any softened pupil."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from dfs_ros.simulation.pupil import Pupil, pupil_psf

_DRAWN_PX = 96  # diameter of the rendered pupil
_PER_CYCLE = 8  # samples of its spectrum for each cycle per diameter
_MOST_CYCLES = 40  # per diameter; the Gaussian removes all beyond
_SHARP_BELOW_PX = 0.05


class LensBlur:
    """Transfer functions of a scaled pupil, softened by a Gaussian of `softness_px`.

    The spectrum of the pupil is computed once, ``P(u)`` with u in cycles per diameter, and read at ``u = d f``:

        H_d(f) = P(d f) exp(-2 pi^2 softness_px^2 |f|^2)

    The Gaussian stands for blur in focus (aberration, pixels), and keeps hard edges of layers from ringing.
    Raises ValueError for a negative softness.
    """

    def __init__(self, pupil: Pupil, softness_px: float) -> None:
        if not softness_px >= 0:
            raise ValueError(f"softness_px: expected 0 or more, received {softness_px}")
        self.pupil, self.softness_px = pupil, softness_px
        self._spectra = {near: _spectrum(pupil, near) for near in (False, True)}

    def transfer(
        self, diameter_px: float, shape: tuple[int, int], shift_px: tuple[float, float] = (0.0, 0.0)
    ) -> NDArray[np.complex64]:
        """Transfer function (H, W // 2 + 1) of blur and shift, for images of `shape`.

        `diameter_px` is negative for a point nearer than the focus; `shift_px` is (right, down).
        """
        fy = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
        fx = fft.rfftfreq(shape[1]).astype(np.float32)[None]
        soft = -2.0 * np.pi**2 * self.softness_px**2
        phase = np.exp(soft * fy * fy - 2j * np.pi * shift_px[1] * fy).astype(np.complex64)
        phase = phase * np.exp(soft * fx * fx - 2j * np.pi * shift_px[0] * fx).astype(np.complex64)
        if abs(diameter_px) < _SHARP_BELOW_PX:
            return np.asarray(phase, np.complex64)
        spectrum = self._spectra[diameter_px < 0]
        along_y = _interpolated(spectrum, abs(diameter_px) * fy.ravel())
        both = _interpolated(np.ascontiguousarray(along_y.T), abs(diameter_px) * fx.ravel())
        return np.asarray(phase * both.T, np.complex64)


def _interpolated(spectrum: NDArray[np.complex64], cycles: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Interpolate rows of a spectrum at `cycles`, by Lagrange's cubic.

    The middle row is 0 cycles; beyond the ends the result is 0. Returns (len(cycles), ...). The cubic is exact for
    parabolas, and so for the second moment of the blur.
    """
    position = np.asarray(cycles, np.float64) * _PER_CYCLE + len(spectrum) // 2
    first = np.floor(position).astype(np.intp) - 1
    inside = (first >= 0) & (first <= len(spectrum) - 4)
    first = np.where(inside, first, 0)
    t = np.where(inside, position - first, 0.0)
    found = np.zeros((len(cycles), *spectrum.shape[1:]), np.complex64)
    for j in range(4):
        weight = np.prod([(t - m) / (j - m) for m in range(4) if m != j], axis=0) * inside
        found += weight.astype(np.float32)[:, None] * spectrum[first + j]
    return found


def _spectrum(pupil: Pupil, near: bool) -> NDArray[np.complex64]:
    """Spectrum of the pupil, zero frequency in the centre."""
    psf = pupil_psf(_DRAWN_PX, 2 * round(0.8 * _DRAWN_PX) + 1, pupil, near)
    canvas = np.zeros((_DRAWN_PX * _PER_CYCLE,) * 2)
    canvas[: psf.shape[0], : psf.shape[1]] = psf
    half = psf.shape[0] // 2
    whole = fft.fftshift(fft.fft2(np.roll(canvas, (-half, -half), axis=(0, 1))))
    middle, reach = len(canvas) // 2, _MOST_CYCLES * _PER_CYCLE
    around = slice(middle - reach, middle + reach + 1)
    return np.ascontiguousarray(whole[around, around].astype(np.complex64))

"""Cost volumes on CPU cores: float32, half spectra, hypotheses shared among threads.

Formulas: :mod:`.reference`. Spectra are float32 with alternating real and imaginary parts; transfer functions, which
are real, hold every value twice: all spectral arithmetic is then plain float32 multiplication. Memory beside the
volume: the spectra of the stack, and for each thread the arrays of one hypothesis, whatever their number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dfs_ros.cost_volume import fourier
from dfs_ros.cost_volume.halving import half_size, halved
from dfs_ros.cost_volume.problem import Problem, noise_gain
from dfs_ros.cost_volume.spectra import Spectra, SpectraCache, stack_spectra
from dfs_ros.cost_volume.transfer import TransferFunctions, doubled, times
from dfs_ros.system.cores import for_each, threads_for

Real = NDArray[np.float32]


def cost_volume(
    problem: Problem,
    threads: int = 0,
    spectra_cache: SpectraCache | None = None,
    frame_keys: Sequence[Hashable] | None = None,
    half: bool = False,
) -> Real:
    """Cost volume, float32 (D, H, W), of a checked problem; arguments as in :func:`cost_volume_from_config`."""
    transfer = TransferFunctions(problem, keep=True)
    spectra = stack_spectra(problem, spectra_cache, frame_keys)
    size = problem.stack.size
    volume = np.empty((len(problem.depths_m), *(half_size(size) if half else size)), np.float32)
    gains = noise_gain(problem).astype(np.float32) if problem.cost.method == "residual" else None

    def fill_hypothesis(d: int) -> None:
        out = np.empty(size, np.float32) if half else volume[d]
        if gains is None:
            _wiener_slice(problem, spectra, transfer, d, out)
        else:
            _residual_slice(problem, spectra, transfer, d, out)
        if half:
            halved(out, volume[d])
        if gains is not None:
            volume[d] /= gains[d]

    for_each(fill_hypothesis, len(volume), threads_for(size[0] * size[1], threads))
    return volume


def _wiener_slice(problem: Problem, spectra: Spectra, transfer: TransferFunctions, d: int, out: Real) -> None:
    """Disagreement of the images deblurred one by one."""
    cost = problem.cost
    quadrants = transfer.quadrants(d)
    denominator = quadrants * quadrants
    denominator += np.float32(cost.eps) * transfer.laplacian_squared
    wiener = doubled(quadrants / denominator)
    # Sums of the differences to the first image and of their squares: no deblurred image is kept.
    first = to_pixels(times(wiener[0], spectra[0]), problem)
    total, squares, product = np.zeros_like(first), np.zeros_like(first), np.empty_like(spectra[0])
    for w, spectrum in zip(wiener[1:], spectra[1:], strict=True):
        x = to_pixels(times(w, spectrum, product), problem)
        x -= first
        total += x
        for plane, sum_of_squares in zip(x, squares, strict=True):
            cv2.accumulateSquare(plane, sum_of_squares)
    total *= np.float32(1.0 / len(spectra))
    squares *= np.float32(1.0 / len(spectra))
    offset = _window(first + total, problem)  # mean - first
    offset -= first
    # mean (x - M)^2 = mean (x - first)^2 - 2 (M - first) mean (x - first) + (M - first)^2
    total *= np.float32(-2.0)
    total += offset
    total *= offset
    squares += total
    variance = _window(squares, problem)
    np.maximum(variance, 0.0, out=variance)  # rounding
    np.sqrt(variance, out=variance)
    variance.sum(axis=0, out=out)


def _residual_slice(problem: Problem, spectra: Spectra, transfer: TransferFunctions, d: int, out: Real) -> None:
    """Misfit of one sharp image, re-blurred for every focus setting."""
    energy = np.zeros(problem.stack.size, np.float32)
    for residual in residuals(problem, spectra, transfer, d):
        for plane in to_pixels(residual, problem):
            cv2.accumulateSquare(plane, energy)
    gaussian(energy, problem.cost.window_sigma_px, out)


def residuals(problem: Problem, spectra: Spectra, transfer: TransferFunctions, d: int) -> Iterator[Real]:
    """Half spectra ``Y_f - k_f X`` of each image, in an array that may be overwritten."""
    x, k = joint_sharp_spectrum(problem, spectra, transfer, d)
    residual = np.empty_like(x)
    for k_f, spectrum in zip(k, spectra, strict=True):
        yield np.subtract(spectrum, times(k_f, x, residual), out=residual)


def joint_sharp_spectrum(problem: Problem, spectra: Spectra, transfer: TransferFunctions, d: int) -> tuple[Real, Real]:
    """Joint sharp spectrum ``X = sum_f k_f Y_f / (sum_f k_f^2 + eps)``, and the upper rows of the k_f.

    Half spectrum (C, H', 2 (W' // 2 + 1)) and (F, H' // 2 + 1, ...).
    """
    # Plain products: einsum holds Python's lock, and the other threads wait.
    quadrants = transfer.quadrants(d)
    total = np.full_like(quadrants[0], problem.cost.eps)
    product = np.empty_like(total)
    for quadrant in quadrants:
        total += np.multiply(quadrant, quadrant, out=product)
    k = doubled(quadrants)
    x = times(k[0], spectra[0])
    blurred = np.empty_like(x)
    for k_f, spectrum in zip(k[1:], spectra[1:], strict=True):
        x += times(k_f, spectrum, blurred)
    return times(doubled(1.0 / total), x, x), k


def to_pixels(spectrum: Real, problem: Problem) -> Real:
    """Inverse FFT without the border, float32 (C, H, W); overwrites the spectrum."""
    (top, _), (left, _) = problem.pad_px
    height, width = problem.stack.size
    rows, columns = slice(top, top + height), slice(left, left + width)
    return fourier.pixels(spectrum.view(np.complex64), problem.padded_size[1], rows, columns)


def _window(planes: Real, problem: Problem) -> Real:
    """Gaussian window of every plane (C, H, W); `released` also runs it across the three colours."""
    sigma = problem.cost.window_sigma_px
    windowed = np.empty_like(planes)
    for plane, out in zip(planes, windowed, strict=True):
        gaussian(plane, sigma, out)
    if problem.cost.method == "released" and len(planes) == 3:
        mixing = ndimage.gaussian_filter1d(np.eye(3), sigma, axis=0, mode="reflect", truncate=4.0)
        windowed = np.einsum("ck,khw->chw", mixing.astype(np.float32), windowed)
    return windowed


def gaussian(plane: Real, sigma_px: float, out: Real) -> None:
    """Gaussian truncated at 4 sigma, reflected at the border: the same as scipy.ndimage.gaussian_filter."""
    size = 2 * int(4.0 * sigma_px + 0.5) + 1
    cv2.GaussianBlur(plane, (size, size), sigma_px, dst=out, borderType=cv2.BORDER_REFLECT)

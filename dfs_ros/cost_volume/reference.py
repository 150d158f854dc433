"""Reference of the three cost volumes, in float64 numpy; slow on purpose.

Notation: Y_f image f, linear in [0, 1]; k_f transfer function of its blur at hypothesis d; L that of the Laplacian;
G a Gaussian of `window_sigma_px`, truncated at 4 sigma, reflected at the border.

    released, paper     X_f = IFFT( k_f* Y_f / (|k_f|^2 + eps |L|^2) )          every image deblurred on its own
                        M = G(mean_f X_f),  V = G(mean_f (X_f - M)^2)           their disagreement
                        C(d) = sum over colours of sqrt(V)
    residual            X = sum_f k_f* Y_f / (sum_f |k_f|^2 + eps)              one sharp image for the whole stack
                        C(d) = G( sum over f and colours of IFFT(Y_f - k_f X)^2 ) / N(d)    its misfit
                        N(d) = residual of white noise, :func:`.problem.noise_gain`

`released` and `paper`: Fujimura et al., IJCV 2024, section 3.3. `released` is what the authors' code computes: its
Gaussian also runs across the three colours (a scalar sigma on an H x W x 3 array). Both are returned before the
authors' bounding and scaling, which is :func:`dfs_ros.cost_volume.bound_and_scale`.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dfs_ros.cost_volume.problem import Problem, noise_gain
from dfs_ros.optics import thin_lens
from dfs_ros.optics.srgb import LUMA_WEIGHTS, linear_table

Float = NDArray[np.float64]
Complex = NDArray[np.complex128]

TABLE_FIRST_RADIUS_PX = 0.5  # the authors' tabulated disk: identity below, then steps of 0.1, linear in between
TABLE_STEP_PX = 0.1


def cost_volume(problem: Problem) -> Float:
    """Cost volume, float64 (D, H, W), of a checked problem."""
    spectra = np.fft.fft2(padded_linear(problem))
    if problem.cost.method != "residual":
        return np.stack([wiener_slice(problem, spectra, d) for d in range(len(problem.depths_m))])
    gains = noise_gain(problem)
    return np.stack([residual_slice(problem, spectra, d) / gain for d, gain in enumerate(gains)])


def padded_linear(problem: Problem) -> Float:
    """Linear intensity in [0, 1] with its reflected border, float64 (F, C, H', W')."""
    linear = linear_table(problem.cost.transfer_curve)[problem.stack.images]
    if linear.ndim == 3:
        linear = linear[..., None]
    elif problem.cost.channels == "luma":
        linear = linear @ np.array(LUMA_WEIGHTS)[:, None]
    return np.pad(np.moveaxis(linear, -1, 1), ((0, 0), (0, 0), *problem.pad_px), mode="symmetric")


def transfer_function(diameter_px: float, size: tuple[int, int], psf: str, aberration: float = 0.0) -> Float | Complex:
    """Transfer function (H', W') of a blur disk of that diameter, signed with an aberration; `psf` as in CostConfig."""
    if psf == "table":
        kernel = table_psf(diameter_px)
        half = kernel.shape[0] // 2
        centred_at_origin = np.zeros(size)
        rows, columns = np.indices(kernel.shape) - half
        np.add.at(centred_at_origin, (rows % size[0], columns % size[1]), kernel)
        return np.fft.fft2(centred_at_origin)
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None, :])
    return thin_lens.blur_transfer(psf, diameter_px, frequency, aberration)


def table_psf(diameter_px: float) -> Float:
    """PSF of the DDFS authors: exact-area disks at radius 0.5, 0.6, ..., interpolated linearly.

    Below 0.5 it is the identity.
    """
    position = (diameter_px / 2.0 - TABLE_FIRST_RADIUS_PX) / TABLE_STEP_PX
    if position < 0:
        return np.ones((1, 1))
    below = int(position + 1e-9)
    weight = position - below
    first, second = _tabulated_disk(below), _tabulated_disk(below + 1)
    grow = (len(second) - len(first)) // 2
    return np.asarray((1.0 - weight) * np.pad(first, grow) + weight * second)


@functools.lru_cache(maxsize=1024)
def _tabulated_disk(entry: int) -> Float:
    radius = TABLE_FIRST_RADIUS_PX + TABLE_STEP_PX * entry
    return thin_lens.disk_psf(2.0 * radius, 2 * int(np.ceil(radius - 1e-9)) + 1)


def laplacian_transfer(size: tuple[int, int]) -> Float:
    """Transfer function of [[0, -1, 0], [-1, 4, -1], [0, -1, 0]], float64 (H', W')."""
    wy, wx = (2.0 * np.pi * np.fft.fftfreq(n) for n in size)
    return np.asarray(4.0 - 2.0 * np.cos(wy)[:, None] - 2.0 * np.cos(wx)[None, :])


def wiener_slice(problem: Problem, spectra: Complex, d: int) -> Float:
    """Disagreement (H, W) of the images deblurred one by one (Wiener-Hunt) for hypothesis d."""
    cost, size = problem.cost, problem.padded_size
    regulariser = cost.eps * laplacian_transfer(size) ** 2
    deblurred = []
    for diameter, spectrum in zip(problem.coc_px[d], spectra, strict=True):
        k = transfer_function(diameter, size, cost.psf, problem.aberration)
        deblurred.append(np.fft.ifft2(np.conj(k) * spectrum / (np.abs(k) ** 2 + regulariser)).real)
    x = _cropped(np.stack(deblurred), problem)  # (F, C, H, W)
    across_colours = cost.window_sigma_px if cost.method == "released" else 0.0
    sigma = (across_colours, cost.window_sigma_px, cost.window_sigma_px)
    mean = ndimage.gaussian_filter(x.mean(axis=0), sigma, mode="reflect", truncate=4.0)
    variance = ndimage.gaussian_filter(((x - mean) ** 2).mean(axis=0), sigma, mode="reflect", truncate=4.0)
    return np.asarray(np.sqrt(variance).sum(axis=0))


def residual_slice(problem: Problem, spectra: Complex, d: int) -> Float:
    """Misfit (H, W) of one sharp image, re-blurred for every focus, at hypothesis d."""
    k, x = _joint_sharp_spectrum(problem, spectra, problem.coc_px[d])
    residual = np.fft.ifft2(spectra - k * x).real  # (F, C, H', W')
    energy = _cropped(residual**2, problem).sum(axis=(0, 1))
    return np.asarray(ndimage.gaussian_filter(energy, problem.cost.window_sigma_px, mode="reflect", truncate=4.0))


def joint_sharp_image(problem: Problem, diameters_px: Float) -> Float:
    """Joint sharp image X, linear, float64 (C, H, W), for blur diameters (F,)."""
    _, x = _joint_sharp_spectrum(problem, np.fft.fft2(padded_linear(problem)), diameters_px)
    return _cropped(np.fft.ifft2(x).real, problem)


def _joint_sharp_spectrum(problem: Problem, spectra: Complex, diameters_px: Float) -> tuple[Complex, Complex]:
    """Transfer functions (F, 1, H', W') and joint sharp spectrum (C, H', W')."""
    size, psf = problem.padded_size, problem.cost.psf
    k = np.stack([transfer_function(c, size, psf, problem.aberration) for c in diameters_px])[:, None]
    x = (np.conj(k) * spectra).sum(axis=0) / ((np.abs(k) ** 2).sum(axis=0) + problem.cost.eps)
    return np.asarray(k, np.complex128), np.asarray(x)


def _cropped(padded: Float, problem: Problem) -> Float:
    (top, _), (left, _) = problem.pad_px
    height, width = problem.stack.size
    return padded[..., top : top + height, left : left + width]

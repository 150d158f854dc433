"""Cost volume of a camera that moves within the sweep: frames in the reference, hypothesis by hypothesis.

Parallax brings every frame i to another place for each inverse depth q (:mod:`dfs_ros.alignment.moving`). Then the
`residual` of :mod:`.reference`, over the frames that see a pixel:

    C(d) = G( sum over i seen of IFFT(Y_i(d) - k_i X)^2 ) / G( n - 1 + N(d) - (F - 1) ),    n frames see the pixel

`reference`: frames are resampled for every hypothesis. `cpu`: once for all hypotheses of a slab, to its middle q0; from
there sideways motion is a shift, a factor ``exp(2 pi i f . s_i (q - q0))`` on the spectrum, with s_i pixels a dioptre.
Slabs are as thick as forward motion, which is no shift, allows.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dfs_ros.alignment.moving import Border, MovingStack
from dfs_ros.cost_volume.cpu import gaussian, residuals, to_pixels
from dfs_ros.cost_volume.fourier import half_spectrum
from dfs_ros.cost_volume.halving import half_size, halved
from dfs_ros.cost_volume.problem import Problem, noise_gain, padding
from dfs_ros.cost_volume.reference import transfer_function
from dfs_ros.cost_volume.transfer import TransferFunctions
from dfs_ros.system.cores import for_each, threads_for

Real = NDArray[np.float32]
Float = NDArray[np.float64]
Masks = NDArray[np.uint8]

_FORWARD_PX = 0.1  # what forward motion may leave at the corners, at the ends of a slab
_WIDEST_BORDER_PX = 64
_BORDER_PX = 16
_LEAST_SEEN = 0.05  # of an image, keeps the division finite where the reference alone sees a pixel


def prepared(problem: Problem) -> tuple[Problem, list[NDArray[np.intp]]]:
    """Problem with a border wide enough for the shifts within slabs, and the hypotheses (indices) of each slab."""
    stack = moving_stack(problem)
    inverse = 1.0 / problem.depths_m
    position, lens = np.abs(stack.positions_m).max(axis=0), stack.lens
    reach = float(np.hypot(*stack.size)) / 2.0
    forward_px, sideways_px = float(position[2]) * reach, float(max(position[0] * lens.fx, position[1] * lens.fy))
    widest = np.inf
    if forward_px > 0:
        widest = 2.0 * _FORWARD_PX / forward_px
    if sideways_px > 0:
        widest = min(widest, 2.0 * (_WIDEST_BORDER_PX - _BORDER_PX) / sideways_px)
    slabs: list[list[int]] = []
    for d in np.argsort(inverse):
        if not slabs or inverse[d] - inverse[slabs[-1][0]] > widest:
            slabs.append([])
        slabs[-1].append(int(d))
    thickest = max(inverse[slab[-1]] - inverse[slab[0]] for slab in slabs)
    border = _BORDER_PX + int(np.ceil(sideways_px * thickest / 2.0))
    wide = replace(problem, pad_px=padding(stack.size, max(border, problem.cost.padding_px)))
    return wide, [np.array(slab) for slab in slabs]


def cost_volume(problem: Problem, threads: int = 0, half: bool = False) -> Real:
    """Cost volume, float32 (D, H, W), by phase; needs the method `residual`. `half`: at half size."""
    problem, slabs = prepared(problem)
    stack = moving_stack(problem)
    linear = stack.linear(problem.cost.transfer_curve, problem.channel_count)
    transfer = TransferFunctions(problem)
    gains = noise_gain(problem)
    volume = np.empty((len(problem.depths_m), *(half_size(stack.size) if half else stack.size)), np.float32)
    for slab in slabs:
        inverse = 1.0 / problem.depths_m[slab]
        middle = float(inverse[0] + inverse[-1]) / 2.0
        planes, inside = stack.seen(linear, middle, problem.pad_px)
        spectra, masks = half_spectrum(planes), inside.view(np.uint8)
        slope = px_per_diopter(stack, middle)

        def fill(
            k: int, slab: NDArray[np.intp] = slab, masks: Masks = masks, middle: float = middle,
            spectra: NDArray[np.complex64] = spectra, slope: Float = slope,
        ) -> None:  # fmt: skip
            d = int(slab[k])
            shift = slope * (1.0 / problem.depths_m[d] - middle)
            moved = _shifted(spectra, shift, problem.padded_size)
            seen = _shifted_masks(masks, shift, problem.pad_px, stack.size)
            misfit = _residual(problem, moved, transfer, d, seen, float(gains[d]))
            volume[d] = halved(misfit) if half else misfit

        for_each(fill, len(slab), threads_for(stack.size[0] * stack.size[1], threads))
    return volume


def reference_volume(problem: Problem) -> Float:
    """Cost volume, float64 (D, H, W), by resampling for every hypothesis; slow and plain."""
    problem, _ = prepared(problem)
    stack, cost = moving_stack(problem), problem.cost
    linear = stack.linear(cost.transfer_curve, problem.channel_count)
    gains, count = noise_gain(problem), len(stack)
    (top, _), (left, _) = problem.pad_px
    height, width = stack.size
    inner = np.s_[..., top : top + height, left : left + width]
    sigma = cost.window_sigma_px
    slices = []
    for d, depth_m in enumerate(problem.depths_m):
        planes, inside = stack.seen(linear, 1.0 / depth_m, problem.pad_px)
        spectra = np.fft.fft2(planes.astype(np.float64))
        blur = (transfer_function(c, problem.padded_size, cost.psf, problem.aberration) for c in problem.coc_px[d])
        k = np.stack(list(blur))[:, None]
        x = (np.conj(k) * spectra).sum(axis=0) / ((np.abs(k) ** 2).sum(axis=0) + cost.eps)
        residual = np.fft.ifft2(spectra - k * x).real[inner]
        seen = inside[inner]
        energy = (residual**2 * seen[:, None]).sum(axis=(0, 1))
        freedom = np.maximum(seen.sum(axis=0) - count + gains[d], _LEAST_SEEN)
        slices.append(_windowed(energy, sigma) / _windowed(freedom, sigma))
    return np.stack(slices)


def moving_stack(problem: Problem) -> MovingStack:
    """Stack of a problem; ValueError for that of a still camera, or another cost."""
    stack = problem.stack
    if not isinstance(stack, MovingStack) or problem.cost.method != "residual":
        raise ValueError(
            f"cost.method: expected residual for a camera that moves within the sweep, received {problem.cost.method}"
        )
    return stack


def px_per_diopter(stack: MovingStack, diopters: float) -> Float:
    """Shift (F, 2) in pixels of the reference that brings a frame from a plane to one a dioptre nearer."""
    lens, position = stack.lens, stack.positions_m
    nearer = 1.0 - position[:, 2] * diopters
    along = np.stack([lens.fx * position[:, 0], lens.fy * position[:, 1]], axis=1)
    return np.asarray(along / nearer[:, None])


def _shifted(spectra: NDArray[np.complex64], shift_px: Float, size: tuple[int, int]) -> Real:
    """Half spectra of planes sampled at x - shift, as float32 (F, C, H', 2 (W' // 2 + 1))."""
    down, across = np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1])
    rows = np.exp(-2j * np.pi * down * shift_px[:, 1:]).astype(np.complex64)
    columns = np.exp(-2j * np.pi * across * shift_px[:, :1]).astype(np.complex64)
    moved = np.empty_like(spectra)
    for f, shift in enumerate(shift_px):
        if shift.any():
            np.multiply(spectra[f], rows[f][:, None], out=moved[f])
            moved[f] *= columns[f]
        else:  # the reference
            moved[f] = spectra[f]
    return np.asarray(moved.view(np.float32))


def _shifted_masks(inside: Masks, shift_px: Float, border: Border, size: tuple[int, int]) -> Masks:
    """Masks (F, H, W) of planes sampled at x - shift, to the nearest pixel."""
    (top, bottom), (left, right) = border
    seen = np.zeros((len(inside), *size), np.uint8)
    for mask, (x, y), out in zip(inside, np.rint(shift_px).astype(int), seen, strict=True):
        # Rows and columns whose place lies within the mask, which is wider by the border.
        rows = _clipped(y - top, size[0] + bottom + y, size[0])
        columns = _clipped(x - left, size[1] + right + x, size[1])
        down, across = top - y, left - x
        out[rows, columns] = mask[rows.start + down : rows.stop + down, columns.start + across : columns.stop + across]
    return seen


def _clipped(start: int, stop: int, length: int) -> slice:
    start = min(max(start, 0), length)
    return slice(start, max(min(stop, length), start))


def _residual(problem: Problem, spectra: Real, transfer: TransferFunctions, d: int, seen: Masks, gain: float) -> Real:
    """Misfit (H, W) of hypothesis d, over the frames that see a pixel."""
    energy = np.zeros(problem.stack.size, np.float32)
    for residual, mask in zip(residuals(problem, spectra, transfer, d), seen, strict=True):
        for plane in to_pixels(residual, problem):
            cv2.accumulateSquare(plane, energy, mask=mask)
    freedom = np.maximum(seen.sum(axis=0, dtype=np.float32) + np.float32(gain - len(seen)), np.float32(_LEAST_SEEN))
    sigma = problem.cost.window_sigma_px
    return _windowed32(energy, sigma) / _windowed32(freedom, sigma)


def _windowed32(plane: Real, sigma_px: float) -> Real:
    out = np.empty_like(plane)
    gaussian(plane, sigma_px, out)
    return out


def _windowed(plane: Float, sigma_px: float) -> Float:
    return np.asarray(ndimage.gaussian_filter(plane, sigma_px, mode="reflect", truncate=4.0))

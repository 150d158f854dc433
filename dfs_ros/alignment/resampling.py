"""Resampling of aligned images with one frequency response for all frames.

Interpolation blurs, by an amount that varies with the sub-pixel phase: from frame to frame, that reads as defocus (2 to
3 % of depth where a dioptre is a pixel of blur). So each axis is corrected to the response of the cubic kernel half way
between two pixels, R(f) = 2 (k(1/2) cos(pi f) + k(3/2) cos(3 pi f)), wherever a pixel lies. With H_t the response of
the kernel at phase t and D_j fixed filters of 11 taps,

    R(f) = |H_t(f)| (1 + sum_j w_j(t) D_j(f))

D_j and w_j are least squares over 0 to 0.42 cycles a pixel, weighted as the spectrum of photos, 1 / f; they follow from
the kernel alone. A frame that needs no motion is filtered by R too, if any frame of its stack is resampled.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

_CUBIC = -0.75  # parameter of OpenCV's cubic kernel
PHASES = 32  # OpenCV resamples in steps of a 32nd of a pixel
_REACH = 5  # taps on each side of the middle
_FILTERS = 2
_FREQUENCY = np.linspace(0.0, 0.5, 201)
_IMPORTANCE = np.where(_FREQUENCY <= 0.42, 1.0 / (_FREQUENCY + 0.05), 0.0)
_ROUNDS = 60  # of alternating least squares


def resampled(image: Image, map_x: Image, map_y: Image) -> Image:
    """Sample an image (H, W) or (H, W, 3) at maps (H, W) in pixels, with the response R; reflected border."""
    taps, weights = correction()
    # By table of all bytes: indexing by arrays takes ten times as long.
    tables = [np.tile(weight, 256 // PHASES) for weight in weights]
    shares = []
    for positions in (map_x, map_y):
        phase = (np.rint(positions * np.float32(PHASES)).astype(np.int32) & (PHASES - 1)).astype(np.uint8)
        shares.append([cv2.LUT(phase, table) for table in tables])
    # Channel by channel: OpenCV is slow with three, and numpy with a factor for all three.
    planes = []
    for plane in cv2.split(image):
        moved = np.asarray(cv2.remap(plane, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), np.float32)
        for along_x, of_phase in zip((True, False), shares, strict=True):
            changes = [np.asarray(_along(moved, kernel, along_x), np.float32) for kernel in taps]
            for change, share in zip(changes, of_phase, strict=True):
                change *= share
                moved += change
        planes.append(moved)
    return np.asarray(planes[0] if image.ndim == 2 else cv2.merge(planes), np.float32)


def equalized(image: Image) -> Image:
    """Filter an image that needs no motion by the response R."""
    kernel = still_kernel()
    return np.asarray(cv2.sepFilter2D(image, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT), np.float32)


def _along(image: Image, kernel: Image, along_x: bool) -> Image:
    one = np.ones(1, np.float32)
    x, y = (kernel, one) if along_x else (one, kernel)
    return np.asarray(cv2.sepFilter2D(image, cv2.CV_32F, x, y, borderType=cv2.BORDER_REFLECT), np.float32)


def response(phase: float) -> NDArray[np.complex128]:
    """Response of the cubic kernel between two pixels, at the frequencies of the fit; 1 = exact shift."""
    distance = np.arange(-1.0, 3.0, dtype=np.float64) - np.float64(phase)
    return np.asarray(_kernel(distance) @ np.exp(2j * np.pi * distance[:, None] * _FREQUENCY))


def _kernel(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    a, t = _CUBIC, np.abs(distance)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def cubic_weights() -> NDArray[np.float64]:
    """Weights of the four pixels around a position, by its phase, (32, 4)."""
    return _kernel(np.arange(-1.0, 3.0) - np.arange(PHASES)[:, None] / PHASES)


@functools.cache
def still_kernel() -> Image:
    """Taps (11,) of R, the response of every frame."""
    cosines = _cosines()
    half = np.linalg.lstsq(_IMPORTANCE[:, None] * cosines, _IMPORTANCE * (response(0.5).real - 1.0), rcond=None)[0]
    kernel = _symmetric(np.asarray(half, np.float64))
    kernel[_REACH] += 1.0
    return kernel


@functools.cache
def correction() -> tuple[Image, Image]:
    """Filters D_j (J, 11), and their weights by phase w_j (J, 32)."""
    target = response(0.5).real
    cosines = _cosines()
    phases = np.arange(PHASES // 2 + 1) / PHASES  # the others mirror these
    magnitude = np.array([np.abs(response(phase)) for phase in phases])
    wanted = _IMPORTANCE * (target - magnitude)
    filters = np.array([(target - 1.0) ** (j + 1) for j in range(_FILTERS)])
    halves = np.zeros((_FILTERS, _REACH))
    for _ in range(_ROUNDS):
        weights = _weights(filters, magnitude, wanted)
        weighted = (_IMPORTANCE * magnitude)[:, None] * weights[..., None]  # (phases, J, frequencies)
        equations = np.einsum("pjf,ft->pfjt", weighted, cosines).reshape(*wanted.shape, -1)
        # Phase by phase first: of the whole, LAPACK's threads would wait for each other for seconds on a busy machine.
        turned, triangles = np.linalg.qr(equations)
        sides = np.einsum("pfe,pf->pe", turned, wanted).ravel()
        solved = np.linalg.lstsq(triangles.reshape(sides.size, -1), sides, rcond=1e-9)[0]
        halves = solved.reshape(_FILTERS, _REACH)
        filters = halves @ cosines.T
    weights = _weights(filters, magnitude, wanted)
    around = weights[np.minimum(np.arange(PHASES), PHASES - np.arange(PHASES))]
    return np.stack([_symmetric(half) for half in halves]), np.ascontiguousarray(around.T, np.float32)


def _weights(
    filters: NDArray[np.float64], magnitude: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    solved = [
        np.linalg.lstsq((_IMPORTANCE * m * filters).T, w, rcond=1e-6)[0] for m, w in zip(magnitude, wanted, strict=True)
    ]
    return np.array(solved)


def _cosines() -> NDArray[np.float64]:
    """Responses (frequencies, taps) of symmetric pairs of taps that leave a constant image unchanged."""
    return 2.0 * np.cos(2.0 * np.pi * _FREQUENCY[:, None] * np.arange(1, _REACH + 1)) - 2.0


def _symmetric(half: NDArray[np.float64]) -> Image:
    return np.concatenate([half[::-1], [-2.0 * half.sum()], half]).astype(np.float32)

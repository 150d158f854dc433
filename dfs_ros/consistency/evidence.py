"""Measure how well any description of the focus explains a focal stack, without a transform for each.

An image is one sharp image through its blur. A disk's transfer function is real and radial, so how badly a hypothesis
explains a tile of the stack follows from the energies of its images, each with each, in rings of frequency:

    G_ij = sum over a ring of Re(Y_i conj(Y_j))                     Y: windowed spectra of the tile, (F,) images
    C    = sum over rings of (tr G - k'G k (2 - n / t) / t) / degrees of freedom,      n = k'k, t = n + eps

with k (F,) the transfer of every image in the ring. Descriptions of the same images are compared by the ratio of their
misfits: noise, which none explains, is in all of them.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from dfs_ros.cost_volume.spectra import linear_planes
from dfs_ros.depth.regularization import least_energy
from dfs_ros.optics import thin_lens
from dfs_ros.types import FocalStack, reduced

Array = NDArray[np.float64]
Plane = NDArray[np.float32]

TILE_PX, STRIDE_PX, MOST_TILES = 32, 16, 40
SWEEP_PX = 8.0
"""Change of blur over the sweep that images are reduced to, where they are large enough."""
MEGAPIXELS = (0.02, 0.08)

_RINGS = np.geomspace(2.5 / TILE_PX, 0.45, 11)  # edges, cycles per pixel
_EPS = 0.01
_BLUR_STEP_PX, _GROWTH, _FARTHEST_PX = 0.5, 1.15, 20.0  # between depths: within the range of focus, and beyond it
_NOISE_FLOOR = 0.1  # of the noise: a misfit below it says nothing more
# Tiles of still scenes have .57 and more, of a hand that moves through them .44 and less (training photos).
_LOW_RINGS, _COHERENT = 2, 0.5
_ROUNDING_VARIANCE = 1e-6  # of 8-bit images, in light
_TABLE_STEP = 1.0 / 256.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """Energies of the textured tiles of a stack.

    Parameters
    ----------
    stack
        Images that this was made of: aligned, reduced.
    energies
        float64 (R, F, F, T): of image times image in ring R of tile T.
    frequency, count
        (R,): mean frequency of a ring in cycles per pixel, and how many frequencies it holds.
    noise
        Variance of the noise of a pixel, in light.
    """

    stack: FocalStack
    energies: Array
    frequency: Array
    count: Array
    noise: float

    def energy(self, transfer: Array) -> Array:
        """Logarithm of the misfit (D, T) of every hypothesis, given by its `transfer` (D, R, F)."""
        first, second = _pairs(transfer.shape[2])
        norm = np.square(transfer).sum(axis=2)  # (D, R)
        t = norm + _EPS
        freedom = (self.count * (transfer.shape[2] - 1.0 + np.square(_EPS / t))).sum(axis=1)
        products = transfer[..., first] * transfer[..., second] * ((2.0 - norm / t) / t)[..., None]  # (D, R, pairs)
        explained = (products.transpose(1, 0, 2) @ self._paired).sum(axis=0)
        return self._logarithm((self._total - explained) / freedom[:, None])

    def least(self, focus_diopters: ArrayLike, factor: float) -> Array:
        """Least energy (T,) over depth, if images have that focus and the lens blurs `factor` times as described."""
        focus = np.asarray(focus_diopters, np.float64)
        px_per_diopter = factor * self.px_per_diopter(focus)
        depths = _inverse_depths(focus, float(px_per_diopter.max()))
        blur_px = px_per_diopter * np.abs(focus - depths[:, None])
        return least_energy(self.energy(_disk(blur_px[:, None, :] * self.frequency[:, None])))

    def least_with_one_at(self, places_diopters: Array, focus_diopters: Array, factor: float) -> Array:
        """Mean over tiles of :meth:`least`, (F, P): image f has the focus of place p, all others theirs.

        The explained energy without image f, and what it shares with the others, serve for all its places.
        """
        focus, places, tiles = focus_diopters, places_diopters, self.energies.shape[3]
        px_per_diopter = factor * self.px_per_diopter(focus)
        depths = _inverse_depths(focus, float(px_per_diopter.max()))
        blur_px = px_per_diopter * np.abs(focus - depths[:, None])  # (D, F)
        px_at_place = factor * thin_lens.coc_px_per_diopter(places, self.stack.camera)
        blur_at_place_px = px_at_place * np.abs(places - depths[:, None])
        blur_at_place_px = self.stack.blur_scale[:, None, None] * blur_at_place_px  # (F, D, P)
        explained = np.zeros((*blur_at_place_px.shape, tiles))
        freedom = np.zeros(blur_at_place_px.shape)
        for ring, energies in enumerate(self.energies):
            k, q = _disk(blur_px * self.frequency[ring]).T[..., None], _disk(blur_at_place_px * self.frequency[ring])
            own = np.diagonal(energies).T[:, None, :]  # (F, 1, T)
            shared = np.tensordot(energies, k[..., 0], (1, 0)).transpose(0, 2, 1)  # (F, D, T)
            others = (k * shared).sum(axis=0) - 2.0 * k * shared + k * k * own
            shared = shared - k * own
            norm = np.square(k).sum(axis=0) - np.square(k) + np.square(q)
            t = norm + _EPS
            freedom += self.count[ring] * (len(focus) - 1.0 + np.square(_EPS / t))
            weight = ((2.0 - norm / t) / t)[..., None]
            q = q[..., None]
            explained += weight * (others[:, :, None] + q * (2.0 * shared[:, :, None] + q * own[:, :, None]))
        energy = self._logarithm((self._total - explained) / freedom[..., None])
        least = least_energy(np.moveaxis(energy, 1, 0).reshape(len(depths), -1))
        return np.asarray(least.reshape(len(focus), len(places), tiles).mean(axis=2))

    def unchanged(self) -> Array:
        """Energy (T,) if all images are blurred alike."""
        return np.asarray(self.energy(np.ones((1, len(self.count), len(self.stack))))[0])

    def px_per_diopter(self, focus_diopters: ArrayLike) -> Array:
        """Blur (F,) in pixels a dioptre."""
        return thin_lens.coc_px_per_diopter(focus_diopters, self.stack.camera) * self.stack.blur_scale

    def _logarithm(self, misfit: Array) -> Array:
        return np.asarray(np.log(np.maximum(misfit, 0.0) + _NOISE_FLOOR * self.noise))

    @functools.cached_property
    def _paired(self) -> Array:
        """Energies (R, F (F + 1) / 2, T) of the pairs i <= j; those of i < j twice."""
        first, second = _pairs(len(self.stack))
        return np.ascontiguousarray(self.energies[:, first, second] * np.where(first == second, 1.0, 2.0)[:, None])

    @functools.cached_property
    def _total(self) -> Array:
        """Energy (T,) of all images."""
        return np.asarray(np.trace(self.energies, axis1=1, axis2=2).sum(axis=0))


def evidence_of(stack: FocalStack, valid: NDArray[np.bool_], transfer_curve: str) -> Evidence | None:
    """Evidence of an aligned stack, `valid` (H, W) where every image covers it; None where nothing has texture."""
    focus = stack.focus_diopters
    sweep_px = float(np.ptp(focus) * thin_lens.coc_px_per_diopter(focus, stack.camera).max())
    height, width = stack.size
    wanted = height * width * 1e-6 * (SWEEP_PX / max(sweep_px, 1e-9)) ** 2
    small = reduced(stack, float(np.clip(wanted, *MEGAPIXELS)))
    light = np.stack([linear_planes(image, transfer_curve, 1)[0] for image in small.images])
    inside = cv2.resize(valid.astype(np.uint8), small.size[::-1], interpolation=cv2.INTER_AREA) > 0
    noise = max(float(np.median([_noise_variance(plane) for plane in light])), _ROUNDING_VARIANCE)
    corners = _textured_tiles(light, inside, noise)
    if not corners:
        return None
    tiles = np.stack([light[:, row : row + TILE_PX, column : column + TILE_PX] for row, column in corners])
    energies, frequency, count = _energies(tiles)
    still = _coherence(energies) > _COHERENT
    return Evidence(small, energies[..., still], frequency, count, noise) if still.any() else None


def _energies(tiles: Plane) -> tuple[Array, Array, Array]:
    """Energies, frequency and count of :class:`Evidence`, of tiles (T, F, N, N)."""
    along = np.hanning(TILE_PX + 2)[1:-1]
    window = np.outer(along, along).astype(np.float32)
    mean = (tiles * window).sum(axis=(2, 3), keepdims=True) / window.sum()
    spectra = fft.rfft2((tiles - mean) * (window / np.sqrt(np.square(window).sum())))
    fy, fx = fft.fftfreq(TILE_PX)[:, None], fft.rfftfreq(TILE_PX)[None]
    radius = np.hypot(fy, fx)
    twice = np.where((fx > 0.0) & (fx < 0.5), 2.0, 1.0) * np.ones_like(radius)  # for the half that is left out
    energies, frequency, count = [], [], []
    for low, high in itertools.pairwise(_RINGS):
        ring = (radius >= low) & (radius < high)
        y = np.ascontiguousarray(spectra[:, :, ring] * np.sqrt(twice[ring]), np.complex128).view(np.float64)
        energies.append((y @ y.transpose(0, 2, 1)).transpose(1, 2, 0))
        frequency.append(np.average(radius[ring], weights=twice[ring]))
        count.append(twice[ring].sum())
    return np.array(energies), np.array(frequency), np.array(count)


def _coherence(energies: Array) -> Array:
    """Mean correlation (T,) with the others, in the lowest rings, of the image that is least like them.

    Blur leaves it at 1; something that moves through the tile does not.
    """
    low = energies[:_LOW_RINGS].sum(axis=0)
    own = np.sqrt(np.einsum("iit->it", low))
    correlation = low / (own[:, None] * own + 1e-20)
    others = correlation.sum(axis=1) - np.einsum("iit->it", correlation)
    return np.asarray((others / max(len(low) - 1, 1)).min(axis=0))


def _textured_tiles(light: Plane, valid: NDArray[np.bool_], noise: float) -> list[tuple[int, int]]:
    """Corners (row, column) of tiles spread over those with more than the median of texture and than noise."""
    if min(valid.shape) < TILE_PX:
        return []
    fine = np.zeros(valid.shape, np.float32)
    for plane in light:
        smooth = cv2.GaussianBlur(plane, (0, 0), 0.7)
        fine += np.square(smooth - cv2.GaussianBlur(smooth, (0, 0), 2.0))
    window = (TILE_PX, TILE_PX)
    contrast = cv2.boxFilter(fine / len(light), -1, window, anchor=(0, 0))
    whole = cv2.erode(valid.astype(np.uint8), np.ones(window, np.uint8), anchor=(0, 0), borderValue=0) > 0
    rows, columns = (np.arange(0, n - TILE_PX + 1, STRIDE_PX) for n in valid.shape)
    contrast, whole = contrast[np.ix_(rows, columns)], whole[np.ix_(rows, columns)]
    if not whole.any():
        return []
    textured = np.argwhere(whole & (contrast > noise) & (contrast >= np.median(contrast[whole])))
    chosen = textured[:: max(1, -(-len(textured) // MOST_TILES))]
    return [(int(rows[i]), int(columns[j])) for i, j in chosen]


def _noise_variance(plane: Plane) -> float:
    """Variance of white noise, by the median of a filter that a blurred image hardly passes (Immerkaer, 1996)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6.0
    response = np.abs(cv2.filter2D(plane, -1, kernel)[::2, ::2])
    return float((np.median(response) / 0.6745) ** 2)


def _inverse_depths(focus: Array, px_per_diopter: float) -> Array:
    """Inverse depths (D,) half a pixel of blur apart over the range of focus, farther apart beyond it, both ways.

    At least half as far apart as the images are, so that a parabola through the misfit serves at an end of the range.
    """
    near, far = float(focus.max()), float(focus.min())
    count, step_px = int(np.ceil((near - far) * px_per_diopter / _BLUR_STEP_PX)), _BLUR_STEP_PX
    if count < (fewest := 2 * (len(focus) - 1)):  # stories move the focus by an image: finer, if these are close
        count, step_px = fewest, (near - far) * px_per_diopter / fewest
    steps = np.cumsum(step_px * _GROWTH ** np.arange(96))
    beyond = steps[steps < _FARTHEST_PX] / px_per_diopter
    return np.concatenate([far - beyond[::-1], np.linspace(far, near, max(count + 1, 2)), near + beyond])


@functools.cache
def _pairs(frames: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices i and j of every pair i <= j of images."""
    return np.triu_indices(frames)


@functools.cache
def _disk_table() -> Array:
    return thin_lens.disk_transfer(1.0, np.arange(0.0, 32.0, _TABLE_STEP))


def _disk(x: Array) -> Array:
    """:func:`.thin_lens.disk_transfer` of diameter times frequency, from a table."""
    table = _disk_table()
    return np.asarray(table[np.minimum((x * (1.0 / _TABLE_STEP) + 0.5).astype(np.intp), len(table) - 1)])

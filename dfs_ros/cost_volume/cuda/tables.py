"""Lookup tables of the kernels: linear intensity, transfer functions, windows; made in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume.reference import TABLE_FIRST_RADIUS_PX, TABLE_STEP_PX, table_psf
from dfs_ros.optics import thin_lens
from dfs_ros.optics.srgb import LUMA_WEIGHTS, linear_table

Real = NDArray[np.float32]

# Of x = c rho. The error of a cubic in each cell is under 1e-8, below float32 rounding, and the table (15 kB for
# blur of 40 px) stays in the L1 cache.
RADIAL_ENTRIES_PER_UNIT = 32.0
_HIGHEST_FREQUENCY = 0.70711  # cycles per pixel, along the diagonal


@dataclass(frozen=True, eq=False)
class Tables:
    """Tables of one transform size and CostConfig, float32, named as in `Job`.

    Tables of the tabulated disk (`disks` (entries, taps, taps), `row_cosines` (H' // 2 + 1, taps), `column_cosines`
    (W' // 2 + 1, taps)) are empty for any other PSF.
    """

    linear: Real
    radial: Real
    row_laplacian: Real
    column_laplacian: Real
    window: Real
    mixing: Real
    disks: Real
    row_cosines: Real
    column_cosines: Real


def make_tables(padded_size: tuple[int, int], cost: CostConfig, image_channels: int, aberration: float = 0.0) -> Tables:
    """The tables of a resolved CostConfig; `image_channels` 1 or 3, of the uint8 images; `aberration` of the disk."""
    quadrant = tuple(n // 2 + 1 for n in padded_size)
    laplacian = [4.0 * np.sin(np.pi * np.arange(q) / n) ** 2 for q, n in zip(quadrant, padded_size, strict=True)]
    disks = tabulated_disks(cost.max_coc_px) if cost.psf == "table" else np.zeros((0, 0, 0))
    taps = np.arange(disks.shape[-1])
    cosines = [
        np.cos(2.0 * np.pi * np.arange(q)[:, None] * taps / n) for q, n in zip(quadrant, padded_size, strict=True)
    ]
    # The transforms are not normalised; the intensity is, once.
    linear = linear_table(cost.transfer_curve) / (padded_size[0] * padded_size[1])
    luma = image_channels == 3 and cost.channels == "luma"
    weights = np.array(LUMA_WEIGHTS) if luma else np.ones(3)
    tables = (
        weights[:, None] * linear,
        radial_cubics(cost.psf, cost.max_coc_px, aberration),
        *laplacian,
        gaussian_half(cost.window_sigma_px),
        ndimage.gaussian_filter1d(np.eye(3), cost.window_sigma_px, axis=0, mode="reflect", truncate=4.0),
        disks,
        *cosines,
    )
    return Tables(*(np.ascontiguousarray(table, np.float32) for table in tables))


def radial_cubics(psf: str, max_coc_px: float, aberration: float = 0.0) -> NDArray[np.float64]:
    """Cubic coefficients of the transfer function over x = c rho, (cells, 4).

    With an aberration (2 cells, 4): near and far side of the focus. In each cell ``a + b t + c t^2 + d t^3`` for t in
    [0, 1).

    It goes through the exact values at t = 0, 1/3, 2/3 and 1. The analytic disk replaces the tabulated one.
    """
    cells = int(max_coc_px * _HIGHEST_FREQUENCY * RADIAL_ENTRIES_PER_UNIT) + 2
    nodes = np.arange(4) / 3.0
    x = (np.arange(cells)[:, None] + nodes) / RADIAL_ENTRIES_PER_UNIT
    sides = (1.0, -1.0) if aberration else (1.0,)
    values = np.concatenate([thin_lens.blur_transfer(psf, side, x, aberration) for side in sides])
    return np.asarray(values @ np.linalg.inv(np.vander(nodes, increasing=True)).T)


def tabulated_disks(max_coc_px: float) -> NDArray[np.float64]:
    """Quadrants of the DDFS authors' disks, (entries, taps, taps).

    Radii 0.5, 0.6, ...; mirrored taps are counted in.
    """
    entries = max(int((max_coc_px / 2.0 - TABLE_FIRST_RADIUS_PX) / TABLE_STEP_PX), 0) + 3
    kernels = [table_psf(2.0 * (TABLE_FIRST_RADIUS_PX + TABLE_STEP_PX * i)) for i in range(entries)]
    taps = max(len(kernel) // 2 + 1 for kernel in kernels)
    disks = np.zeros((entries, taps, taps))
    for disk, kernel in zip(disks, kernels, strict=True):
        half = len(kernel) // 2
        disk[: half + 1, : half + 1] = kernel[half:, half:]
    once_or_twice = np.where(np.arange(taps) > 0, 2.0, 1.0)
    return disks * once_or_twice[:, None] * once_or_twice


def gaussian_half(sigma_px: float) -> NDArray[np.float64]:
    """Gaussian truncated at 4 sigma with sum 1, from its centre outwards, as scipy.ndimage has it."""
    radius = int(4.0 * sigma_px + 0.5)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma_px) ** 2)
    return np.asarray(weights / (weights[0] + 2.0 * weights[1:].sum()))

"""Thin lens: blur diameter, its transfer function and point spread function, depth of field, breathing.

All distances are in dioptres (1/m): infinity is 0, and the blur of a thin lens is linear.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_ros.types import Camera, check_focus

Array = NDArray[np.float64]


def coc_px_per_diopter(focus_diopters: ArrayLike, camera: Camera) -> Array:
    """Blur diameter in pixels per dioptre of defocus, in the shape of `focus_diopters`.

    ``f^2 / (N (1 - f D_f) p)``. Raises ValueError for focus inside the focal length, beyond infinity, or not finite.
    """
    focus = np.asarray(focus_diopters, np.float64)
    for value in focus.ravel():
        check_focus(float(value), camera.focal_length_m)
    f = camera.focal_length_m
    return f * f / (camera.f_number * (1.0 - f * focus)) / camera.pixel_pitch_m


def coc_px(depth_diopters: ArrayLike, focus_diopters: ArrayLike, camera: Camera) -> Array:
    """Diameter of the circle of confusion in pixels.

    ``c = f^2 |D_f - D| / (N (1 - f D_f) p)``

    Parameters
    ----------
    depth_diopters
        Inverse depth D of the scene, 0 = infinity; broadcasts against `focus_diopters`.
    focus_diopters
        Inverse focus distance D_f, 0 = infinity.

    Equation 1 of Fujimura et al., IJCV 2024, divided through by depth and focus distance so that infinity is a number.
    """
    depth = np.asarray(depth_diopters, np.float64)
    if not (np.isfinite(depth).all() and (depth >= 0).all()):
        raise ValueError("depth_diopters: expected finite dioptres of 0 (infinity) or more")
    focus = np.asarray(focus_diopters, np.float64)
    return coc_px_per_diopter(focus, camera) * np.abs(focus - depth)


def disk_transfer(diameter_px: ArrayLike, frequency: ArrayLike, aberration: float = 0.0) -> Array:
    """Transfer function of the blur disk of a lens, real, 1 at rho = 0.

    ``2 J1(x) / x + s a (2 J1(x) / x - 8 J2(x) / x^2)`` with ``x = pi |c| rho``: of a uniform disk, and of the
    aberration a that adds ``s a (2 r^2 - 1)`` to its light over the radius r.

    Parameters
    ----------
    diameter_px
        c in pixels, broadcasts against `frequency`; its sign s: positive on the near side of the focus.
    frequency
        rho in cycles per pixel.
    aberration
        a, see :class:`dfs_ros.types.Camera`.
    """
    from scipy.special import j0, j1  # half the start of a process that only sends or receives

    diameter = np.asarray(diameter_px, np.float64)
    x = np.pi * np.abs(diameter) * np.asarray(frequency, np.float64)
    small = x < 1e-4
    safe = np.where(small, 1.0, x)
    disk = np.where(small, 1.0 - x * x / 8.0, 2.0 * j1(safe) / safe)
    if aberration == 0.0:
        return disk
    small = x < 1e-2
    safe = np.where(small, 1.0, x)
    j2 = 2.0 * j1(safe) / safe - j0(safe)  # ten times as fast as scipy's jv
    rim = np.where(small, -x * x / 24.0, disk - 8.0 * j2 / (safe * safe))
    return np.asarray(disk + np.sign(diameter) * aberration * rim)


def gaussian_transfer(diameter_px: ArrayLike, frequency: ArrayLike) -> Array:
    """Transfer function of a Gaussian with the disk's second moment, sigma = c / 4."""
    x = np.pi * np.asarray(diameter_px, np.float64) * np.asarray(frequency, np.float64)
    return np.exp(-x * x / 8.0)


def blur_transfer(psf: str, diameter_px: ArrayLike, frequency: ArrayLike, aberration: float = 0.0) -> Array:
    """Transfer function of blur, radial: :func:`gaussian_transfer` for psf `gaussian`, else :func:`disk_transfer`."""
    if psf == "gaussian":
        return gaussian_transfer(diameter_px, frequency)
    return disk_transfer(diameter_px, frequency, aberration)


def disk_psf(diameter_px: float, size: int) -> Array:
    """Exact area coverage of a centred disk on `size` x `size` pixels, sum 1.

    A diameter of 0 is the identity. The same numbers as MATLAB's ``fspecial('disk', diameter / 2)``.
    Raises ValueError where the disk does not fit the grid.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: expected an odd number of pixels, received {size}")
    if not np.isfinite(diameter_px) or diameter_px < 0 or diameter_px > size:
        raise ValueError(f"diameter_px: expected 0 to {size} for a grid of {size}, received {diameter_px}")
    half = size // 2
    radius = diameter_px / 2.0
    if radius <= 0:
        psf = np.zeros((size, size))
        psf[half, half] = 1.0
        return psf
    edges = np.arange(size + 1, dtype=np.float64) - half - 0.5
    corner = _disk_area_below(edges[:, None], edges[None, :], radius)
    area = corner[1:, 1:] - corner[:-1, 1:] - corner[1:, :-1] + corner[:-1, :-1]
    psf = np.clip(area, 0.0, 1.0)
    psf /= psf.sum()
    return psf


def _disk_area_below(x: Array, y: Array, r: float) -> Array:
    """Area of a centred disk of radius r left of x and below y."""
    x, y = np.broadcast_arrays(np.clip(x, -r, r), np.clip(y, -r, r))
    quarter = np.pi * r * r / 4.0
    # By symmetry from the signed area between the axes and the corner (x, y).
    return quarter + _half_strip(x, r) + _half_strip(y, r) + _corner_area(x, y, r)


def _half_strip(x: Array, r: float) -> Array:
    """Signed area of the upper half disk between 0 and x: integral of sqrt(r^2 - t^2)."""
    return 0.5 * (x * np.sqrt(np.maximum(r * r - x * x, 0.0)) + r * r * np.arcsin(np.clip(x / r, -1.0, 1.0)))


def _corner_area(x: Array, y: Array, r: float) -> Array:
    """Signed area of the disk within the rectangle spanned by the origin and (x, y)."""
    sign = np.sign(x) * np.sign(y)
    ax, ay = np.abs(x), np.abs(y)
    chord = np.sqrt(np.maximum(r * r - ay * ay, 0.0))  # where the line at height |y| leaves the disk
    inside = ax <= chord
    outside_area = chord * ay + _half_strip(ax, r) - _half_strip(np.minimum(chord, ax), r)
    return sign * np.where(inside, ax * ay, outside_area)


def magnification(focus_diopters: ArrayLike, camera: Camera) -> Array:
    """Image scale of a thin lens relative to infinity focus (focus breathing).

    ``1 / (1 - f D_f)``
    """
    focus = np.asarray(focus_diopters, np.float64)
    for value in focus.ravel():
        check_focus(float(value), camera.focal_length_m)
    return 1.0 / (1.0 - camera.focal_length_m * focus)

"""Registration of two images of one scene at different focus.

Images are compared as locally normalised linear intensity, which is invariant to gain and slow changes of brightness
and in which a blurred edge still resembles the sharp one. A symmetric blur does not move the optimum, but it is
symmetric in linear intensity only: in encoded pixel values bright areas grow with blur, which costs up to 0.3 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.filters import OUTLIER, WINDOW_PX, detail
from dfs_ros.optics.srgb import linear_table

Array = NDArray[np.float64]
Image = NDArray[np.float32]

NOISE = 0.05  # contrast of flat neighbourhoods, as a share of the image's mean intensity
_COARSEST_PX = 48  # longest side of the coarsest level, at most
_OUTSIDE, _INSIDE = 1e5, 1e3  # marks pixels from beyond the border, even when interpolated; features stay far below
MIN_OVERLAP = 0.25
LEAST_GAIN = 0.1  # of contrast: a dissimilar image must not count as a perfect match with gain 0
CONVERGED_PX = 0.03
# Neighbouring residuals are correlated, so an image holds fewer independent measurements than pixels.
PIXELS_PER_MEASUREMENT = 64.0
# Standard deviation, about what is expected, of shift x, shift y, log scale, rotation and radial term.
EXPECTED_WITHIN = (0.1, 0.1, 0.01, 0.05, 0.001)
LOCAL_CELLS = 24  # along the longer side


@dataclass(frozen=True, eq=False)
class Motion:
    """Smooth map from reference pixels to the same scene points in another image.

    ``x' = A (1 + k |x|^2 + p x) x + u(x)``, the origin at the image centre, the unit half the longer side.

    Parameters
    ----------
    size
        (height, width) of the images in pixels.
    affine
        A, float64 (3, 3), homogeneous: scale, rotation and shift.
    radial
        k: radial distortion, which varies with focus as the magnification does.
    local
        u on a coarse grid over the image, float32 (rows, columns, 2), or None: independent local motion.
    perspective
        p (x, y): of a camera that has turned by the angle ``f p``, f in half longer sides.
    """

    size: tuple[int, int]
    affine: Array
    radial: float = 0.0
    local: Image | None = None
    perspective: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def identity(cls, size: tuple[int, int]) -> Motion:
        return cls(size, np.eye(3))

    @classmethod
    def from_parameters(
        cls, size: tuple[int, int], shift: tuple[float, float], log_scale: float, rotation: float, radial: float
    ) -> Motion:
        """Scale, then rotation [rad], then shift [half longer sides]."""
        scale = math.exp(log_scale)
        c, s = scale * math.cos(rotation), scale * math.sin(rotation)
        return cls(size, np.array([[c, -s, shift[0]], [s, c, shift[1]], [0.0, 0.0, 1.0]]), radial)

    @property
    def log_scale(self) -> float:
        """Natural logarithm of :attr:`scale`."""
        return 0.5 * math.log(abs(float(np.linalg.det(self.affine[:2, :2]))))

    @property
    def scale(self) -> float:
        """Image scale relative to the reference."""
        return math.exp(self.log_scale)

    @property
    def unit_px(self) -> float:
        """Half the longer side."""
        return max(self.size) / 2.0

    @property
    def rotation_rad(self) -> float:
        a = self.affine
        return math.atan2(float(a[1, 0] - a[0, 1]), float(a[0, 0] + a[1, 1]))

    @property
    def shift_px(self) -> tuple[float, float]:
        """Displacement (x, y) of the image centre in pixels."""
        return float(self.affine[0, 2]) * self.unit_px, float(self.affine[1, 2]) * self.unit_px

    @property
    def local_rms(self) -> float:
        """Root mean square of the local motion, in half longer sides."""
        return 0.0 if self.local is None else float(np.sqrt(np.mean(np.sum(np.square(self.local), axis=-1))))

    def after(self, other: Motion) -> Motion:
        """Composition: first `other`, then this; exact but for products of radial and perspective terms.

        Local motion is left out.
        """
        (x, y), (other_x, other_y) = self.perspective, other.perspective
        bent = x + other_x, y + other_y
        return Motion(self.size, self.affine @ other.affine, self.radial + other.radial, perspective=bent)

    def inverse(self) -> Motion:
        """Inverse map, to first order in the radial and perspective terms, without local motion."""
        bent = -self.perspective[0], -self.perspective[1]
        affine = np.asarray(np.linalg.inv(self.affine), np.float64)
        return Motion(self.size, affine, -self.radial, perspective=bent)

    def maps(self, shape: tuple[int, int]) -> tuple[Image, Image]:
        """Sampling maps x' and y', float32 (h, w) in pixels, at size `shape`."""
        x, y = coordinates(self.size, shape)
        stretch = np.float32(1.0) + np.float32(self.radial) * (x * x + y * y)
        if any(self.perspective):
            stretch += np.float32(self.perspective[0]) * x + np.float32(self.perspective[1]) * y
        per_x, per_y = self.unit_px * shape[1] / self.size[1], self.unit_px * shape[0] / self.size[0]
        a = self.affine
        ax, ay = (a[0] * per_x).astype(np.float32), (a[1] * per_y).astype(np.float32)
        map_x = (ax[0] * x + ax[1] * y) * stretch + (ax[2] + np.float32((shape[1] - 1) / 2.0))
        map_y = (ay[0] * x + ay[1] * y) * stretch + (ay[2] + np.float32((shape[0] - 1) / 2.0))
        if self.local is not None:
            local = cv2.resize(self.local, shape[::-1], interpolation=cv2.INTER_CUBIC)
            map_x += local[..., 0] * np.float32(per_x)
            map_y += local[..., 1] * np.float32(per_y)
        return map_x, map_y

    def largest_displacement_px(self) -> float:
        """Largest displacement of any pixel, in pixels of the full image."""
        shape = (9, 9)
        map_x, map_y = self.maps(shape)
        dx = (map_x - np.arange(9, dtype=np.float32)[None, :]) * (self.size[1] / 9)
        dy = (map_y - np.arange(9, dtype=np.float32)[:, None]) * (self.size[0] / 9)
        return float(np.hypot(dx, dy).max()) * 9 / 8  # the outermost samples are half a cell inside the border


def coordinates(size: tuple[int, int], shape: tuple[int, int]) -> tuple[Image, Image]:
    """Column (1, w) and row (h, 1) coordinates of an image of `size` reduced to `shape`."""
    height, width = size
    unit = max(size) / 2.0
    x = ((np.arange(shape[1]) + 0.5) * (width / shape[1]) - width / 2.0) / unit
    y = ((np.arange(shape[0]) + 0.5) * (height / shape[0]) - height / 2.0) / unit
    return x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]


class Features:
    """Pyramid of locally normalised linear intensity, coarse to fine: `levels`, float32 (h, w).

    ``n = (I - mean(I)) / sqrt(var(I) + c^2)`` over a neighbourhood; c, for noise, is a share of the mean intensity.

    Parameters
    ----------
    image
        uint8 (H, W, 3) RGB or (H, W).
    longest_px
        Longest side of the finest level, at most.
    transfer_curve
        ``srgb`` or ``linear``.
    """

    def __init__(self, image: NDArray[np.uint8], longest_px: int, transfer_curve: str) -> None:
        self.size = (int(image.shape[0]), int(image.shape[1]))
        self._grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image, np.uint8)
        linear = linear_table(transfer_curve).astype(np.float32).take(self._grey)
        planes = [_reduced(linear, max(1, math.ceil(max(self.size) / longest_px)))]
        while has_coarser(planes[0].shape):
            planes.insert(0, _reduced(planes[0], 2))
        noise = NOISE * float(planes[0].mean()) + 1e-4
        self.levels = [_normalized(plane, noise) for plane in planes]

    def level_near(self, longest_px: int) -> int:
        """Finest level with a longest side of at most `longest_px`, or the coarsest."""
        return level_near([plane.shape for plane in self.levels], longest_px)

    def contrast(self, level: int, blur_px: float = 0.0) -> float:
        """RMS of local contrast in pixel values, after Gaussian blur of sigma `blur_px`."""
        height, width = self.levels[level].shape
        plane = cv2.resize(self._grey, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        if blur_px > 0:
            plane = cv2.GaussianBlur(plane, (0, 0), blur_px, borderType=cv2.BORDER_REFLECT).astype(np.float32)
        return float(np.sqrt(np.mean(np.square(_contrast(plane)))))

    def seen_through(self, motion: Motion, level: int) -> Image:
        """Resample level `level` into the reference's geometry; outside pixels exceed 1e3."""
        plane = self.levels[level]
        map_x, map_y = motion.maps((plane.shape[0], plane.shape[1]))
        seen = cv2.remap(plane, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=_OUTSIDE)
        return np.asarray(seen, np.float32)


def features(images: NDArray[np.uint8], longest_px: int, transfer_curve: str) -> list[Features]:
    """Features of every image of a stack."""
    return [Features(image, longest_px, transfer_curve) for image in images]


def has_coarser(shape: tuple[int, ...]) -> bool:
    """Whether a level of the pyramid has a coarser one."""
    return max(shape) >= 1.5 * _COARSEST_PX and min(shape) >= 16


def level_near(shapes: Sequence[tuple[int, ...]], longest_px: int) -> int:
    """:meth:`Features.level_near` of levels of these shapes."""
    return max(0, sum(1 for shape in shapes if max(shape) <= longest_px) - 1)


def _reduced(plane: Any, step: int) -> Any:
    if step == 1:
        return plane
    size = (max(plane.shape[1] // step, 1), max(plane.shape[0] // step, 1))
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)


def _contrast(plane: Image) -> Image:
    return detail(np.asarray(cv2.GaussianBlur(plane, (5, 5), 0.8), np.float32))


def _normalized(plane: Image, noise: float) -> Image:
    contrast = _contrast(plane)
    variance = cv2.blur(contrast * contrast, (WINDOW_PX, WINDOW_PX), borderType=cv2.BORDER_REFLECT)
    return np.asarray(contrast / np.sqrt(variance + np.float32(noise * noise)))


@dataclass(frozen=True, eq=False)
class _TemplateLevel:
    shape: tuple[int, int]
    features: Image  # (pixels,)
    derivatives: Image  # (parameters, pixels), by shift x, shift y, log scale, rotation, radial

    @classmethod
    def of(cls, plane: Image, size: tuple[int, int]) -> _TemplateLevel:
        shape = (int(plane.shape[0]), int(plane.shape[1]))
        x, y = coordinates(size, shape)
        unit = max(size) / 2.0
        slope_x = cv2.Sobel(plane, cv2.CV_32F, 1, 0, ksize=3, scale=unit * shape[1] / size[1] / 8.0)
        slope_y = cv2.Sobel(plane, cv2.CV_32F, 0, 1, ksize=3, scale=unit * shape[0] / size[0] / 8.0)
        outward = slope_x * x + slope_y * y
        columns = (slope_x, slope_y, outward, slope_y * x - slope_x * y, outward * (x * x + y * y))
        derivatives = np.stack([np.asarray(c, np.float32).ravel() for c in columns])
        return cls(shape, plane.ravel(), derivatives)


class Template:
    """Reference image with the derivatives of its features by motion parameter."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self._levels: dict[int, _TemplateLevel] = {}

    def level(self, index: int) -> _TemplateLevel:
        if index not in self._levels:
            self._levels[index] = _TemplateLevel.of(self.features.levels[index], self.features.size)
        return self._levels[index]


def template(features: Features) -> Template:
    """Template of the reference."""
    return Template(features)


def correlation(moving: Features, template: Template, motion: Motion, level: int) -> float:
    """Normalised correlation of features in the overlap; NaN for little overlap or flat images."""
    fixed = template.level(level)
    seen = moving.seen_through(motion, level).ravel()
    inside = (np.abs(seen) < _INSIDE).astype(np.float32)
    if inside.mean() < MIN_OVERLAP:
        return math.nan
    seen, fixed_features = seen * inside, fixed.features * inside
    power = float(seen @ seen) * float(fixed_features @ fixed_features)
    return float(seen @ fixed_features) / math.sqrt(power) if power > 0 else math.nan


def shifted(moving: Features, template: Template, motion: Motion, level: int) -> Motion:
    """Add the shift from phase correlation, accurate to a pixel of that level."""
    fixed = template.level(level)
    seen = moving.seen_through(motion, level)
    seen[np.abs(seen) > _INSIDE] = 0.0
    # A copy, because phaseCorrelate applies the window to its arguments in place.
    return shifted_by_phase(fixed.features.reshape(fixed.shape).copy(), seen, motion)


def shifted_by_phase(fixed: Image, seen: Image, motion: Motion) -> Motion:
    """:func:`shifted` of features (h, w) of the reference, and of those seen, 0 outside; overwrites both."""
    window = cv2.createHanningWindow(fixed.shape[::-1], cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(fixed, seen, window)
    pixel = 2.0 / max(fixed.shape)
    shift = Motion.from_parameters(motion.size, (dx * pixel, dy * pixel), 0.0, 0.0, 0.0)
    return motion.after(shift)


def register(
    moving: Features,
    template: Template,
    start: Motion,
    expected: Motion,
    levels: range,
    iterations: int,
) -> Motion:
    """Estimate the motion of `moving` to the template, by robust Gauss-Newton, coarse to fine.

    Minimises ``sum rho(g n(x') - n_t(x)) / sigma^2`` over `levels`, at most `iterations` steps at each, plus a weak
    prior `expected` for what the images leave undetermined. g is the best gain of contrast, sigma^2 the residual
    variance. Inverse compositional: the derivatives are the template's (Baker, Matthews, IJCV 56, 2004).
    """
    motion = start
    for level in levels:
        fixed = template.level(level)
        smallest = CONVERGED_PX * 2.0 / max(fixed.shape)
        for _ in range(iterations):
            residual, weight, variance = _residual(fixed, moving.seen_through(motion, level).ravel())
            information = 1.0 / (variance * PIXELS_PER_MEASUREMENT)
            weighted = fixed.derivatives * weight
            pull, pulled = _pull(motion, expected)
            normal = pull + information * (weighted @ fixed.derivatives.T)
            step = np.linalg.solve(normal, pulled + information * (weighted @ residual))
            motion = _moved(motion, np.asarray(step, np.float64))
            if np.abs(step).max() < smallest:
                break
    return motion


def _residual(fixed: _TemplateLevel, seen: Image) -> tuple[Image, Image, float]:
    """Residual and weight (pixels,), and the residual's variance."""
    inside = (np.abs(seen) < _INSIDE).astype(np.float32)
    seen = seen * inside
    power = float(seen @ seen)
    gain = float(seen @ fixed.features) / power if power > 0 else 0.0
    residual = np.float32(max(gain, LEAST_GAIN)) * seen - fixed.features * inside
    count = max(float(inside.sum()), 1.0)
    typical = float(np.abs(residual).sum()) / count + 1e-6
    weight = inside / (np.float32(1.0) + np.square(residual * np.float32(1.0 / (OUTLIER * typical))))
    variance = float((residual * weight) @ residual) / max(float(weight.sum()), 1.0)
    return residual, np.asarray(weight, np.float32), max(variance, 1e-6)


def _pull(motion: Motion, expected: Motion) -> tuple[Array, Array]:
    difference = np.array(
        [
            motion.affine[0, 2] - expected.affine[0, 2],
            motion.affine[1, 2] - expected.affine[1, 2],
            motion.log_scale - expected.log_scale,
            motion.rotation_rad - expected.rotation_rad,
            motion.radial - expected.radial,
        ]
    )
    information = np.array([1 / s**2 for s in EXPECTED_WITHIN])
    return np.diag(information), information * difference


def _moved(motion: Motion, step: Array) -> Motion:
    shift_x, shift_y, scale, rotation, radial = (float(v) for v in step)
    inner = Motion.from_parameters(motion.size, (shift_x, shift_y), scale, rotation, 0.0).affine
    return replace(motion, affine=motion.affine @ np.linalg.inv(inner), radial=motion.radial - radial)


def register_local(
    moving: Features, template: Template, motion: Motion, level: int, iterations: int, within: float
) -> Motion:
    """Add local motion to `motion`, on a coarse grid: parallax, rolling shutter.

    Lucas-Kanade in wide windows, kept near the global motion in areas of little texture; `within`: expected standard
    deviation of local motion, in half longer sides.
    """
    fixed = template.level(level)
    shape = fixed.shape
    cell, grid = max(shape) / LOCAL_CELLS, local_cells(shape)
    hold = np.float32(1.0 / within**2)
    gx, gy = fixed.derivatives[:2]
    local = np.zeros((*grid, 2), np.float32) if motion.local is None else motion.local
    for _ in range(iterations):
        residual, weight, variance = _residual(fixed, moving.seen_through(replace(motion, local=local), level).ravel())
        information = weight * np.float32(cell * cell / (variance * PIXELS_PER_MEASUREMENT))

        def gathered(product: Image, information: Image = information) -> Image:
            cells = cv2.resize((product * information).reshape(shape), grid[::-1], interpolation=cv2.INTER_AREA)
            return np.asarray(cv2.GaussianBlur(cells, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT), np.float32)

        xx, xy, yy = gathered(gx * gx) + hold, gathered(gx * gy), gathered(gy * gy) + hold
        rx, ry = gathered(gx * residual) + hold * local[..., 0], gathered(gy * residual) + hold * local[..., 1]
        determinant = xx * yy - xy * xy
        local = local - np.stack([(yy * rx - xy * ry) / determinant, (xx * ry - xy * rx) / determinant], axis=-1)
    return replace(motion, local=local)


def local_cells(shape: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the grid of local motion of a level."""
    cell = max(shape) / LOCAL_CELLS
    return max(2, round(shape[0] / cell)), max(2, round(shape[1] / cell))

"""Registration that blur does not bias: both images blurred alike, with a first depth.

The sharper image of a pair reaches differently across depth jumps than the blurred one, which pulls a registration by
tenths of a pixel even where nothing moved. With a depth for every pixel of the reference, the reference is blurred as
frame i is, and frame i as the reference is, each pixel by the disk of its own depth:

    k_i(x) * (k_r(x) * scene) = k_r(x) * (k_i(x) * scene)

Both sides then show the same, and Gauss-Newton on their difference has no bias. Pixels beside depth jumps, whose blur
mixes two surfaces, are left out. The motion of a frame is, in reference pixels x from the centre, with inverse depth q

    u(x) = shift + roll x' + zoom x + (a, b) (q - q0) + c (q - q0) x,

the last two for a camera that moves sideways and forward (parallax acts by 1 / depth; q0 is the mean). Among three
models the simplest that explains the images as well is taken: nothing moved but the lens, a hand that shifts and rolls
(no parallax), and all of it; or else the motion stays as it was found, local motion included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack, realigned
from dfs_ros.alignment.filters import detail, light, weighted
from dfs_ros.alignment.matching import SIGNIFICANT_PX, difference_px
from dfs_ros.alignment.operations import Operations
from dfs_ros.alignment.registration import PIXELS_PER_MEASUREMENT, Motion, coordinates
from dfs_ros.optics import thin_lens
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]
Image = NDArray[np.float32]

_LONGEST_PX = 320  # of the images compared; at least halved, which costs no accuracy
ITERATIONS = 4
BLUR_STEP_PX = 0.5  # between the disks that are computed, pixels of the images compared
MOST_DISKS = 12
JUMP_PX = 0.75  # pixels whose neighbourhood differs by more blur are beside a jump
NEAR_PX = 3  # reach of the neighbourhood
LEAST_SHARE = 0.1  # of pixels that count
CONVERGED_PX = 0.01
_SMALLEST_PX = 32  # least height and width of the images compared
# Standard deviation of shift x, shift y, log scale, roll, and of parallax by a standard deviation of inverse depth.
EXPECTED_WITHIN = np.array([0.1, 0.1, 0.02, 0.05, 0.02, 0.02, 0.02])
_LOCAL_FREE = 7  # parameters that local motion counts as: those of parallax
MODELS = ((2,), (0, 1, 2, 3), tuple(range(7)))
"""Parameters that are free: of a still camera, of a hand, of a camera that moves through the scene."""


@dataclass(frozen=True, eq=False)
class _Scene:
    """Reduced reference, and the pixels that count; parallax in standard deviations of the inverse depth."""

    size: tuple[int, int]
    shape: tuple[int, int]
    light: Image
    counts: NDArray[np.bool_]
    basis: tuple[Image, Image]
    mean: float
    spread: float

    @property
    def per_unit(self) -> tuple[float, float]:
        """Pixels of the reduced images per half longer side, (x, y)."""
        unit = max(self.size) / 2.0
        return unit * self.shape[1] / self.size[1], unit * self.shape[0] / self.size[0]


@dataclass(frozen=True, eq=False)
class Parallax:
    """Motion of the frames of a camera that moves through the scene: fits of the last model.

    `parameters` (F, 7) and `information` (F, 7, 7), zero for frames that were not registered: shift x and y, log scale
    and roll at the inverse depth `mean`, and displacement by `spread` more of it, x, y and outwards; in half longer
    sides. `spread` in dioptres.
    """

    parameters: Array
    information: Array
    mean: float
    spread: float


@dataclass(frozen=True, eq=False)
class FrameFit:
    """Parameters (7,) of a frame, their information (7, 7), and the mean squared residual of its pixels."""

    parameters: Array
    information: Array
    misfit: float
    pixels: float


@dataclass(frozen=True, eq=False)
class Fits:
    """Fits of every frame by MODELS, and of its motion as it was found, with the inverse depth `diopters` (h, w)."""

    models: Mapping[int, list[FrameFit]]
    as_found: Mapping[int, FrameFit]
    diopters: Image
    mean: float
    spread: float


Fit = Callable[[FocalStack, AlignedStack, Image, str, Mapping[int, int], int], "Fits | None"]
""":func:`fitted`."""


def refined(
    stack: FocalStack,
    aligned: AlignedStack,
    diopters: Image,
    transfer_curve: str,
    operations: Operations | None = None,
    fit: Fit | None = None,
) -> tuple[AlignedStack, bool, Parallax | None]:
    """Refine the motions of the frames of `stack` by a first inverse depth (H, W), and resample the images.

    `aligned`: alignment of `stack` in the geometry of its reference, with the aperture to use. False, and the same
    images, if the motions change by less than 0.1 px, or none is to be refined: those that do not come from images, or
    were refined for an earlier stack. Parallax, if a camera that moves through the scene explains the images best.
    `operations`, `fit`: of another device.
    """
    motions, parallax = _refined_motions(stack, aligned, diopters, transfer_curve, fit or fitted)
    shape = (stack.size[0] // 8, stack.size[1] // 8)
    changes = [difference_px(aligned.estimates[i].motion, motion, shape) for i, motion in motions.items()]
    moved = max(changes, default=0.0) >= SIGNIFICANT_PX
    better = realigned(aligned, stack, motions if moved else {}, transfer_curve, operations)
    return better, moved, parallax


def _refined_motions(
    stack: FocalStack, aligned: AlignedStack, diopters: Image, transfer_curve: str, fit: Fit
) -> tuple[dict[int, Motion], Parallax | None]:
    """Motions by index of the frame, empty if there is nothing to refine, and the parallax."""
    estimates = aligned.estimates
    frames = {k: i for k, i in enumerate(aligned.kept) if estimates[i].source == "images"}
    step = max(2, math.ceil(max(stack.size) / _LONGEST_PX))
    if min(stack.size) // step < _SMALLEST_PX or all(estimates[i].known for i in frames.values()):
        return {}, None
    fits = fit(stack, aligned, diopters, transfer_curve, frames, step)
    if fits is None:
        return {}, None
    as_found = sum(
        _description(found, 4 if estimates[i].motion.local is None else _LOCAL_FREE)
        for i, found in fits.as_found.items()
    )
    described = [sum(_description(fit[m], len(free)) for fit in fits.models.values()) for m, free in enumerate(MODELS)]
    chosen = int(np.argmin(described))
    parallax = _parallax(fits, aligned) if chosen == len(MODELS) - 1 else None
    if as_found <= described[chosen]:
        return {}, parallax
    basis = basis_of(stack.size, fits.diopters, fits.mean, fits.spread)
    motions = {i: _motion(basis, fit[chosen].parameters, estimates[i].motion) for i, fit in fits.models.items()}
    return motions, parallax


def fitted(
    stack: FocalStack,
    aligned: AlignedStack,
    diopters: Image,
    transfer_curve: str,
    frames: Mapping[int, int],
    step: int,
) -> Fits | None:
    """Fits of all models to frames, on images smaller by `step`; None if too few pixels count.

    `frames`: of index in `aligned` to index in `stack`.
    """
    estimates, shape = aligned.estimates, (stack.size[0] // step, stack.size[1] // step)
    q = reduced_diopters(diopters, shape)
    coc_px = _coc_px(aligned.stack, q, step)
    counts = beside_no_jump(coc_px, reduced_valid(aligned, shape))
    if counts.mean() < LEAST_SHARE:
        return None
    scene = _scene(stack, aligned.kept[aligned.reference], q, counts, shape, transfer_curve)
    models, as_found = {}, {}
    for k, i in frames.items():
        pair = _Pair(scene, light(stack.images[i], shape, transfer_curve) * np.float32(estimates[i].gain))
        pair.blur(coc_px[k], coc_px[aligned.reference])
        models[i] = _fits(pair, estimates[i].motion)
        as_found[i] = pair.fit(estimates[i].motion)
    return Fits(models, as_found, q, scene.mean, scene.spread)


def _parallax(fits: Fits, aligned: AlignedStack) -> Parallax:
    parameters, information = np.zeros((len(aligned.kept), 7)), np.zeros((len(aligned.kept), 7, 7))
    for k, i in enumerate(aligned.kept):
        if i in fits.models:
            parameters[k], information[k] = fits.models[i][-1].parameters, fits.models[i][-1].information
    return Parallax(parameters, information, fits.mean, fits.spread)


def _description(fit: FrameFit, free: int) -> float:
    """Akaike's criterion: half the logarithm of the misfit for every independent measurement, and the parameters."""
    return 0.5 * fit.pixels / PIXELS_PER_MEASUREMENT * math.log(fit.misfit) + free


def reduced_diopters(diopters: Image, shape: tuple[int, int]) -> Image:
    """Inverse depth at a smaller size."""
    return np.asarray(cv2.resize(diopters, shape[::-1], interpolation=cv2.INTER_AREA), np.float32)


def reduced_valid(aligned: AlignedStack, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Valid pixels at a smaller size."""
    return cv2.resize(aligned.valid.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST) > 0


def _coc_px(stack: FocalStack, diopters: Image, step: int) -> Image:
    """Blur diameters (F, h, w) in pixels of the reduced images."""
    slopes = coc_slopes(stack, step)
    coc = slopes[:, None, None] * np.abs(stack.focus_diopters[:, None, None] - diopters)
    return np.asarray(np.minimum(coc, min(diopters.shape) / 4.0), np.float32)


def coc_slopes(stack: FocalStack, step: int) -> Array:
    """Pixels of blur (F,) a dioptre, in images smaller by `step`."""
    return np.asarray(thin_lens.coc_px_per_diopter(stack.focus_diopters, stack.camera) * stack.blur_scale / step)


def beside_no_jump(coc_px: Image, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Valid pixels (h, w) whose neighbourhood has one blur, of diameters (F, h, w)."""
    window = np.ones((2 * NEAR_PX + 1, 2 * NEAR_PX + 1), np.uint8)
    counts = cv2.erode(valid.astype(np.uint8), window, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    for plane in coc_px:
        counts &= cv2.dilate(plane, window) - cv2.erode(plane, window) < JUMP_PX
    return np.asarray(counts)


def _scene(
    stack: FocalStack,
    reference: int,
    diopters: Image,
    counts: NDArray[np.bool_],
    shape: tuple[int, int],
    transfer_curve: str,
) -> _Scene:
    mean, spread = float(diopters[counts].mean()), float(diopters[counts].std())
    own = light(stack.images[reference], shape, transfer_curve)
    return _Scene(stack.size, shape, own, counts, basis_of(stack.size, diopters, mean, spread), mean, spread)


def basis_of(size: tuple[int, int], diopters: Image, mean: float, spread: float) -> tuple[Image, Image]:
    """Displacement (7, h, w) by parameter, x and y, in half longer sides."""
    shape = (int(diopters.shape[0]), int(diopters.shape[1]))
    x, y = (np.broadcast_to(axis, shape) for axis in coordinates(size, shape))
    depth = (diopters - np.float32(mean)) / np.float32(spread + 1e-6)
    one, zero = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    return np.stack([one, zero, x, -y, depth, zero, depth * x]), np.stack([zero, one, y, x, zero, depth, depth * y])


class _Pair:
    """Reference and a frame, to be blurred alike."""

    def __init__(self, scene: _Scene, light: Image) -> None:
        self.scene, self._light = scene, light

    def blur(self, frame_coc_px: Image, reference_coc_px: Image) -> None:
        """Blur the reference by the disks of the frame; keep those of the reference."""
        self._coc_px = reference_coc_px
        self._fixed = detail(blurred(self.scene.light, frame_coc_px))

    def compared(self, motion: Motion) -> tuple[Image, Image]:
        """Residual, and the mean of both images, (h, w)."""
        map_x, map_y = motion.maps(self.scene.shape)
        seen = cv2.remap(self._light, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        moving = detail(blurred(np.asarray(seen, np.float32), self._coc_px))
        return moving - self._fixed, (moving + self._fixed) * np.float32(0.5)

    def fit(self, motion: Motion) -> FrameFit:
        """Fit of a motion as it is, without its information."""
        residual = self.compared(motion)[0][self.scene.counts]
        _, misfit = weighted(residual)
        return FrameFit(np.zeros(7), np.zeros((7, 7)), misfit, float(residual.size))


def blurred(image: Image, diameter_px: Image) -> Image:
    """Blur every pixel of an image (h, w) by a disk of its own diameter (h, w), linear between computed disks."""
    levels = disk_levels(float(diameter_px.min()), float(diameter_px.max()))
    out = np.zeros_like(image)
    for level in levels:
        share = np.maximum(0.0, 1.0 - np.abs(diameter_px - np.float32(level)) / np.float32(levels[1] - levels[0]))
        if share.any():
            disk = thin_lens.disk_psf(float(level), 2 * math.ceil(level / 2.0) + 1)
            out += share * cv2.filter2D(image, -1, disk, borderType=cv2.BORDER_REFLECT)
    return out


def disk_levels(low_px: float, high_px: float) -> Array:
    """Diameters of the disks computed for diameters from `low_px` to `high_px`."""
    count = int(np.clip(math.ceil((high_px - low_px) / BLUR_STEP_PX), 1, MOST_DISKS - 1)) + 1
    return np.linspace(low_px, max(high_px, low_px + 0.1), count)


def _fits(pair: _Pair, start: Motion) -> list[FrameFit]:
    """Fits of all models, in the order of MODELS: the last by Gauss-Newton, the others from its parabola."""
    shift = np.array(start.shift_px) / start.unit_px
    parameters = np.array([*shift, start.log_scale, start.rotation_rad, 0.0, 0.0, 0.0])
    whole = _gauss_newton(pair, parameters, start, MODELS[-1], ITERATIONS)
    fits = []
    for free in MODELS[:-1]:
        held = [j for j in range(7) if j not in free]
        inside = whole.information[np.ix_(free, free)]
        best = np.zeros(7)
        pull = whole.information[np.ix_(free, held)] @ whole.parameters[held]
        best[list(free)] = whole.parameters[list(free)] + np.linalg.solve(inside, pull)
        fits.append(_gauss_newton(pair, best, start, free, 1))
    return [*fits, whole]


def _gauss_newton(pair: _Pair, parameters: Array, start: Motion, free: tuple[int, ...], iterations: int) -> FrameFit:
    scene, chosen = pair.scene, list(free)
    (per_x, per_y), (basis_x, basis_y) = scene.per_unit, scene.basis
    while True:
        residual, mean = pair.compared(_motion(scene.basis, parameters, start))
        slope_x = cv2.Sobel(mean, cv2.CV_32F, 1, 0, ksize=1, scale=0.5 * per_x)[scene.counts]
        slope_y = cv2.Sobel(mean, cv2.CV_32F, 0, 1, ksize=1, scale=0.5 * per_y)[scene.counts]
        derivatives = slope_x * basis_x[:, scene.counts] + slope_y * basis_y[:, scene.counts]
        inner = residual[scene.counts]
        weight, misfit = weighted(inner)
        scaled = derivatives * (weight / np.float32(misfit * PIXELS_PER_MEASUREMENT))
        information = np.asarray(scaled @ derivatives.T, np.float64) + np.diag(1.0 / EXPECTED_WITHIN**2)
        if iterations == 0:
            return FrameFit(parameters, information, misfit, float(inner.size))
        pull = np.asarray(scaled @ inner, np.float64)[chosen]
        step = np.linalg.solve(information[np.ix_(chosen, chosen)], pull)
        parameters = parameters.copy()
        parameters[chosen] -= step
        iterations = 0 if float(np.abs(step).max()) * max(per_x, per_y) < CONVERGED_PX else iterations - 1


def _motion(basis: tuple[Image, Image], parameters: Array, start: Motion) -> Motion:
    """Motion by its parameters, with the radial and perspective terms of `start`."""
    p = [float(v) for v in parameters]
    motion = Motion.from_parameters(start.size, (p[0], p[1]), p[2], p[3], start.radial)
    motion = replace(motion, perspective=start.perspective)
    if not any(p[4:]):
        return motion
    parallax = [np.tensordot(parameters[4:], b[4:], axes=1) for b in basis]
    return replace(motion, local=np.stack(parallax, axis=-1).astype(np.float32))

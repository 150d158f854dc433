"""Range of a scene in inverse depth, from a coarse pass over everything that its blur can tell.

1. Search range: from the depth that blurs by the largest distinguishable diameter in the nearest focus to infinity, or
   the depth that blurs as much in the farthest focus. Explicit limits clip it.
2. Coarse pass: cost volume and guided filter of a reduced stack, uniform in inverse depth.
3. Range: 0.5 to 99.5 % of the reliable inverse depths, widened by 8 % + 0.03 dioptres + a coarse step on each side. The
   outermost hypotheses are guards: a minimum there is no depth.

Percentiles, margins and the least confidence are those of a prototype on photographs with depth; the step of the coarse
pass and the reduction were set on training photos and random scenes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.moving import MovingStack
from dfs_ros.config import Config
from dfs_ros.cost_volume.hypotheses import depth_hypotheses, fine_count
from dfs_ros.depth import regularization
from dfs_ros.depth.confidence import confidence_of
from dfs_ros.depth.energies import Energies, HostEnergies
from dfs_ros.depth.guide import guide_image
from dfs_ros.optics import thin_lens
from dfs_ros.optics.field import surface_ends, surface_of
from dfs_ros.types import FocalStack, reduced

Image = NDArray[np.float32]
Depths = NDArray[np.float64]

FARTHEST_M = 1000.0
"""Depth that stands for infinity in hypotheses: its blur differs from that of infinity by a thousandth of a dioptre."""

_LARGEST_BLUR = 1 / 6  # of the shorter side: over it the images hold too few blur disks
_REDUCTION = 0.25  # each way, of the coarse pass
_COARSE_SIDE_PX = 60  # least shorter side
_COARSE_STEP_PX = 0.4  # of blur, in the reduced images
_MOST_COARSE = 96
_LEAST_CONFIDENCE = 0.3
_LEAST_SHARE = 0.005  # reliable pixels
_PERCENTILES = (0.5, 99.5)
_WIDER, _WIDER_DIOPTERS = 0.08, 0.03
_STEP_PX = 1.2  # of blur, between computed hypotheses
_COARSEST_STEP_PX = 2.0
_LEAST_STEP_PX = 0.15  # of blur, between interpolated hypotheses: sigma is about a step at least
_MOST_HYPOTHESES = 512
_FEWEST = 16
# Costs of few images have a sharper dip than a spline follows. At 1.2 px depth is off by 15 % of two images, 1.9 % of
# four; at 0.6 px by 0.4 % of four (boards at 0.8 to 2 m, a lens of 12 px a dioptre).
_IMAGES_FOR_FEWER, _IMAGES_FOR_FEWEST = 4, 5
_SURROUNDINGS = 6
_NEAREST_M, _NEARER, _FAR_M = 0.31, 1.2, 10.0
_LEFT_SHARE = 0.02  # of the reliable pixels, at an end of the range
_SHRUNK = 0.5

RELIABLE = 0.4
"""Least confidence of pixels that tell the range."""


@dataclass(frozen=True)
class SceneRange:
    """Range of inverse depth in dioptres; 0 = infinity."""

    far: float
    near: float

    @property
    def width(self) -> float:
        return self.near - self.far

    def fitted(self, limits: SceneRange, least_width: float = 0.0) -> SceneRange:
        """Part within `limits`, enlarged on both sides if it is narrower than `least_width`; at most the limits."""
        far, near = (min(max(end, limits.far), limits.near) for end in (self.far, self.near))
        width = max(near - far, min(least_width, limits.width))
        far = min(max((far + near - width) / 2, limits.far), limits.near - width)
        return SceneRange(far, far + width)

    def moved(self, aperture_scale: float, stack: FocalStack) -> SceneRange:
        """Range that holds this one, found with the described aperture, after a correction by `aperture_scale`.

        Depth moves by ``D' = D_f + (D - D_f) / scale``, with D_f any focus of the sweep.
        """
        focus = np.array([stack.focus_diopters.min(), stack.focus_diopters.max()])
        far, near = (focus + (end - focus) / aperture_scale for end in (self.far, self.near))
        return SceneRange(float(far.min()), float(near.max()))


def search_range(stack: FocalStack, config: Config) -> SceneRange:
    """Range whose blur can be told apart, within the limits of the configuration.

    Blur of the nearest and the farthest focus is at most `cost.max_coc_px` and a sixth of the shorter side: greater
    blur has no texture left. Limits are depths of the scene, the range is as blur tells it, which differs over a curved
    focal surface: it holds the limits at every pixel. Raises ValueError for limits outside this range.
    """
    focus = stack.focus_diopters
    slope = px_per_diopter(stack)
    largest_px = min(config.cost.max_coc_px, _LARGEST_BLUR * min(stack.size))
    far = max(float((focus - largest_px / slope).min()), 1.0 / FARTHEST_M)
    near = float((focus + largest_px / slope).max())
    told, limits = (far, near), config.hypotheses
    lowest, highest = surface_ends(stack.camera, stack.size)
    if limits.max_depth_m > 0:
        far = max(far, 1.0 / limits.max_depth_m - highest)
    if limits.min_depth_m > 0:
        near = min(near, 1.0 / limits.min_depth_m - lowest)
    if far >= near:
        raise ValueError(
            f"hypotheses: this sweep can tell depths of {1 / told[1]:.3g} to {1 / told[0]:.3g} m; expected min_depth_m "
            f"and max_depth_m to leave some of them, received {limits.min_depth_m:g} and {limits.max_depth_m:g}"
        )
    return SceneRange(far, near)


def hypotheses_for(stack: FocalStack, config: Config) -> Depths:
    """Hypotheses over the whole search range in metres, near to far, without a look at the images."""
    return hypotheses_in(search_range(stack, config), stack, config)


def find_range(
    stack: FocalStack, limits: SceneRange, config: Config, threads: int = 0, energies: Energies | None = None
) -> SceneRange:
    """Range of the scene of an aligned stack, see the module's text; `limits` if too few pixels are reliable."""
    diopters, step = coarse_diopters(stack, limits, config, threads, energies)
    return widened(diopters, step).fitted(limits, _least_width(stack, config)) if diopters.size else limits


def coarse_diopters(
    stack: FocalStack, limits: SceneRange, config: Config, threads: int = 0, energies: Energies | None = None
) -> tuple[NDArray[np.floating], float]:
    """Inverse depths (N,) of the reliable pixels of a coarse pass, none if there are too few, and its step.

    `energies`: those of another device.
    """
    height, width = stack.size
    small = reduced(stack, 1e-6 * height * width * max(_REDUCTION, _COARSE_SIDE_PX / min(height, width)) ** 2)
    count = int(np.clip(math.ceil(blur_px(limits, small) / _COARSE_STEP_PX) + 1, 16, _MOST_COARSE))
    levels = np.linspace(limits.near, limits.far, count)
    cost = dataclasses.replace(config.cost, method="residual", channels="luma")
    energy = (energies or HostEnergies(threads)).volume(small, 1.0 / levels, cost)
    energy = regularization.aggregated(energy, guide_image(small.images), config.regularization, threads=threads)
    reliable = confidence_of(energy) > _LEAST_CONFIDENCE
    step = float(levels[0] - levels[1])
    if reliable.mean() < _LEAST_SHARE:
        return np.zeros(0), step
    return np.interp(regularization.minimum_with_offset(energy)[reliable], np.arange(len(levels)), levels), step


def widened(diopters: NDArray[np.floating], step: float) -> SceneRange:
    """Range of inverse depths without outliers, with margins; `step`: their uncertainty."""
    far, near = (float(value) for value in np.percentile(diopters, _PERCENTILES))
    margin = _WIDER * (near - far) + _WIDER_DIOPTERS + step
    return SceneRange(far - margin, near + margin)


def blur_px(found: SceneRange, stack: FocalStack) -> float:
    """Difference in blur diameter, or in place if the camera moves, between the ends of a range, in pixels."""
    parallax = stack.parallax_px_per_diopter if isinstance(stack, MovingStack) else 0.0
    return found.width * max(float(px_per_diopter(stack).max()), parallax)


def widest_blur_px(found: SceneRange, stack: FocalStack) -> float:
    """Largest blur diameter of a scene in this range, in pixels; at most a sixth of the shorter side."""
    ends = np.array([[found.far], [found.near]])
    widest = float((np.abs(ends - stack.focus_diopters) * px_per_diopter(stack)).max())
    return min(widest, _LARGEST_BLUR * min(stack.size))


def hypotheses_in(found: SceneRange, stack: FocalStack, config: Config) -> Depths:
    """Hypotheses in metres, near to far, dense enough for the blur of `stack`.

    `hypotheses.count` of them; the fewest, at least 16, that lie at most 1.2 px of blur apart (0.6 px of four images;
    all of fewer) if interpolation makes the same number of them, so that sizes of networks and graphs remain; twice as
    many if they would lie over 2 px apart.
    """
    settings, across_px = config.hypotheses, blur_px(found, stack)
    count = settings.count
    if across_px > _COARSEST_STEP_PX * (count - 1):
        count = min(2 * count - 1, _MOST_HYPOTHESES)
    elif config.cost.method == "residual" and len(stack) >= _IMAGES_FOR_FEWER:
        made = _fine_count(config)
        step_px = _STEP_PX if len(stack) >= _IMAGES_FOR_FEWEST else 0.5 * _STEP_PX
        enough = (
            fewer
            for fewer in range(_FEWEST, count)
            if across_px <= step_px * (fewer - 1) and fine_count(fewer, settings.interpolate_to) == made
        )
        count = next(enough, count)
    return depth_hypotheses(1.0 / found.near, 1.0 / found.far, count, settings.spacing)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Depths around a range of hypotheses in metres, near to far, and their share of the whole inverse depth."""

    near_m: Depths
    far_m: Depths
    share: float

    def with_inner(self, depths_m: Depths) -> Depths:
        """Depths nearer than the hypotheses, the hypotheses, depths beyond them."""
        return np.concatenate([self.near_m, depths_m, self.far_m])

    def inner(self, depths_m: Depths) -> slice:
        """Place of the hypotheses in :meth:`with_inner`."""
        return slice(len(self.near_m), len(self.near_m) + len(depths_m))


def surroundings(depths_m: Depths, stack: FocalStack) -> Surroundings:
    """Few depths around hypotheses, uniform in inverse depth over everything from 10 m to nearer than the focus.

    They tell whether the best hypothesis explains a pixel better than anything else does, however narrow the range, and
    whether a depth outside it does so better.
    """
    near, far = 1.0 / depths_m[0], 1.0 / depths_m[-1]
    nearer = max(0.0, max(1.0 / _NEAREST_M, _NEARER * float(stack.focus_diopters.max())) - near)
    farther = max(0.0, far - 1.0 / _FAR_M)
    outside = nearer + farther
    if outside < 0.02 * (near - far):
        return Surroundings(np.empty(0), np.empty(0), 0.0)
    before = round(_SURROUNDINGS * nearer / outside)
    parts = [(np.arange(count) + 0.5) / max(count, 1) for count in (before, _SURROUNDINGS - before)]
    near_m, far_m = 1.0 / (near + nearer * (1.0 - parts[0])), 1.0 / (far - farther * parts[1])
    return Surroundings(near_m, far_m, outside / (outside + near - far))


def at_ends(aggregated: NDArray[np.float32], outer: NDArray[np.float32], nearer: int) -> Image:
    """Pixels with the least energy at an end of the hypotheses or outside: float32 (H, W), 1 near, -1 far, else 0.

    `aggregated` (D, H, W) near to far; `outer` (M, H, W) of :func:`surroundings`, the first `nearer` on the near side.
    """
    if len(aggregated) < 3:
        return np.zeros(aggregated.shape[1:], np.float32)
    inner = aggregated[1:-1].min(axis=0)
    near = np.minimum(aggregated[0], outer[:nearer].min(axis=0, initial=np.inf))
    far = np.minimum(aggregated[-1], outer[nearer:].min(axis=0, initial=np.inf))
    nearest, farthest = (near < inner) & (near <= far), (far < inner) & (far < near)
    return np.asarray(nearest.astype(np.float32) - farthest.astype(np.float32))


def of_scene(by_blur: Image, ends: Image, stack: FocalStack, config: Config) -> tuple[Image, Image]:
    """Inverse depth of the scene and :func:`at_ends` (H, W), of an inverse depth as blur tells it.

    They differ by the focal surface of a calibrated lens. Depths outside the limits, or beyond infinity, count as at an
    end.
    """
    if stack.camera.field is None:
        return by_blur, ends
    limits = config.hypotheses
    near = 1.0 / limits.min_depth_m if limits.min_depth_m > 0 else np.inf
    far = 1.0 / limits.max_depth_m if limits.max_depth_m > 0 else 1.0 / FARTHEST_M
    diopters = by_blur + surface_of(stack.camera, stack.size)
    outside = (diopters > near).astype(np.float32) - (diopters < far).astype(np.float32)
    return np.maximum(diopters, np.float32(1.0 / FARTHEST_M)), np.where(ends == 0, outside, ends)


def has_left(ends: Image, confidence: Image, used: SceneRange, limits: SceneRange) -> bool:
    """True if over 2 % of the reliable pixels lie at an end of the range where the search reaches farther."""
    near, far = shares_at_ends(ends, confidence)
    return (near > _LEFT_SHARE and used.near < limits.near) or (far > _LEFT_SHARE and used.far > limits.far)


def shares_at_ends(ends: Image, confidence: Image) -> tuple[float, float]:
    """Shares of the reliable pixels at the nearest and at the farthest hypothesis."""
    reliable = ends[confidence > RELIABLE]
    return (float((reliable > 0).mean()), float((reliable < 0).mean())) if reliable.size else (0.0, 0.0)


def kept_range(
    used: SceneRange, diopters: NDArray[np.floating], stack: FocalStack, config: Config
) -> SceneRange | None:
    """Range for the next stack: that used; None if the reliable inverse depths (N,) need less than half of it."""
    if not diopters.size:
        return None
    needed = max(widened(diopters, 0.0).width, _least_width(stack, config))
    return used if needed >= _SHRUNK * used.width else None


def _least_width(stack: FocalStack, config: Config) -> float:
    return _LEAST_STEP_PX * (_fine_count(config) - 1) / float(px_per_diopter(stack).max())


def _fine_count(config: Config) -> int:
    settings = config.hypotheses
    return fine_count(settings.count, settings.interpolate_to if config.cost.method == "residual" else 0)


def px_per_diopter(stack: FocalStack) -> NDArray[np.float64]:
    """Blur diameter (F,) in pixels of every image of an aligned stack by a dioptre."""
    return thin_lens.coc_px_per_diopter(stack.focus_diopters, stack.camera) * stack.blur_scale


def rms_px_per_diopter(stack: FocalStack) -> float:
    """Root mean square of :func:`px_per_diopter` over the images."""
    return float(np.sqrt(np.mean(np.square(px_per_diopter(stack)))))

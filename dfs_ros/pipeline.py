"""READ FIRST: from a focal stack to depth, the algorithm on one page.

reduce        stack at a size that suffices, described f-number corrected       types.py
align         focus breathing, motion and exposure differences removed          alignment/
level         focal surface of a calibrated lens taken as flat, until read out  optics/field.py
aperture      effective aperture and its standard error, from the stack         calibration/aperture.py
find range    inverse depths of the scene, by a coarse pass over all            depth/scene_range.py
judge         contradictions of images and description, which leave no depth    consistency/judge.py
follow        camera that moves within the sweep: parallax counts as depth      motion/, alignment/moving.py
hypotheses    candidate depths in this range, uniform in inverse depth          depth/scene_range.py
cost volume   misfit of one sharp image, re-blurred for every focus setting     cost_volume/
              at half size, as all that follows, until                          cost_volume/halving.py
interpolate   costs of further depths in between, if hypotheses are few         cost_volume/hypotheses.py
energy        logarithm of the cost                                             cost_volume/energy.py
aggregate     guided filter along the edges of the image                        depth/regularization.py
optimize      semi-global matching, which favours smooth surfaces               depth/regularization.py
decide        probability over the hypotheses, by the network or without        network/, depth/regularization.py
read out      probability -> inverse depth and its standard deviation           depth/readout.py
enlarge       full size again                                                   cost_volume/halving.py
fill          pixels that too few frames see, from the nearest that they see    depth/unseen.py
doubt         what lens and focus scale are worth, added to sigma               depth/doubt.py
select        NaN for pixels without reliable depth              depth/confidence.py, texture.py, extrapolation.py
              or that no pose explains, as of a moving hand      consistency/unexplained.py
sharpen       all-in-focus image, deblurred at the depth found                  cost_volume/sharp.py

`steps` computes on the CPU or on a GPU: the same calls, on arrays or on tensors (estimator/). Timing, progress and
fallbacks wrap the steps (estimator/estimator.py); this page does not mention them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack, FrameAlignment
from dfs_ros.alignment.moving import MovingStack
from dfs_ros.calibration.aperture import ApertureFit
from dfs_ros.config import AlignmentConfig, Config, CostConfig, RegularizationConfig
from dfs_ros.consistency.findings import Findings, trusted
from dfs_ros.consistency.outside import outside_range
from dfs_ros.consistency.unexplained import motion_finding
from dfs_ros.depth.confidence import known_pixels
from dfs_ros.depth.doubt import LensDoubt
from dfs_ros.depth.extrapolation import beyond_px, doubtful, extrapolation_sigma, veiled
from dfs_ros.depth.scene_range import (
    RELIABLE,
    SceneRange,
    has_left,
    hypotheses_in,
    kept_range,
    of_scene,
    search_range,
    surroundings,
    widest_blur_px,
)
from dfs_ros.depth.unseen import as_nearest_seen
from dfs_ros.types import FocalStack, opened, reduced

MOVING_ROUNDS = 2
"""Corrections of motion and depth by each other, for each round of alignment, of a camera that moves."""

Image = NDArray[np.float32]
Depths = NDArray[np.float64]
Mask = NDArray[np.bool_]
Array = Any
"""An array of numpy, or a tensor on the device of the steps: float32 (D, H, W) or (H, W), or uint8 images."""
Planes = tuple[Array, ...]
"""(H, W) each, see :func:`infer`."""


class Steps(Protocol):
    """Steps of the algorithm on one device; implementations state shapes and formulas."""

    def align(
        self, stack: FocalStack, config: AlignmentConfig, reference: int | None, initial: Alignment | None
    ) -> AlignedStack: ...
    def aperture(self, aligned: AlignedStack, stack: FocalStack, depths_m: Depths, config: Config) -> ApertureFit: ...
    def judge(self, stack: FocalStack, aligned: AlignedStack, aperture: ApertureFit, config: Config) -> Findings: ...
    def find_range(self, aligned: AlignedStack, limits: SceneRange, config: Config) -> SceneRange: ...
    def follow(self, stack: FocalStack, aligned: AlignedStack, limits: SceneRange, config: Config) -> AlignedStack: ...
    def follow_closer(
        self, aligned: AlignedStack, diopters: Image, config: Config
    ) -> tuple[AlignedStack, bool, bool]: ...
    def realign(
        self, stack: FocalStack, aligned: AlignedStack, diopters: Image, config: Config
    ) -> tuple[AlignedStack, bool]: ...
    def upload(self, images: NDArray[np.uint8]) -> Array: ...
    def guide(self, images: Array) -> Array: ...
    def halve(self, guide: Array) -> Array: ...
    def cost_volume(self, aligned: AlignedStack, images: Array, depths_m: Depths, config: CostConfig) -> Array: ...
    def split(self, volume: Array, inner: slice) -> tuple[Array, Array]: ...
    def interpolate(self, cost: Array, depths_m: Depths, config: Config) -> tuple[Array, Depths]: ...
    def energy(self, cost: Array, method: str) -> Array: ...
    def aggregate(self, energy: Array, guide: Array, config: RegularizationConfig) -> Array: ...
    def optimize(self, aggregated: Array, guide: Array, config: RegularizationConfig) -> Array: ...
    def decide(self, energy: Array, smoothed: Array, guide: Array, image: Array, sharpness: float) -> Array: ...
    def read_out(self, probability: Array, smoothed: Array, depths_m: Depths) -> tuple[Array, Array, Array]: ...
    def confidence(self, aggregated: Array, outer: Array, outer_share: float) -> Array: ...
    def at_ends(self, aggregated: Array, outer: Array, nearer: int) -> Array: ...
    def least(self, aggregated: Array, outer: Array) -> Array: ...
    def enlarge_along(self, plane: Array, guide: Array) -> Array: ...
    def enlarge(self, planes: Planes, size: tuple[int, int]) -> Planes: ...
    def download(self, planes: Planes) -> tuple[Image, ...]: ...
    def gain(self, beyond: Image, least: Image, confidence: Image, stack: FocalStack, config: Config) -> Image: ...
    def texture(self, images: NDArray[np.uint8], reach_px: float) -> tuple[Mask, Mask]: ...
    def unexplained(self, least: Image, stack: FocalStack, config: CostConfig) -> Mask: ...
    def sigma(self, spread: Image, disagreement: Image, aligned: AlignedStack) -> Image: ...
    def sharpen(self, stack: FocalStack, depth_m: Image, config: CostConfig) -> NDArray[np.uint8]: ...


Alignment = tuple[FrameAlignment, ...]


@dataclass(frozen=True, eq=False)
class Estimate:
    """Depth of an aligned stack at the working size, NaN if unknown; `dense`: depth and sigma at every pixel.

    `local_sigma_diopters`: standard deviation of inverse depth at every pixel, without `doubt`, which all share.
    """

    depth_m: Image
    sigma_m: Image
    dense: tuple[Image, Image]
    local_sigma_diopters: Image
    confidence: Image
    all_in_focus: NDArray[np.uint8] | None
    aligned: AlignedStack
    aperture: ApertureFit
    findings: Findings
    doubt: LensDoubt
    depths_m: Depths
    scene_range: SceneRange | None


def estimate(
    stack: FocalStack,
    config: Config,
    steps: Steps,
    *,
    reference: int | None = None,
    initial: Alignment | None = None,
    scene_range: SceneRange | None = None,
    sharpen: bool = True,
) -> Estimate:
    """Estimate depth of `stack` in the geometry of frame `reference`.

    `reference` None: the middle of the focus order, or the nearest frame that matches the others. `initial`: alignment
    of the previous stack of this focus sequence. `scene_range`: that of the previous stack, used unless the scene has
    left it. Raises ValueError if fewer than two frames show the same scene, or no depth within the limits can be told.
    """
    working = reduced(stack, config.processing.max_megapixels)
    working = opened(working, config.lens.aperture_scale, config.lens.aberration)
    if config.motion.source in ("images", "none"):
        working = replace(working, poses=())
    as_described = steps.align(working, config.alignment, reference, initial)
    aligned = as_described.levelled()
    limits = search_range(aligned.stack, config)
    before = scene_range
    scene_range = steps.find_range(aligned, limits, config) if before is None else before.fitted(limits)
    aperture = steps.aperture(aligned, stack, hypotheses_in(scene_range, aligned.stack, config), config)
    findings = steps.judge(working, as_described, aperture, config)
    aligned = aligned.opened(aperture.scale)
    limits = search_range(aligned.stack, config)
    if before is None:
        scene_range = scene_range.moved(aperture.scale, aligned.stack).fitted(limits)
    aligned = steps.follow(working, aligned, limits, config)
    if before is None and isinstance(aligned.stack, MovingStack):
        scene_range = steps.find_range(aligned, limits, config)
    depths_m = hypotheses_in(scene_range, aligned.stack, config)
    diopters, spread, apart, confidence, ends, least = steps.download(infer(aligned, depths_m, config, steps))
    if before is not None and has_left(ends, confidence, scene_range, limits):
        scene_range = steps.find_range(aligned, limits, config)
        depths_m = hypotheses_in(scene_range, aligned.stack, config)
        diopters, spread, apart, confidence, ends, least = steps.download(infer(aligned, depths_m, config, steps))
    rounds = config.alignment.rounds * (MOVING_ROUNDS if isinstance(aligned.stack, MovingStack) else 1)
    for _ in range(rounds):
        again = True
        if isinstance(aligned.stack, MovingStack):
            aligned, moved, again = steps.follow_closer(aligned, diopters, config)
        else:
            aligned, moved = steps.realign(working, aligned, diopters, config)
        if not moved:
            break
        if isinstance(aligned.stack, MovingStack):
            scene_range = steps.find_range(aligned, search_range(aligned.stack, config), config)
            depths_m = hypotheses_in(scene_range, aligned.stack, config)
        diopters, spread, apart, confidence, ends, least = steps.download(infer(aligned, depths_m, config, steps))
        if not again:
            break
    unstated, contradiction = config.lens.focus_sigma_diopters, aperture.contradiction
    doubt = LensDoubt.of(aligned.stack, aperture.depth_sigma, unstated, contradiction)
    by_blur = diopters
    diopters, ends = of_scene(by_blur, ends, aligned.stack, config)
    local_diopters = steps.sigma(spread, apart, aligned)
    local_diopters = np.hypot(local_diopters, extrapolation_sigma(by_blur, aligned.stack))
    diopters, local_diopters = as_nearest_seen(diopters, local_diopters, aligned.valid)
    depth_m = 1.0 / diopters
    beyond = beyond_px(by_blur, aligned.stack)
    gain = steps.gain(beyond, least, confidence, aligned.stack, config)
    textured, phantoms = steps.texture(aligned.stack.images, widest_blur_px(scene_range, aligned.stack))
    moving = steps.unexplained(least, aligned.stack, config.cost)
    findings += motion_finding(moving & textured, confidence)
    sigma_m = doubt.widened(local_diopters, diopters) * depth_m * depth_m
    dense = depth_m, sigma_m
    sharp = steps.sharpen(aligned.stack, 1.0 / by_blur, config.cost) if sharpen else None
    if not config.confidence.dense:
        known = known_pixels(depth_m, local_diopters, confidence, config.confidence) & aligned.valid & (ends == 0)
        known &= ~(phantoms | moving | veiled(beyond, aligned.stack, config))
        known &= ~doubtful(by_blur, beyond, gain, confidence, aligned.stack)
        known &= trusted(findings, config.confidence)
        depth_m, sigma_m = np.where(known, depth_m, np.nan), np.where(known, sigma_m, np.nan)
    findings += outside_range(ends, beyond, gain, confidence, limits)
    kept = kept_range(scene_range, by_blur[(confidence > RELIABLE) & (ends == 0)], aligned.stack, config)
    planes = depth_m, sigma_m, dense, local_diopters, confidence
    return Estimate(*planes, sharp, aligned, aperture, findings, doubt, depths_m, kept)


def infer(aligned: AlignedStack, depths_m: Depths, config: Config, steps: Steps) -> Planes:
    """Inverse depth, standard deviation, disagreement, confidence, ends of the range and least energy.

    (H, W) each, the first three in dioptres: as blur tells them, without the focal surface.
    """
    images, settings = steps.upload(aligned.stack.images), config.regularization.at_half()
    whole = steps.guide(images)
    guide = steps.halve(whole)
    around = surroundings(depths_m, aligned.stack)
    volume = steps.cost_volume(aligned, images, around.with_inner(depths_m), config.cost)
    cost, outer = steps.split(volume, around.inner(depths_m))
    cost, depths_m = steps.interpolate(cost, depths_m, config)
    energy = steps.energy(cost, config.cost.method)
    smoothed = steps.aggregate(energy, guide, settings)
    outer = steps.aggregate(steps.energy(outer, config.cost.method), guide, settings)
    confidence = steps.confidence(smoothed, outer, around.share)
    ends = steps.at_ends(smoothed, outer, len(around.near_m))
    least = steps.least(smoothed, outer)
    smoothed = steps.optimize(smoothed, guide, settings)
    probability = steps.decide(energy, smoothed, whole, images[aligned.reference], settings.sharpness)
    diopters, spread, apart = steps.read_out(probability, smoothed, depths_m)
    diopters = steps.enlarge_along(diopters, whole)
    spread, apart, confidence, ends, least = steps.enlarge((spread, apart, confidence, ends, least), whole.shape)
    return diopters, spread, apart, confidence, ends.round(), least

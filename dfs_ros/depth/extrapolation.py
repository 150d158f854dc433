"""Depths outside the range of focus, where every image is blurred.

Wide disks leave no fine texture, and the little that still differs from image to image (noise, motion, the shape of the
pupil) fits some depth, though a wrong one. Two things tell such depths:

1. The misfit hardly falls below that of images which do not change with focus.
2. Blur reaches the pixel from beyond the border, where nothing is known of the scene.
3. Blur wider than the sweep varies by far too little: what differs from image to image tells no width.

Nearer objects before an ordinary scene also leave depths within the range of focus which explain the images worse than
unchanging ones do. And the described pupil is not quite the lens' own: the error of a blur's width grows with it.

Thresholds were set on training photos: flat at 0.12, 0.22 and 15 m, half and a fifth of the image flat at 0.22 and
0.15 m, and the scenes at their own depth; three cameras.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import Config
from dfs_ros.cost_volume.energy import log_energy
from dfs_ros.cost_volume.halving import enlarged, halved
from dfs_ros.cost_volume.spectra import linear_planes
from dfs_ros.depth.guide import guide_image
from dfs_ros.depth.regularization import aggregated
from dfs_ros.depth.scene_range import RELIABLE, px_per_diopter
from dfs_ros.types import FocalStack

Image = NDArray[np.float32]

_DOUBTFUL_PX = 3.0  # of blur beyond the range of focus: pixels of honest scenes there lose 1 %
_LEAST_GAIN = 0.5  # logarithm of the misfits' ratio: 40 %, as the least confidence
_LEAST_GAIN_FAR = 0.1
_LEAST_GAIN_WITHIN = -0.02  # 20 honest stacks lose 0.1 % of their pixels, the worst 0.4 %
_MOST_SPANS = 2.0  # sweeps, on the near side; planes at 0.22 m are right at 1.4, at 2.6 and more half as near
_LEAST_VEIL_PX, _VEIL_STEP = 4.5, 1.5  # blur in the image focused nearest to it; factor to the next one looked at
_PUPIL_SIGMA = 0.05  # of the blur's width; a textured half at 0.22 m through blades and aberration: 11 % off
_MOSTLY = 0.8  # of the reliable pixels; of real stacks up to 0.44 lie beyond the farthest focus


def beyond_px(diopters: Image, stack: FocalStack) -> Image:
    """Blur of the image focused nearest to each inverse depth (H, W), in pixels; 0 within the range of focus.

    Positive nearer than the nearest focus, negative beyond the farthest.
    """
    focus = stack.focus_diopters
    slope = px_per_diopter(stack)
    nearest, farthest = int(focus.argmax()), int(focus.argmin())
    near = np.maximum(diopters - np.float32(focus[nearest]), 0.0) * np.float32(slope[nearest])
    far = np.maximum(np.float32(focus[farthest]) - diopters, 0.0) * np.float32(slope[farthest])
    return np.asarray(near - far, np.float32)


def extrapolation_sigma(diopters: Image, stack: FocalStack) -> Image:
    """Standard deviation (H, W) of inverse depths outside the range of focus: 5 % of what lies outside, in dioptres."""
    near, far = np.float32(stack.focus_diopters.max()), np.float32(stack.focus_diopters.min())
    outside = np.maximum(diopters - near, 0.0) + np.maximum(far - diopters, 0.0)
    return np.asarray(np.float32(_PUPIL_SIGMA) * outside, np.float32)


def gain(beyond: Image, least: Image, confidence: Image, stack: FocalStack, config: Config, threads: int = 0) -> Image:
    """Logarithm (H, W) of the misfit of unchanging images over that of the best depth, of an aligned stack.

    Infinite, and not computed, for stacks that :func:`doubtful` needs none of. `beyond` as from :func:`beyond_px`,
    `least`: least aggregated energy.
    """
    needed = bool((np.abs(beyond) > _DOUBTFUL_PX).any()) or mostly_far(beyond, confidence)
    if not needed or config.cost.method != "residual":
        return np.full_like(least, np.inf)
    return unchanged_energy(stack, config, threads) - least


def veiled(beyond: Image, stack: FocalStack, config: Config) -> NDArray[np.bool_]:
    """Pixels that a surface before the range of focus veils, bool (H, W).

    Its blurred edge is transparent: half a blur disk on either side of it the images show both, and where the surface
    behind is sharp, as sharp as if nothing stood before it. Pixels whose blur is by over 3 px less than that of such a
    surface, within half of its widest disk and the reach of the windows that smooth the costs.
    """
    window_px = 2.0 * config.cost.resolved().window_sigma_px + config.regularization.guided_radius_px
    span_px = float(np.ptp(stack.focus_diopters) * px_per_diopter(stack).max())
    found, level = np.zeros(beyond.shape, np.bool_), _LEAST_VEIL_PX
    while level <= float(beyond.max()):
        distance_px = cv2.distanceTransform((beyond < level).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        found |= (distance_px <= 0.5 * (level + span_px) + window_px) & (beyond < level - _DOUBTFUL_PX)
        level *= _VEIL_STEP
    return found


def mostly_far(beyond: Image, confidence: Image) -> bool:
    """True if over 80 % of the reliable pixels lie beyond the farthest focus."""
    reliable = beyond[confidence > RELIABLE]
    return bool(reliable.size) and float((reliable < 0).mean()) > _MOSTLY


def doubtful(diopters: Image, beyond: Image, gain: Image, confidence: Image, stack: FocalStack) -> NDArray[np.bool_]:
    """Pixels outside the range of focus without evidence of their depth, bool (H, W).

    Over 3 px of blur outside: the best depth removes under 40 % of the misfit of unchanging images, or half of its
    widest disk crosses the border, or it lies two sweeps nearer than the nearest focus. Of a scene mostly beyond the
    farthest focus: it removes under 10 %; distance in metres follows from little blur there. Within the range of focus:
    unchanging images explain the pixel better.
    """
    outside = np.abs(beyond) > _DOUBTFUL_PX
    unfounded = (outside & (gain < _LEAST_GAIN)) | (gain < _LEAST_GAIN_WITHIN)
    if mostly_far(beyond, confidence):
        unfounded |= (beyond < 0) & (gain < _LEAST_GAIN_FAR)
    if not outside.any():
        return unfounded
    focus = stack.focus_diopters
    slope = px_per_diopter(stack)
    ends = [int(focus.argmin()), int(focus.argmax())]
    unfounded |= outside & (beyond > _MOST_SPANS * np.ptp(focus) * slope[ends[1]])
    widest = np.max([np.abs(diopters - np.float32(focus[i])) * np.float32(slope[i]) for i in ends], axis=0)
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in stack.size)
    border = np.minimum(rows[:, None], columns)
    return np.asarray(unfounded | outside & (border < 0.5 * widest))


def unchanged_energy(stack: FocalStack, config: Config, threads: int = 0) -> Image:
    """Aggregated energy (H, W) of the hypothesis that blur is alike in all images, of an aligned stack.

    As of the cost `residual` with a transfer of 1: the images differ from ``sum_f Y_f / (F + eps)``.
    """
    cost, count = config.cost.resolved(), len(stack)
    channels = 3 if cost.channels == "rgb" and stack.images.ndim == 4 else 1
    planes = np.stack([linear_planes(image, cost.transfer_curve, channels) for image in stack.images])
    planes -= planes.sum(axis=0) / np.float32(count + cost.eps)
    misfit = np.einsum("fchw,fchw->hw", planes, planes)
    misfit /= np.float32(count - 1 + (cost.eps / (count + cost.eps)) ** 2)
    size = 2 * int(4.0 * cost.window_sigma_px + 0.5) + 1
    misfit = np.asarray(
        cv2.GaussianBlur(misfit, (size, size), cost.window_sigma_px, borderType=cv2.BORDER_REFLECT), np.float32
    )
    energy, guide = log_energy(halved(misfit)[None], cost.method), halved(guide_image(stack.images))
    return enlarged(aggregated(energy, guide, config.regularization.at_half(), threads=threads)[0], stack.size)

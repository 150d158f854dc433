"""A camera that has not moved since an earlier stack: its alignment holds.

Each image is compared with the one of the same focus that its motion was found with. Both are blurred alike, so one
Gauss-Newton step on their details (what is left without the local mean) tells motion to a hundredth of a pixel. Where
no image has moved by a tenth of one, nor much of the scene has changed, motions stay, and gains follow the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.exposure import SAME_WITHIN
from dfs_ros.alignment.matching import SIGNIFICANT_PX, Breathing, FrameAlignment, Match
from dfs_ros.alignment.registration import Motion, coordinates, light
from dfs_ros.config import AlignmentConfig
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]
Image = NDArray[np.float32]

_LONGEST_PX = 320  # of the images compared; at least halved
_SMOOTH_PX = 17  # window of the mean that is subtracted
_OUTLIER = 3.0  # residuals of this many times the mean count half
_BLOCK_PX = 8  # of the images compared
# Of a changed block: residual energy beside the median block's, and as a share of the block's own detail.
_UNUSUAL, _UNEXPLAINED = 9.0, 0.25
_MOST_CHANGED = 0.03  # share of changed blocks
_MOST_NOISE = 0.5  # residual energy as a share of that of the detail, of the median block
_MOST_GAIN = 0.05  # logarithm of a gain that images of one scene may have


class _Change(NamedTuple):
    """Motion at the corners in pixels of the full image, gain, share of changed blocks, and of noise in the detail."""

    px: float
    gain: float
    changed: float
    noise: float

    @property
    def is_none(self) -> bool:
        """True if neither the camera moved nor much of the scene changed."""
        return self.px < SIGNIFICANT_PX and self.changed <= _MOST_CHANGED and self.noise <= _MOST_NOISE


def detail_of(image: NDArray[np.uint8], transfer_curve: str) -> Image:
    """Linear intensity (h, w) of an image, reduced, without its local mean."""
    height, width = image.shape[:2]
    step = max(2, math.ceil(max(height, width) / _LONGEST_PX))
    reduced = light(image, (max(height // step, 1), max(width // step, 1)), transfer_curve)
    return np.asarray(reduced - cv2.blur(reduced, (_SMOOTH_PX, _SMOOTH_PX), borderType=cv2.BORDER_REFLECT))


def with_details(stack: FocalStack, match: Match, transfer_curve: str) -> Match:
    """The same with the details of the images that it was found with, in one exposure."""
    estimates = tuple(
        replace(e, detail=detail_of(image, transfer_curve) * np.float32(e.gain))
        for e, image in zip(match.estimates, stack.images, strict=True)
    )
    return replace(match, estimates=estimates)


def unmoved(
    stack: FocalStack, config: AlignmentConfig, reference: int | None, initial: Sequence[FrameAlignment] | None
) -> Match | None:
    """Alignment `initial` of an earlier stack, with gains of this one, if nothing moved since; otherwise None.

    Arguments as in :func:`dfs_ros.alignment.align.align`.
    """
    own = [i for i, before in enumerate(initial or ()) if before.source == "reference"]
    if (
        initial is None
        or config.mode != "refine"
        or len(own) != 1
        or own[0] != (own[0] if reference is None else reference)
    ):
        return None
    gains = []
    for image, before in zip(stack.images, initial, strict=True):
        if before.detail is None:
            return None
        after = detail_of(image, config.transfer_curve) * np.float32(before.gain)
        change = _change(before.detail, after, stack.size)
        if (
            change is None
            or change.px >= SIGNIFICANT_PX
            or change.changed > _MOST_CHANGED
            or change.noise > _MOST_NOISE
        ):
            return None
        gains.append(change.gain)
    relative = np.asarray(gains)[own[0]] / gains
    if np.abs(np.log(relative)).max() > _MOST_GAIN:
        return None
    if not config.normalize_exposure:
        relative = np.ones(len(gains))
    relative[np.abs(relative - 1.0) <= SAME_WITHIN] = 1.0
    breathing = Breathing(stack, config)
    found = {i: e.registered or e.motion for i, e in enumerate(initial) if e.source == "images" and not e.dropped}
    if found:
        breathing.learn(own[0], found)
    estimates = tuple(
        replace(e, gain=e.gain * float(gain), known=e.source == "images" and e.registered is not None)
        for e, gain in zip(initial, relative, strict=True)
    )
    return Match(own[0], estimates, breathing)


def _change(before: Image, after: Image, size: tuple[int, int]) -> _Change | None:
    """Change of the detail of an image of `size` between two sweeps; None where it has none."""
    if after.shape != before.shape:
        return None
    shape = int(before.shape[0]), int(before.shape[1])
    x, y = coordinates(size, shape)
    mean = (before + after) * np.float32(0.5)
    unit = max(size) / 2.0
    slope_x = cv2.Sobel(mean, cv2.CV_32F, 1, 0, ksize=1, scale=0.5 * unit * shape[1] / size[1])
    slope_y = cv2.Sobel(mean, cv2.CV_32F, 0, 1, ksize=1, scale=0.5 * unit * shape[0] / size[0])
    columns = (slope_x, slope_y, slope_x * x + slope_y * y, slope_y * x - slope_x * y, before)
    derivatives = np.stack([np.asarray(c, np.float32).ravel() for c in columns])
    residual = (after - before).ravel()
    typical = float(np.abs(residual).mean()) + 1e-9
    weight = 1.0 / (1.0 + np.square(residual * np.float32(1.0 / (_OUTLIER * typical))))
    weighted = derivatives * weight
    normal = np.asarray(weighted @ derivatives.T, np.float64)
    try:
        step = np.linalg.solve(normal, np.asarray(weighted @ residual, np.float64))
    except np.linalg.LinAlgError:
        return None
    left = np.square(residual - np.float32(step) @ derivatives).reshape(shape)
    blocks = max(shape[1] // _BLOCK_PX, 1), max(shape[0] // _BLOCK_PX, 1)
    unexplained, present = (cv2.resize(a, blocks, interpolation=cv2.INTER_AREA) for a in (left, np.square(before)))
    usual = float(np.median(unexplained))
    changed = (unexplained > _UNUSUAL * usual) & (unexplained > _UNEXPLAINED * present)
    noise = usual / max(float(np.median(present)), 1e-12)
    motion = Motion.from_parameters(size, (float(step[0]), float(step[1])), float(step[2]), float(step[3]), 0.0)
    return _Change(motion.largest_displacement_px(), 1.0 + float(step[4]), float(changed.mean()), noise)

"""A camera that has not moved since an earlier stack: its alignment holds.

Each image is compared with the one of the same focus that its motion was found with. Both are blurred alike, so one
Gauss-Newton step on their details (what is left without the local mean) tells motion to a hundredth of a pixel. Where
no image has moved by a tenth of one, nor much of the scene has changed, motions stay, and gains follow the images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.exposure import SAME_WITHIN
from dfs_ros.alignment.filters import detail, light, weighted
from dfs_ros.alignment.matching import SIGNIFICANT_PX, Breathing, FrameAlignment, Match
from dfs_ros.alignment.registration import Motion, coordinates
from dfs_ros.config import AlignmentConfig
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]
Image = NDArray[np.float32]

LONGEST_PX = 320  # of the images compared; at least halved
BLOCK_PX = 8  # of the images compared
# Of a changed block: residual energy beside the median block's, and as a share of the block's own detail.
UNUSUAL, UNEXPLAINED = 9.0, 0.25
_MOST_CHANGED = 0.03  # share of changed blocks
_MOST_NOISE = 0.5  # residual energy as a share of that of the detail, of the median block
_MOST_GAIN = 0.05  # logarithm of a gain that images of one scene may have


class Change(NamedTuple):
    """Motion at the corners in pixels of the full image, gain, share of changed blocks, and of noise in the detail."""

    px: float
    gain: float
    changed: float
    noise: float

    @property
    def is_none(self) -> bool:
        """True if neither the camera moved nor much of the scene changed."""
        return self.px < SIGNIFICANT_PX and self.changed <= _MOST_CHANGED and self.noise <= _MOST_NOISE


class Still(Protocol):
    """Functions of this module, on the host or a device."""

    def details(self, images: NDArray[np.uint8], transfer_curve: str) -> Iterable[Any]: ...
    def changes(
        self, before: Sequence[Any], after: Iterable[Any], size: tuple[int, int]
    ) -> Iterable[Change | None]: ...


def reduced_shape(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of the details of images of `size`."""
    step = max(2, math.ceil(max(size) / LONGEST_PX))
    return max(size[0] // step, 1), max(size[1] // step, 1)


def details(images: NDArray[np.uint8], transfer_curve: str) -> Iterator[Image]:
    """:func:`detail_of` of the images of a stack, one by one: the first that moved ends the comparison."""
    return (detail_of(image, transfer_curve) for image in images)


def detail_of(image: NDArray[np.uint8], transfer_curve: str) -> Image:
    """Linear intensity (h, w) of an image, reduced, without its local mean."""
    return detail(light(image, reduced_shape(image.shape[:2]), transfer_curve))


def with_details(stack: FocalStack, match: Match, transfer_curve: str, still: Still) -> Match:
    """The same with the details of the images that it was found with, in one exposure."""
    found = still.details(stack.images, transfer_curve)
    estimates = tuple(replace(e, detail=d * np.float32(e.gain)) for e, d in zip(match.estimates, found, strict=True))
    return replace(match, estimates=estimates)


def unmoved(
    stack: FocalStack,
    config: AlignmentConfig,
    reference: int | None,
    initial: Sequence[FrameAlignment] | None,
    still: Still,
) -> Match | None:
    """Alignment `initial` of an earlier stack, with gains of this one, if nothing moved since; otherwise None.

    Arguments as in :func:`dfs_ros.alignment.align.align`.
    """
    own = [i for i, before in enumerate(initial or ()) if before.source == "reference"]
    if (
        initial is None
        or config.mode != "refine"
        or len(own) != 1
        or reference not in (None, own[0])
        or any(before.detail is None for before in initial)
    ):
        return None
    found_details = still.details(stack.images, config.transfer_curve)
    after = (found * np.float32(before.gain) for found, before in zip(found_details, initial, strict=True))
    gains = []
    for change in still.changes([before.detail for before in initial], after, stack.size):
        if change is None or not change.is_none:
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


def changes(before: Sequence[Any], after: Iterable[Image], size: tuple[int, int]) -> Iterator[Change | None]:
    """Change of the detail of every image of `size` between two sweeps; None where it has none."""
    return (_change(b, a, size) if isinstance(b, np.ndarray) else None for b, a in zip(before, after, strict=True))


def _change(before: Image, after: Image, size: tuple[int, int]) -> Change | None:
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
    scaled = derivatives * weighted(residual)[0]
    normal = np.asarray(scaled @ derivatives.T, np.float64)
    try:
        step = np.linalg.solve(normal, np.asarray(scaled @ residual, np.float64))
    except np.linalg.LinAlgError:
        return None
    left = np.square(residual - np.float32(step) @ derivatives).reshape(shape)
    blocks = max(shape[1] // BLOCK_PX, 1), max(shape[0] // BLOCK_PX, 1)
    unexplained, present = (cv2.resize(a, blocks, interpolation=cv2.INTER_AREA) for a in (left, np.square(before)))
    usual = float(np.median(unexplained))
    changed = (unexplained > UNUSUAL * usual) & (unexplained > UNEXPLAINED * present)
    noise = usual / max(float(np.median(present)), 1e-12)
    motion = Motion.from_parameters(size, (float(step[0]), float(step[1])), float(step[2]), float(step[3]), 0.0)
    return Change(motion.largest_displacement_px(), 1.0 + float(step[4]), float(changed.mean()), noise)

"""Response of a lens to steps of its position, from images with stamps: latency and settling time.

The place of an image between the settled ones before and after a step is its share of the step: 0 as before, 1 as
after, the projection of its difference on theirs. Steps that hardly change the image tell nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_REDUCED = 4  # each way: averages the noise
_LEAST_CHANGE = 1.0  # grey level rms
_STARTED, _REST = 0.1, 0.1  # shares of a step
_LEAST_STEPS = 4
_OUTLIERS = 0.02  # share of the images that may deviate: something moved in the scene


class StepImage(NamedTuple):
    """Image of a step: start of its exposure after the command or the report, in seconds, and its share."""

    step: int
    since_s: float
    share: float


class Response(NamedTuple):
    """Time in seconds until the lens starts to move, and until it rests; number of steps, and their images."""

    latency_s: float
    settle_s: float
    steps: int
    images: tuple[StepImage, ...] = ()


def step_shares(before: NDArray[np.uint8], images: Sequence[NDArray[np.uint8]]) -> list[float]:
    """Shares of grey images (H, W) after a step, the last of which is settled; none if it tells nothing.

    `before`: settled image at the earlier position.
    """
    start = _reduced(before)
    change = _reduced(images[-1]) - start
    power = float((change**2).mean())
    if power < _LEAST_CHANGE**2:
        return []
    return [float(((_reduced(image) - start) * change).mean() / power) for image in images]


def response_of(images: Sequence[StepImage]) -> Response | None:
    """Response of a lens; None for too few steps that tell it.

    Raises ValueError if the lens still moves at the end of many steps.
    """
    steps = len({image.step for image in images})
    if steps < _LEAST_STEPS:
        return None
    since, share = np.array([(image.since_s, image.share) for image in images]).T
    ends = np.array([max(i.since_s for i in images if i.step == step) for step in {i.step for i in images}])
    spare = int(_OUTLIERS * len(since))
    moved = np.sort(since[share > _STARTED])
    unsettled = np.sort(since[np.abs(share - 1.0) > _REST])
    last = float(unsettled[max(len(unsettled) - 1 - spare, 0)]) if len(unsettled) else 0.0
    later = since[since > last]
    first = float(moved[min(spare, len(moved) - 1)])
    still = since[(share <= _STARTED) & (since < first)]
    settle = float(later.min()) if len(later) else last
    if last > 0.9 * float(np.median(ends)):
        raise ValueError(
            f"the lens still moves {last:.2f} s after a command: let it settle for longer (--set v4l2.settle_s=, or a "
            "slower sweep)"
        )
    latency = float(still.max()) if len(still) else 0.0
    return Response(max(latency, 0.0), max(settle, 0.0), steps, tuple(images))


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    size = max(image.shape[1] // _REDUCED, 1), max(image.shape[0] // _REDUCED, 1)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    centred: NDArray[np.float32] = small - small.mean()
    return centred

"""Compare the focus as described with other stories of it: reversed, swapped, late, in metres, of a lens that stands.

Every story is a list of focus values for the same images. Its advantage is how much lower the logarithm of its misfit
is than that of the description, each at the blur factor and the depths that suit it best, as the mean over tiles.
Thresholds were chosen on scenes of rgbd_train and procedural ones, rendered as a camera in use sees them, and hold on
the real stacks; see docs/consistency.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_ros.consistency.evidence import Evidence

Array = NDArray[np.float64]

LOG_FACTORS = 0.2 * np.arange(-6, 7)
"""Logarithms of the blur factors tried: 0.30 to 3.3."""
PLAUSIBLE_FACTORS = (0.6, 1.45)
"""Blur factors that lenses have; f-number, focal length and pixel size are nominal values."""
_PLACES = 13  # that one image is tried at
_MOST_SWAPPED = 8  # images up to which all swaps of two are tried


@dataclass(frozen=True, eq=False)
class Story:
    """Another description of the focus.

    `focus_diopters` (F,); `image` the one image that it is about, or None; `advantage` over the description.
    """

    cause: str
    focus_diopters: Array
    images: tuple[int, ...] = ()
    advantage: float = -math.inf


@dataclass(frozen=True, eq=False)
class Comparison:
    """The description and its rivals.

    Parameters
    ----------
    factor
        Blur factor at which the description explains the images best, and `factor_advantage` over a factor of 1.
    change
        How much better the description at its best explains the images than no change of blur does.
    stories
        Rivals, the best first.
    moved
        The best place for a single image, as a story.
    reversal
        Advantage of the reversed list.
    tiles
        Number of tiles that it comes from.
    """

    factor: float
    factor_advantage: float
    change: float
    stories: tuple[Story, ...]
    moved: Story
    reversal: float
    tiles: int


def compare(evidence: Evidence, taken_order: NDArray[np.intp]) -> Comparison:
    """Try all stories on the evidence. `taken_order` (F,): indices of the images in the order they were taken."""
    focus = evidence.stack.focus_diopters
    misfits = [float(evidence.least(focus, math.exp(x)).mean()) for x in LOG_FACTORS]
    best = _least_at(misfits)
    # Two faults at once are less likely than one: stories are told of a lens that is about as described.
    plausible = min(max(best, PLAUSIBLE_FACTORS[0]), PLAUSIBLE_FACTORS[1])
    factors = sorted({1.0, plausible})
    told = min(float(evidence.least(focus, best).mean()), *misfits)

    def advantage(values: Array) -> float:
        return told - min(float(evidence.least(values, factor).mean()) for factor in factors)

    moved = _moved(evidence, told, plausible)
    stories = [
        Story(story.cause, story.focus_diopters, story.images, advantage(story.focus_diopters))
        for story in _orders(focus, taken_order, moved)
    ]
    inverse = _inverse(focus, evidence.stack.camera.focal_length_m)
    if inverse is not None:
        least = min(float(evidence.least(inverse, math.exp(x)).mean()) for x in LOG_FACTORS)
        stories.append(Story("metres", inverse, (), told - least))
    reversal = next((story.advantage for story in stories if story.cause == "reversed"), -math.inf)
    return Comparison(
        factor=best,
        factor_advantage=misfits[len(misfits) // 2] - told,
        change=float(evidence.unchanged().mean()) - told,
        stories=tuple(sorted(stories, key=lambda story: -story.advantage)),
        moved=moved[0],
        reversal=reversal,
        tiles=evidence.energies.shape[3],
    )


def _least_at(misfits: list[float]) -> float:
    """Factor of least misfit, of a parabola through the lowest and its neighbours."""
    i = int(np.argmin(misfits))
    if i in (0, len(misfits) - 1):
        return math.exp(LOG_FACTORS[i])
    low, mid, high = misfits[i - 1 : i + 2]
    offset = 0.5 * (low - high) / (low - 2.0 * mid + high)
    return math.exp(LOG_FACTORS[i] + offset * (LOG_FACTORS[1] - LOG_FACTORS[0]))


def _orders(focus: Array, taken: NDArray[np.intp], moved: list[Story]) -> Iterator[Story]:
    """The told values in other orders."""
    count, order = len(focus), np.argsort(focus, kind="stable")
    reverse = np.empty(count)
    reverse[order] = focus[order[::-1]]
    yield Story("reversed", reverse)
    in_time, last = focus[taken], count - 1
    for cause, source in (
        ("late", np.maximum(np.arange(count) - 1, 0)),
        ("early", np.minimum(np.arange(count) + 1, last)),
        ("shifted", np.roll(np.arange(count), 1)),
        ("shifted", np.roll(np.arange(count), -1)),
    ):
        values = np.empty(count)
        values[taken] = in_time[source]
        if np.ptp(values) > 0 and count > 2:
            yield Story(cause, values)
    for i, j in _swaps(focus, moved):
        values = focus.copy()
        values[[i, j]] = values[[j, i]]
        if count > 2 and focus[i] != focus[j]:
            yield Story("swapped", values, (i, j))


def _swaps(focus: Array, moved: list[Story]) -> Iterator[tuple[int, int]]:
    """Pairs of images: all of few; of many, those that move most with those whose focus they move to."""
    count = len(focus)
    if count <= _MOST_SWAPPED:
        yield from itertools.combinations(range(count), 2)
        return
    for story in moved[:_MOST_SWAPPED]:
        (i,) = story.images
        j = min((j for j in range(count) if j != i), key=lambda j: abs(focus[j] - story.focus_diopters[i]))
        yield min(i, j), max(i, j)


def _inverse(focus: Array, focal_length_m: float) -> Array | None:
    """Metres that were told as dioptres, as dioptres; None where no lens could focus there."""
    if (focus <= 0).any():
        return None
    values = np.asarray(1.0 / focus)
    return values if (values * focal_length_m < 0.5).all() and np.ptp(values) > 1e-6 else None


def _moved(evidence: Evidence, told: float, factor: float) -> list[Story]:
    """For every image the place at which it, moved there alone, lowers the misfit most; the best image first."""
    focus = evidence.stack.focus_diopters
    step = float(np.ptp(focus)) / (len(focus) - 1)
    places = np.linspace(max(float(focus.min()) - step, 0.0), float(focus.max()) + step, _PLACES)
    misfit = evidence.least_with_one_at(places, focus, factor)
    stories = []
    for i, p in enumerate(misfit.argmin(axis=1)):
        values = focus.copy()
        values[i] = places[p]
        stories.append(Story("moved", values, (i,), told - float(misfit[i, p])))
    return sorted(stories, key=lambda story: -story.advantage)

"""Decide from the comparison of stories whether focus and lens of a stack are as described, and say what is not.

Advantages are differences of the logarithm of the misfit. The thresholds lie between honest stacks and faulty ones of
docs/consistency.md, rendered of scenes that nothing is scored on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.aperture import ApertureFit
from dfs_ros.consistency.breathing import Breathing
from dfs_ros.consistency.findings import Finding
from dfs_ros.consistency.stories import PLAUSIBLE_FACTORS, Comparison, Story

Array = NDArray[np.float64]

STORY = 0.03
"""Advantage from which another order of the focus is a finding."""
MOVED = ((0.05, 0.7, 1.7), (0.15, 0.4, math.inf))
"""Advantages, and distances in mean steps of focus, least and most, from which the focus of one image is.

One image farther away needs more: its mirror image about the depth of a flat scene has nearly the same blur.
"""
REVERSED = 0.15
"""The same of a reversed list, or one in metres, whose order is reversed: most lists are nearly the same either way."""
PERHAPS_REVERSED = -0.05
"""Advantage from which a reversed list is believed where breathing says so."""
CHANGE = 0.05
"""Advantage of the description over no change of blur, up to which nothing changes."""
FACTOR_ADVANTAGE = 0.1
"""Advantage over the factor 1 from which a blur factor is believed."""

LEAST_FOCUSES = 3
"""Two images have a depth for every order of their focus and every factor, but for the shape of the blur."""
LEAST_TILES = 12
"""Few tiles of a small image, in which blur reaches from border to border, fit other orders by chance."""
_ORDERS = ("late", "early", "shifted", "swapped")

_TEXTS = {
    "late": (
        "every image shows the focus of the image taken before it, or the first two images are of one focus: check the "
        "latency of lens and driver (schedule.settle_s)"
    ),
    "early": (
        "every image shows the focus of the image taken after it, or the last two images are of one focus: check how "
        "the driver stamps focus"
    ),
    "shifted": "the focus values are shifted cyclically by one image: check where the sweep begins",
    "reversed": "the focus values in reverse order explain the images better: reverse the list",
    "metres": "the focus values explain the images as metres rather than dioptres: convert them, dioptres = 1 / metres",
}


def focus_finding(
    focus: Array, sweep_px: float, comparison: Comparison, breathing: Breathing | None, kept: Sequence[int]
) -> Finding | None:
    """The finding about focus values (F,) of the images `kept` of a stack; None where they explain the images best."""
    rival = _rival(focus, comparison)
    advantage = rival.advantage if rival is not None else 0.0
    if comparison.change < CHANGE and advantage < CHANGE - comparison.change:
        return Finding(
            "still",
            f"blur does not change from image to image, though focus from {focus.min():.3g} to {focus.max():.3g} "
            f"dioptres must change it by up to {sweep_px:.1f} px: check that the lens follows its commands, and that "
            "the scene has fine detail",
        )
    likely = comparison.reversal > PERHAPS_REVERSED and (rival is None or comparison.reversal >= advantage - STORY)
    if breathing is not None and breathing.reversed and likely:
        return Finding("reversed", f"{_TEXTS['reversed']} ({breathing.text})")
    return None if rival is None else _finding(rival, focus, kept)


def factor_finding(focus: Array, comparison: Comparison, aperture: ApertureFit) -> Finding | None:
    """The finding about the blur factor; None where it is one that lenses have, or nothing tells it."""
    low, high = PLAUSIBLE_FACTORS
    if len(np.unique(focus)) < LEAST_FOCUSES:
        return None
    if low <= comparison.factor <= high or comparison.factor_advantage < FACTOR_ADVANTAGE:
        return None
    factor = aperture.measured if aperture.share and not aperture.at_limit else comparison.factor
    return aperture_finding(f"about {factor:.2f}", factor)


def aperture_finding(measured: str, scale: float) -> Finding:
    """The finding that blur is `measured` times as wide as described.

    A contradiction: a focus in wrong units blurs as a wrong lens does, but scales all depths.
    """
    low, high = PLAUSIBLE_FACTORS
    return Finding(
        "aperture",
        f"blur is {measured} times as wide as described, expected {low:g} to {high:g} times: check f-number, focal "
        "length, pixel size and the unit of the focus; only where the focus is right, set "
        f"lens.aperture_scale ({scale:.3g}; dfs calibrate measures it)",
    )


def _rival(focus: Array, comparison: Comparison) -> Story | None:
    """The best story that is clearly better than the description."""
    if len(np.unique(focus)) < LEAST_FOCUSES or comparison.tiles < LEAST_TILES:
        return None
    rivals = [s for s in comparison.stories if s.advantage > (STORY if s.cause in _ORDERS else REVERSED)]
    moved, step = comparison.moved, float(np.ptp(focus)) / (len(focus) - 1)
    distance = float(np.abs(moved.focus_diopters - focus).max()) / step
    if any(moved.advantage > advantage and least < distance < most for advantage, least, most in MOVED):
        rivals.append(moved)
    # One image that is moved freely fits a little better than a fault of the whole list that explains as much.
    return max(rivals, key=lambda s: s.advantage - (STORY if s.cause == "moved" else 0.0), default=None)


def _finding(story: Story, focus: Array, kept: Sequence[int]) -> Finding:
    better = f"{1.0 - math.exp(-story.advantage):.0%} less misfit"
    images = [kept[i] for i in story.images]
    if story.cause == "swapped":
        (i, j), (a, b) = images, focus[list(story.images)]
        text = f"images {i} and {j} show each other's focus ({a:.3g} and {b:.3g} dioptres): swap the two values"
        return Finding("swapped", f"{text} ({better})")
    if story.cause == "moved":
        (i,), told, seen = images, focus[story.images[0]], story.focus_diopters[story.images[0]]
        text = (
            f"image {i} is blurred as at {seen:.3g} dioptres, expected {told:.3g}: correct its focus, or leave it out"
        )
        return Finding("moved", f"{text} ({better})", image=i)
    return Finding(story.cause, f"{_TEXTS[story.cause]} ({better})")

"""Focus of images by the raw lens positions at which they were taken, in the order of time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.lens.table import LensTable


class PositionFocus(NamedTuple):
    """Focus of an image in dioptres and its standard deviation, NaN if unknown; image scale, NaN = by the lens."""

    diopters: float
    sigma_diopters: float
    magnification: float


def travel_directions(raws: Sequence[float]) -> list[int]:
    """Direction from which each position was reached, in the order of time: 1 up, -1 down, 0 unknown.

    >>> travel_directions([10, 20, 20, 5])
    [0, 1, 1, -1]
    """
    directions = [0]
    for before, raw in itertools.pairwise(raws):
        directions.append((raw > before) - (raw < before) or directions[-1])
    return directions


def focus_at(
    lens: LensTable | LensCalibration, raws: Sequence[float], stamps_ns: Sequence[int], own_camera: bool = True
) -> list[PositionFocus]:
    """Focus of images at raw positions, in the order of their stamps if all have one.

    `own_camera`: the stack's camera is that of a calibration, and has its focal surface.
    """
    order = sorted(range(len(raws)), key=lambda i: stamps_ns[i] if all(stamps_ns) else i)
    directions = dict(zip(order, travel_directions([raws[i] for i in order]), strict=True))
    focus_of = lens.mean_focus_of if own_camera and isinstance(lens, LensCalibration) else lens.focus_of
    found = []
    for i, raw in enumerate(raws):
        scale = lens.magnification_of(raw, directions[i]) if isinstance(lens, LensCalibration) else math.nan
        focus, sigma = focus_of(raw, directions[i])
        found.append(PositionFocus(round(focus, 6), round(sigma, 6), round(scale, 7)))
    return found

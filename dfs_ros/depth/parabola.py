"""Vertex of the parabola through three points, for minima between samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def vertex(
    low: Any, mid: Any, high: Any, before: Any = 1.0, after: Any = 1.0, where: Callable[..., Any] = np.where
) -> tuple[Any, Any]:
    """Minimum and second derivative of parabolas through three values.

    ``offset = ((low - mid) after^2 - (high - mid) before^2) / (2 ((low - mid) after + (high - mid) before))`` from the
    place of `mid`, 0 where the parabola has no minimum; not limited to -before ... after.

    Parameters
    ----------
    low, mid, high
        Values at `-before`, 0 and `after`: arrays of one shape, or numbers.
    before, after
        Positive distances of the outer values from `mid`.
    where
        `np.where`, or `torch.where` for tensors.

    >>> offset, curvature = vertex(4.0, 1.0, 0.0, before=1.0, after=1.0)
    >>> float(offset), float(curvature)
    (1.0, 2.0)
    """
    left, right = low - mid, high - mid
    rise = left * after + right * before
    curved = rise > 0.0
    offset = where(curved, 0.5 * (left * after**2 - right * before**2) / where(curved, rise, 1.0), 0.0)
    return offset, 2.0 * rise / (before * after * (before + after))

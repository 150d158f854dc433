"""Slope of a series, with its upper bound."""

from __future__ import annotations

import math

import numpy as np


def slope_with_bound(values: list[float]) -> tuple[float, float]:
    """Slope of values over their index, and its upper 95 % bound (normal errors); NaN of fewer than four.

    >>> slope_with_bound([1.0, 3.0, 5.0, 7.0])
    (2.0, 2.0)
    """
    if len(values) < 4:
        return math.nan, math.nan
    at = np.arange(len(values)) - (len(values) - 1) / 2
    y = np.asarray(values) - np.mean(values)
    spread = float(at @ at)
    slope = float(at @ y) / spread
    error = math.sqrt(max(float(((y - slope * at) ** 2).sum()), 0.0) / (len(values) - 2) / spread)
    return round(slope, 9), round(slope + 1.65 * error, 9)

"""Slope of a series, with its bound."""

from __future__ import annotations

import math

import numpy as np


def slope_and_error(values: list[float]) -> tuple[float, float]:
    """Slope of values over their index by least squares, and what lies between it and its one-sided 95 % bound.

    The errors are taken as normal and of one size: the bound is Student's. NaN of fewer than four values.

    >>> slope_and_error([1.0, 3.0, 5.0, 7.0])
    (2.0, 0.0)
    """
    from scipy.stats import t

    if len(values) < 4:
        return math.nan, math.nan
    at = np.arange(len(values)) - (len(values) - 1) / 2
    y = np.asarray(values) - np.mean(values)
    spread = float(at @ at)
    slope = float(at @ y) / spread
    freedom = len(values) - 2
    error = math.sqrt(max(float(((y - slope * at) ** 2).sum()), 0.0) / freedom / spread)
    return round(slope, 9), round(float(t.ppf(0.95, freedom)) * error, 9)


def slope_with_bound(values: list[float]) -> tuple[float, float]:
    """Slope of values over their index, and its upper 95 % bound.

    >>> slope_with_bound([1.0, 3.0, 5.0, 7.0])
    (2.0, 2.0)
    """
    slope, error = slope_and_error(values)
    return slope, slope + error

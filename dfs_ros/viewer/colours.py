"""Colours of what a page shows: depth, sigma or confidence, each with its bar."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_ros.io.images import png_bytes
from dfs_ros.io.pictures import (
    colorize_confidence,
    colorize_depth,
    colorize_sigma,
    depth_range,
    log_ticks,
    metre_ticks,
    sigma_range,
)
from dfs_ros.viewer import html
from dfs_ros.viewer.data import DepthData

DEPTH, SIGMA, CONFIDENCE = "Depth", "Sigma", "Confidence"
RANGE_WITHOUT_DEPTH_M = (0.3, 10.0)
_STOPS = np.linspace(0.0, 1.0, 33)
_TICK_GAP_PX = 34.0

Range = tuple[float, float]
Picture = NDArray[np.uint8]


@dataclass
class Colours:
    """Ranges of the colours of one page, which follow the scene slowly."""

    depth_m: Range = RANGE_WITHOUT_DEPTH_M
    sigma_m: Range | None = None
    _followed: bool = False

    def follow(self, depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32] | None, fixed: Range | None) -> None:
        """Adapt to an image (H, W); `fixed`: range of the depth colours, None = of the scene."""
        every = 1 + depth_m.shape[0] // 300, 1 + depth_m.shape[1] // 300
        if fixed is not None:
            near, far = sorted(fixed)
            self.depth_m = near, max(far, 1.01 * near)
        else:
            wanted = depth_range(depth_m[:: every[0], :: every[1]])
            self.depth_m = _toward(self.depth_m, wanted) if self._followed else wanted
            self._followed = True
        if sigma_m is not None:
            wanted = sigma_range(sigma_m[:: every[0], :: every[1]])
            self.sigma_m = wanted if self.sigma_m is None else _toward(self.sigma_m, wanted)

    def picture(self, shown: str, depth_m: NDArray[np.float32], data: DepthData) -> Picture:
        """Colours (H, W, 3) of `shown`, of the pixels of `depth_m`; hatched where unknown, or not received at all."""
        unknown = np.full(depth_m.shape, np.nan, np.float32)
        if shown == CONFIDENCE:
            return colorize_confidence(unknown if data.confidence is None else data.confidence)
        if shown == SIGMA and self.sigma_m is not None:
            sigma_m = unknown if data.sigma_m is None else np.where(np.isnan(depth_m), np.float32(np.nan), data.sigma_m)
            return colorize_sigma(sigma_m, *self.sigma_m)
        return colorize_depth(unknown if shown == SIGMA else depth_m, *self.depth_m)

    def of_depth(self, depth_m: NDArray[np.float64]) -> Picture:
        """Colours (N, 3) of depths (N,) in metres."""
        return np.asarray(colorize_depth(np.asarray(depth_m, np.float32)[None], *self.depth_m)[0], np.uint8)

    def bar(self, shown: str) -> str:
        """Bar of the colours of `shown`, with its unit."""
        if shown == CONFIDENCE:
            shades = colorize_confidence(_STOPS[None].astype(np.float32))[0]
            return html.color_bar(shades, [(at, f"{at:g}") for at in (0.0, 0.25, 0.5, 0.75, 1.0)], "", _NO_DEPTH)
        if shown == SIGMA and self.sigma_m is not None:
            low, high = self.sigma_m
            span = math.log(high / low)
            shades = colorize_sigma((low * np.exp(_STOPS * span))[None].astype(np.float32), low, high)[0]
            ticks = [
                (math.log(at / low) / span, _millimetres(at)) for at in log_ticks(low, high, html.BAR_PX, _TICK_GAP_PX)
            ]
            return html.color_bar(shades, ticks, "mm", _NO_DEPTH)
        near, far = self.depth_m
        span = 1.0 / near - 1.0 / far
        shades = self.of_depth(1.0 / (1.0 / near - _STOPS * span))
        metres = metre_ticks(near, far, html.BAR_PX, _TICK_GAP_PX)
        return html.color_bar(shades, [((1.0 / near - 1.0 / at) / span, f"{at:.3g}") for at in metres], "m", _NO_DEPTH)


def _millimetres(metres: float) -> str:
    return f"{1e3 * metres:.0f}" if metres >= 0.01 else f"{1e3 * metres:.2g}"


def _toward(now: Range, target: Range) -> Range:
    """Step towards a target, evenly in its inverse; differences under 3 % are ignored."""
    low, high = (
        one if abs(other / one - 1.0) < 0.03 else 1.0 / (0.75 / one + 0.25 / other)
        for one, other in zip(now, target, strict=True)
    )
    return low, high


_NO_DEPTH = png_bytes(colorize_depth(np.full((24, 108), np.nan, np.float32), 1.0, 2.0))

"""Pictures for people: depth and its sigma in colour, with a scale.

Colours of depth are uniform in inverse depth, as depth is measured: near is red, far is blue. Those of sigma are
uniform in its logarithm, those of confidence in itself: small is dark, large is bright. Pixels without depth are
hatched in grey, a colour of no depth. All functions take and return uint8 RGB arrays; the live viewer uses them, too.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

_LEVELS = 254  # of the colour map; indices 254 and 255 are the stripes of "no depth"
# Least width of a range of depth colours in standard deviations: noise, 99 % of it within five, spans a quarter.
_LEAST_SIGMAS = 20
_RANGE_WITHOUT_DEPTH_M = (0.3, 10.0)
_BACKGROUND = (255, 255, 255)
_INK = (32, 36, 42)


def colorize_depth(depth_m: NDArray[np.float32], min_m: float, max_m: float) -> Picture:
    """Colour a depth image, fast enough for live use.

    Parameters
    ----------
    depth_m
        (H, W) metres; NaN, infinite or not over 0 = no depth, drawn hatched.
    min_m, max_m
        Depth of the nearest (red) and farthest (blue) colour; depths beyond take the colour of that end.

    Returns
    -------
    uint8 (H, W, 3) RGB.
    """
    if not (math.isfinite(min_m) and math.isfinite(max_m) and 0 < min_m < max_m):
        raise ValueError(f"depth range: expected 0 < min_m < max_m, received {min_m} to {max_m} m")
    depth = np.asarray(depth_m, np.float32)
    if depth.ndim != 2 or depth.size == 0:
        raise ValueError(f"depth_m: expected shape (H, W), received {depth.shape}")
    usable = (depth > 0) & (depth < np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        share: NDArray[Any] = (1 / depth - np.float32(1 / max_m)) * np.float32(1 / (1 / min_m - 1 / max_m))
    return _coloured(share, usable, _colour_table())


def depth_range(depth_m: NDArray[np.float32], sigma_m: NDArray[np.float32] | None = None) -> tuple[float, float]:
    """Range (min, max) of depth colours in metres: 1st and 99th percentile.

    It is widened to at least a factor of 1.05, and, about its middle in dioptres, to 20 times the median `sigma_m` (of
    the same shape): noise shall not look like relief. Without any depth it is 0.3 to 10 m.
    """
    depth = np.asarray(depth_m)
    known = np.isfinite(depth) & (depth > 0)
    values = depth[known]
    if values.size == 0:
        return _RANGE_WITHOUT_DEPTH_M
    low, high = (float(v) for v in np.percentile(values, [1, 99]))
    if high < 1.05 * low:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(1.05), middle * math.sqrt(1.05)
    spread = np.empty(0) if sigma_m is None else np.asarray(sigma_m)[known] / values**2
    spread = spread[np.isfinite(spread)]
    least = _LEAST_SIGMAS * float(np.median(spread)) if spread.size else 0.0
    near, far = 1 / low, 1 / high
    if near - far >= least:
        return low, high
    middle = (near + far) / 2
    far = max(middle - least / 2, middle / 10)  # nothing lies beyond infinity
    return 1 / (far + least), 1 / far


def colorize_sigma(sigma_m: NDArray[np.float32], min_m: float, max_m: float) -> Picture:
    """Colour standard deviations (H, W) in metres by their logarithm; NaN, infinite or not over 0 is drawn hatched."""
    sigma = np.asarray(sigma_m, np.float32)
    usable = np.isfinite(sigma) & (sigma > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.log(sigma) - np.float32(math.log(min_m))) / np.float32(math.log(max_m / min_m))
    return _coloured(share, usable, _sigma_table())


def colorize_confidence(confidence: NDArray[np.float32]) -> Picture:
    """Colour confidence (H, W) from 0, dark, to 1, bright; NaN is drawn hatched."""
    share = np.array(confidence, np.float32)  # a copy, which the colouring changes
    return _coloured(share, np.isfinite(share), _confidence_table())


def sigma_range(sigma_m: NDArray[np.float32]) -> tuple[float, float]:
    """Range (min, max) of sigma colours in metres: 1st and 99th percentile, widened to at least a factor of 2."""
    values = sigma_m[np.isfinite(sigma_m) & (sigma_m > 0)]
    low, high = (float(v) for v in np.percentile(values, [1, 99])) if values.size else (0.001, 1.0)
    if high < 2 * low:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(2), middle * math.sqrt(2)
    return low, high


def depth_picture(
    depth_m: NDArray[np.float32],
    title: str = "",
    min_m: float | None = None,
    max_m: float | None = None,
    sigma_m: NDArray[np.float32] | None = None,
) -> Picture:
    """Depth image in colour with title, colour bar and share of unknown pixels.

    `depth_m` (H, W) metres, NaN = unknown; the default range is that of :func:`depth_range`, with `sigma_m`. Small
    images are enlarged by whole pixels to keep the scale legible. Returns uint8 RGB, larger than the depth image.
    """
    auto_min, auto_max = depth_range(depth_m, sigma_m)
    low, high = min_m if min_m is not None else auto_min, max_m if max_m is not None else auto_max
    if low >= high and (min_m is None) != (max_m is None):  # the given end lies beyond all depths
        low, high = (high / 1.05, high) if min_m is None else (low, low * 1.05)
    image = colorize_depth(_enlarged(np.asarray(depth_m)), low, high)
    height = image.shape[0]
    inverse = np.linspace(1 / high, 1 / low, height, dtype=np.float32)
    strip = colorize_depth((1 / inverse[:, None]).astype(np.float32), low, high)
    ticks = [
        ((1 / tick - 1 / high) / (1 / low - 1 / high), f"{tick:.3g} m")
        for tick in metre_ticks(low, high, height, 2 * _em(height))
    ]
    known = np.isfinite(depth_m) & (np.asarray(depth_m) > 0)
    return _framed(image, strip, ticks, title, "no depth", 1 - float(known.mean()))


def sigma_picture(sigma_m: NDArray[np.float32], title: str = "") -> Picture:
    """Standard deviation of a depth image in colour, framed as :func:`depth_picture`.

    `sigma_m` (H, W) metres, NaN = unknown. The scale is that of :func:`sigma_range`.
    """
    sigma = np.asarray(sigma_m, np.float32)
    low, high = sigma_range(sigma)
    image = colorize_sigma(_enlarged(sigma), low, high)
    height = image.shape[0]
    down = np.geomspace(high, low, height, dtype=np.float32)[:, None]
    strip = colorize_sigma(down, low, high)
    ticks = []
    for value in log_ticks(low, high, height, 2 * _em(height)):
        ticks.append((1 - math.log(value / low) / math.log(high / low), _length_text(value)))
    return _framed(image, strip, ticks, title, "no depth", 1 - float(np.isfinite(sigma).mean()))


def focus_text(focus_diopters: float) -> str:
    """Text of a focus.

    >>> focus_text(0.8), focus_text(0.0)
    ('0.8 dioptres = 1.25 m', '0 dioptres = infinity')
    """
    distance = f"{1 / focus_diopters:.3g} m" if focus_diopters > 0 else "infinity"
    return f"{focus_diopters:.3g} dioptres = {distance}"


def metre_ticks(min_m: float, max_m: float, length_px: float, gap_px: float) -> list[float]:
    """Ticks of a scale uniform in inverse depth: both ends and the roundest depths between.

    `gap_px`: least distance of two ticks on a scale of `length_px`. In metres, near to far.
    """
    span = 1 / min_m - 1 / max_m

    def position(depth_m: float) -> float:
        return (1 / min_m - 1 / depth_m) / span * length_px

    decades = range(math.floor(math.log10(min_m)), math.ceil(math.log10(max_m)) + 1)
    candidates = [(_roundness(m), float(f"{m}e{k - 2}")) for k in decades for m in range(100, 1000)]
    ticks = [min_m, max_m]
    for rank in range(6):
        for value in sorted(v for r, v in candidates if r == rank and min_m < v < max_m):
            if all(abs(position(value) - position(tick)) >= gap_px for tick in ticks):
                ticks.append(value)
        positions = sorted(position(tick) for tick in ticks)
        if len(ticks) >= 5 and np.diff(positions).max() <= max(0.4 * length_px, 2 * gap_px):
            break  # prefers few round ticks to many
    return sorted(ticks)


def _roundness(mantissa: int) -> int:
    # Of three digits: 1, 2, 5 before other single digits before halves before tenths.
    if mantissa in (100, 200, 500):
        return 0
    return next((rank for rank, step in enumerate((100, 50, 10, 5), start=1) if mantissa % step == 0), 5)


@lru_cache(maxsize=1)
def _colour_table() -> Picture:
    # Turbo without its ends, which are nearly black and would look alike.
    positions = np.linspace(0.06, 0.95, _LEVELS)
    turbo = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
    return _table_of(turbo, positions)


@lru_cache(maxsize=1)
def _sigma_table() -> Picture:
    # Inferno without its black end; unlike the colours of depth it rises in brightness.
    inferno = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    return _table_of(inferno, np.linspace(0.1, 1.0, _LEVELS))


@lru_cache(maxsize=1)
def _confidence_table() -> Picture:
    viridis = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return _table_of(viridis, np.linspace(0.0, 1.0, _LEVELS))


def _table_of(colours: NDArray[Any], positions: NDArray[np.float64]) -> Picture:
    table = np.full((256, 1, 3), 0, np.uint8)
    table[:_LEVELS, 0] = [[np.interp(p * 255, np.arange(256), colours[:, c]) for c in range(3)] for p in positions]
    table[_LEVELS], table[_LEVELS + 1] = 208, 176
    return table


@lru_cache(maxsize=4)
def _hatch(height: int, width: int, stripe_px: int) -> Picture:
    diagonal = np.add.outer(np.arange(height), np.arange(width)) // stripe_px
    return (_LEVELS + diagonal % 2).astype(np.uint8)


def _stripe_px(height: int, width: int) -> int:
    return max(3, round(min(height, width) / 100))


def _coloured(share: NDArray[Any], usable: NDArray[np.bool_], table: Picture) -> Picture:
    """Colours of `share` (H, W), 0 to 1, by a table; hatched where not `usable`."""
    level = share * np.float32(_LEVELS - 1)
    np.copyto(level, 0, where=~usable)
    index = np.rint(level.clip(0, _LEVELS - 1)).astype(np.uint8)
    np.copyto(index, _hatch(*share.shape, _stripe_px(*share.shape)), where=~usable)
    return np.asarray(cv2.applyColorMap(index, table), np.uint8)


def _framed(
    image: Picture, strip: Picture, ticks: list[tuple[float, str]], title: str, unknown: str, missing: float
) -> Picture:
    """Image with title, colour bar and the `missing` share of its pixels; `ticks`: share from the top, and label."""
    height, width = image.shape[:2]
    em = _em(height)
    bar = _colour_bar(strip, ticks, em)
    margin = em // 2
    top = 2 * em if title else margin
    share = "all pixels" if missing == 1 else f"{missing:.1%} of the pixels" if missing >= 0.001 else "a few pixels"
    legend = f"{unknown}: {share}"
    legend_width = 2 * em + 3 * margin + math.ceil(_font(em).getlength(legend)) if missing > 0 else 0
    bottom = 2 * em if missing > 0 else margin
    size = (max(width + bar.shape[1] + 3 * margin, legend_width), top + height + bottom)
    canvas = Image.new("RGB", size, _BACKGROUND)
    canvas.paste(Image.fromarray(image), (margin, top))
    canvas.paste(Image.fromarray(bar), (width + 2 * margin, top))
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((margin, top // 2), title, _INK, _font(em, title, canvas.width - 2 * margin), anchor="lm")
    if missing > 0:
        swatch = _colour_table()[_hatch(em, 2 * em, _stripe_px(height, width))].reshape(em, 2 * em, 3)
        canvas.paste(Image.fromarray(swatch), (margin, top + height + em // 2))
        draw.text((margin + 2 * em + margin, top + height + em), legend, _INK, _font(em), anchor="lm")
    return np.array(canvas)


def _colour_bar(strip: Picture, ticks: list[tuple[float, str]], em: int) -> Picture:
    """Colour bar of a column of colours (H, 1, 3), with far or large on top, like the floor in front of a camera."""
    height = strip.shape[0]
    font = _font(em)
    bar_width = round(1.2 * em)
    width = bar_width + em // 2 + math.ceil(max(font.getlength(label) for _, label in ticks)) + em // 2
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    canvas.paste(Image.fromarray(strip.repeat(bar_width, axis=1)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for share, label in ticks:
        y = share * (height - 1)
        draw.line([(bar_width, y), (bar_width + em // 4, y)], _INK, max(1, em // 12))
        text_y = min(max(y, em * 0.55), height - em * 0.55)  # keeps the labels of the ends inside
        draw.text((bar_width + em // 2, text_y), label, _INK, font, anchor="lm")
    return np.array(canvas)


def log_ticks(low: float, high: float, length_px: float, gap_px: float) -> list[float]:
    """Both ends of a logarithmic scale, and 1, 2, 5 of each decade between, at least `gap_px` apart."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [low, high]
    for mantissa in (1, 5, 2):
        for value in (mantissa * 10.0**decade for decade in decades):
            apart = min(abs(math.log(value / tick)) for tick in ticks) / math.log(high / low) * length_px
            if low < value < high and apart >= gap_px:
                ticks.append(value)
    return sorted(ticks)


def _length_text(metres: float) -> str:
    return f"{metres:.2g} m" if metres >= 0.1 else f"{metres * 1e3:.2g} mm"


def _enlarged(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    factor = max(1, math.ceil(320 / max(depth_m.shape[0], 1))) if depth_m.ndim == 2 else 1
    return depth_m.repeat(factor, axis=0).repeat(factor, axis=-1)


def _em(height: int) -> int:
    """Font size for a picture of that height."""
    return min(max(round(height / 26), 13), 40)


@lru_cache(maxsize=64)
def _font(size: int, text: str = "", room_px: int = 0) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Font of Pillow, smaller if `text` does not fit in `room_px`."""
    font = ImageFont.load_default(size)
    if text and font.getlength(text) > room_px:
        font = ImageFont.load_default(max(8, math.floor(size * room_px / font.getlength(text))))
    return font

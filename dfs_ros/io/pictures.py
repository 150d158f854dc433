"""Pictures for people: depth in colour with a scale.

Colours are uniform in inverse depth, as depth is measured: near is red, far is blue. Pixels without depth are hatched
in grey, a colour of no depth. All functions take and return uint8 RGB arrays; the live viewer uses them, too.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dfs_ros.config import NEAREST_DEPTH_M, HypothesesConfig

Picture = NDArray[np.uint8]

_LEVELS = 254  # of the colour map; indices 254 and 255 are the stripes of "no depth"
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
    scale = (_LEVELS - 1) / (1 / min_m - 1 / max_m)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = (1 / depth - np.float32(1 / max_m)) * np.float32(scale)
    np.copyto(level, 0, where=~usable)
    index = np.rint(level.clip(0, _LEVELS - 1)).astype(np.uint8)
    np.copyto(index, _hatch(*depth.shape, _stripe_px(*depth.shape)), where=~usable)
    return np.asarray(cv2.applyColorMap(index, _colour_table()), np.uint8)


def depth_range(depth_m: NDArray[np.float32]) -> tuple[float, float]:
    """Range (min, max) of depth colours in metres: 1st and 99th percentile.

    It is widened to at least a factor of 1.05; without any depth it is the default hypotheses' range.
    """
    depth = np.asarray(depth_m)
    values = depth[np.isfinite(depth) & (depth > 0)]
    if values.size == 0:
        return NEAREST_DEPTH_M, HypothesesConfig.max_depth_m
    low, high = (float(v) for v in np.percentile(values, [1, 99]))
    if high < 1.05 * low:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(1.05), middle * math.sqrt(1.05)
    return low, high


def depth_picture(
    depth_m: NDArray[np.float32],
    title: str = "",
    min_m: float | None = None,
    max_m: float | None = None,
) -> Picture:
    """Depth image in colour with title, colour bar and share of unknown pixels.

    `depth_m` (H, W) metres, NaN = unknown; the default range is that of :func:`depth_range`. Small images are enlarged
    by whole pixels to keep the scale legible. Returns uint8 RGB, larger than the depth image.
    """
    auto_min, auto_max = depth_range(depth_m)
    low, high = min_m if min_m is not None else auto_min, max_m if max_m is not None else auto_max
    if low >= high and (min_m is None) != (max_m is None):  # the given end lies beyond all depths
        low, high = (high / 1.05, high) if min_m is None else (low, low * 1.05)
    image = colorize_depth(_enlarged(np.asarray(depth_m)), low, high)
    height, width = image.shape[:2]
    em = _em(height)
    bar = _colour_bar(low, high, height, em)
    margin = em // 2
    top = 2 * em if title else margin
    missing = 1 - float((np.isfinite(depth_m) & (np.asarray(depth_m) > 0)).mean())
    share = "all pixels" if missing == 1 else f"{missing:.1%} of the pixels" if missing >= 0.001 else "a few pixels"
    legend = f"no depth: {share}"
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
    table = np.full((256, 1, 3), 0, np.uint8)
    table[:_LEVELS, 0] = [[np.interp(p * 255, np.arange(256), turbo[:, c]) for c in range(3)] for p in positions]
    table[_LEVELS], table[_LEVELS + 1] = 208, 176
    return table


@lru_cache(maxsize=4)
def _hatch(height: int, width: int, stripe_px: int) -> Picture:
    diagonal = np.add.outer(np.arange(height), np.arange(width)) // stripe_px
    return (_LEVELS + diagonal % 2).astype(np.uint8)


def _stripe_px(height: int, width: int) -> int:
    return max(3, round(min(height, width) / 100))


def _colour_bar(min_m: float, max_m: float, height: int, em: int) -> Picture:
    """Colour bar with far on top, like the floor in front of a camera."""
    ticks = metre_ticks(min_m, max_m, height, 2 * em)
    font = _font(em)
    labels = [f"{tick:.3g} m" for tick in ticks]
    bar_width = round(1.2 * em)
    width = bar_width + em // 2 + math.ceil(max(font.getlength(label) for label in labels)) + em // 2
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    inverse = np.linspace(1 / max_m, 1 / min_m, height, dtype=np.float32)
    strip = colorize_depth(np.repeat(1 / inverse[:, None], bar_width, axis=1), min_m, max_m)
    canvas.paste(Image.fromarray(strip), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for tick, label in zip(ticks, labels, strict=True):
        y = (1 / tick - 1 / max_m) / (1 / min_m - 1 / max_m) * (height - 1)
        draw.line([(bar_width, y), (bar_width + em // 4, y)], _INK, max(1, em // 12))
        text_y = min(max(y, em * 0.55), height - em * 0.55)  # keeps the labels of the ends inside
        draw.text((bar_width + em // 2, text_y), label, _INK, font, anchor="lm")
    return np.array(canvas)


def _tile(picture: Picture, label: str, height: int, em: int) -> Image.Image:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    shrinks = height < picture.shape[0]
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)
    tile = Image.new("RGB", (width, height + round(1.6 * em)), _BACKGROUND)
    tile.paste(Image.fromarray(resized), (0, round(1.6 * em)))
    ImageDraw.Draw(tile).text((0, round(0.8 * em)), label, _INK, _font(em, label, width), anchor="lm")
    return tile


def _rgb(image: NDArray[np.uint8]) -> Picture:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise TypeError(f"image: expected a uint8 array, received {getattr(image, 'dtype', type(image).__name__)}")
    if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"image: expected shape (H, W, 3) or (H, W), received {image.shape}")
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


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

"""Procedural textures: tileable uint8 RGB squares, deterministic for a seed."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Texture = NDArray[np.uint8]
Colours = NDArray[np.float64]

SIZE = 256
"""Default size in texels each way."""


def fractal(rng: np.random.Generator, size: int = SIZE, slope: float = 1.0) -> NDArray[np.float64]:
    """Noise (size, size) with amplitude ``1 / frequency^slope``, mean 0, deviation 1."""
    fx = np.fft.rfftfreq(size)
    fy = np.fft.fftfreq(size)[:, None]
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / radius**slope
    spectrum[0, 0] = 0.0
    noise: NDArray[np.float64] = np.fft.irfft2(spectrum, (size, size))
    noise /= noise.std()
    return noise


def clouds(rng: np.random.Generator, size: int = SIZE) -> Texture:
    """1/f noise in three partly independent colours, with the spectrum of a photo."""
    common = fractal(rng, size)
    layers = [0.9 * common + 0.3 * fractal(rng, size) for _ in range(3)]
    return _texture(np.stack(layers, axis=-1) * rng.uniform(25, 60) + _colours(rng, 1)[0])


def checker(rng: np.random.Generator, size: int = SIZE) -> Texture:
    """Squares of two colours with some dirt."""
    cells = int(rng.choice([4, 8, 16]))
    index = np.arange(size) * cells // size
    board = (index[:, None] + index) % 2
    return _dirty(rng, _colours(rng, 2)[board])


def stripes(rng: np.random.Generator, size: int = SIZE) -> Texture:
    """Parallel stripes of several widths."""
    edges = np.sort(rng.choice(size, int(rng.integers(8, 40)), replace=False))
    stripe = np.searchsorted(edges, np.arange(size), side="right")
    colours = _colours(rng, len(edges) + 1)
    colours[-1] = colours[0]
    image = np.broadcast_to(colours[stripe], (size, size, 3))
    return _dirty(rng, image if rng.random() < 0.5 else image.transpose(1, 0, 2))


def blobs(rng: np.random.Generator, size: int = SIZE) -> Texture:
    """Patches of a few flat colours with wavy borders."""
    height = fractal(rng, size, slope=1.5)
    levels = int(rng.integers(3, 8))
    patch = np.searchsorted(np.quantile(height, np.linspace(0, 1, levels + 1)[1:-1]), height)
    return _dirty(rng, _colours(rng, levels)[patch])


def writing(rng: np.random.Generator, size: int = SIZE) -> Texture:
    """Lines of letters on paper."""
    paper, ink = (np.array([235.0, 232, 220]), np.array([30.0, 30, 40])) if rng.random() < 0.6 else _colours(rng, 2)
    image = np.ascontiguousarray(np.broadcast_to(paper, (size, size, 3))).astype(np.uint8)
    scale = float(rng.uniform(0.4, 1.4)) * size / SIZE
    step = max(8, round(26 * scale))
    for y in range(step, size, step):
        letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVXYZabdeghkmnprst0123456789  "), 80))
        cv2.putText(
            image, letters, (4, y), cv2.FONT_HERSHEY_SIMPLEX, scale * 0.8, ink.tolist(), 1 + round(scale), cv2.LINE_AA
        )
    return _dirty(rng, image.astype(np.float64))


def wood(rng: np.random.Generator, size: int = SIZE) -> Texture:
    """Boards with grain along the first axis."""
    grain = cv2.resize(fractal(rng, size, 0.8), None, fx=1.0, fy=8.0, interpolation=cv2.INTER_CUBIC)[:size]
    rings = np.sin(6.0 * fractal(rng, size, 1.6) + np.arange(size) * 2 * np.pi * 12 / size)
    value = 0.7 * grain + 0.5 * rings + 0.25 * rng.standard_normal((size, size))
    image = np.array([150.0, 104, 64]) + value[..., None] * np.array([22.0, 19, 14])
    image[:, :: size // 4] *= 0.5
    return _texture(image)


def bricks(rng: np.random.Generator, size: int = SIZE) -> Texture:
    """Staggered bricks and mortar."""
    rows, columns = 16, 8
    y, x = np.indices((size, size))
    row = y * rows // size
    shifted = (x + (row % 2) * size // (2 * columns)) % size
    column = shifted * columns // size
    tone = rng.uniform(0.6, 1.15, (rows, columns))[row, column]
    image = tone[..., None] * rng.uniform([125, 65, 45], [185, 110, 80])
    mortar = (y % (size // rows) < size // 128 + 1) | (shifted % (size // columns) < size // 128 + 1)
    image[mortar] = [185, 180, 170]
    return _dirty(rng, image)


def plain(rng: np.random.Generator, size: int = SIZE) -> Texture:
    """One colour with hardly any texture, like many walls."""
    return _texture(_colours(rng, 1)[0] + fractal(rng, size)[..., None] * rng.uniform(0.5, 5.0))


KINDS: tuple[Callable[..., Texture], ...] = (clouds, checker, stripes, blobs, writing, wood, bricks, plain)


def random_texture(rng: np.random.Generator, size: int = SIZE) -> Texture:
    """Random texture of any kind."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    return kind(rng, size)


def _colours(rng: np.random.Generator, count: int) -> Colours:
    """Random, mostly muted colours (count, 3)."""
    grey = rng.uniform(30, 225, (count, 1))
    return np.clip(grey + rng.uniform(0.1, 0.8) * rng.uniform(-110, 110, (count, 3)), 5, 250)


def _dirty(rng: np.random.Generator, image: Colours) -> Texture:
    """Shade a texture with 1/f noise and fine grain, as real surfaces are never flat."""
    size = image.shape[0]
    shade = 1.0 + 0.12 * fractal(rng, size) + 0.05 * rng.standard_normal((size, size))
    return _texture(image * shade[..., None])


def _texture(image: Colours) -> Texture:
    texture: Texture = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return texture

"""Ray caster: textured rectangles, spheres and cylinders -> sharp image and depth.

Coordinates as of a camera's optical frame: x right, y down, z forward, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_ros.simulation.render import decode
from dfs_ros.simulation.textures import Texture

Vector = tuple[float, float, float]
Array = NDArray[np.float64]

_LIGHT = np.array([-0.4, -0.8, -0.45]) / np.linalg.norm([-0.4, -0.8, -0.45])  # towards the lamp: above, left, in front
_AMBIENT = 0.55


@dataclass(frozen=True, eq=False)
class Material:
    """Texture of a surface, repeated every `tile_m` metres from the middle."""

    texture: Texture
    tile_m: float = 0.2

    @cached_property
    def levels(self) -> list[NDArray[np.float32]]:
        """Texture in linear intensity at full, half, quarter, ... size."""
        levels = [decode(self.texture)]
        while min(levels[-1].shape[:2]) > 2:
            height, width = levels[-1].shape[:2]
            half = cv2.resize(levels[-1], (max(width // 2, 1), max(height // 2, 1)), interpolation=cv2.INTER_AREA)
            levels.append(half.astype(np.float32))
        return levels

    def colour(self, across_m: Array, along_m: Array, pixel_m: Array) -> NDArray[np.float32]:
        """Linear intensity (N, 3) at surface coordinates (N,), averaged over about `pixel_m` (N,)."""
        texels_per_pixel = pixel_m / self.tile_m * self.texture.shape[1]
        level = np.clip(np.log2(np.maximum(texels_per_pixel, 1.0)) + 0.5, 0, len(self.levels) - 1).astype(int)
        colour = np.empty((len(level), 3), np.float32)
        for i in np.unique(level):
            chosen = level == i
            texture = self.levels[i]
            height, width = texture.shape[:2]
            x = ((across_m[chosen] / self.tile_m + 0.5) % 1.0 * width - 0.5).astype(np.float32)
            y = ((along_m[chosen] / self.tile_m + 0.5) % 1.0 * height - 0.5).astype(np.float32)
            colour[chosen] = _bilinear_wrapped(texture, x, y)
        return colour


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Flat rectangle: `centre`, and vectors `right`, `down` to the middles of two sides."""

    centre: Vector
    right: Vector
    down: Vector
    material: Material

    def hit(self, origin: Array, rays: Array) -> Array:
        """Depth t (N,) of ``origin + t * rays`` on the surface; inf if it misses."""
        right, down = np.asarray(self.right), np.asarray(self.down)
        normal = np.cross(right, down)
        slope = rays @ normal
        with np.errstate(divide="ignore", invalid="ignore"):
            t = ((np.asarray(self.centre) - origin) @ normal) / slope
            offset = origin + t[:, None] * rays - np.asarray(self.centre)
            inside = (np.abs(offset @ right) <= right @ right) & (np.abs(offset @ down) <= down @ down)
        return np.where(inside & (t > 0), t, np.inf)

    def shade(self, points: Array, pixel_m: Array) -> NDArray[np.float32]:
        """Linear intensity (N, 3) at points (N, 3), seen by pixels `pixel_m` (N,) wide."""
        right, down = np.asarray(self.right), np.asarray(self.down)
        offset = points - np.asarray(self.centre)
        normal = np.cross(right, down)
        colour = self.material.colour(
            offset @ right / np.linalg.norm(right), offset @ down / np.linalg.norm(down), pixel_m
        )
        return colour * _lambert(normal / np.linalg.norm(normal), points)


@dataclass(frozen=True, eq=False)
class Sphere:
    """Sphere."""

    centre: Vector
    radius_m: float
    material: Material

    def hit(self, origin: Array, rays: Array) -> Array:
        """Depth on the surface, as :meth:`Rectangle.hit`."""
        return _first_root(rays, origin - np.asarray(self.centre), self.radius_m)

    def shade(self, points: Array, pixel_m: Array) -> NDArray[np.float32]:
        """Linear intensity, as :meth:`Rectangle.shade`."""
        normal = (points - np.asarray(self.centre)) / self.radius_m
        longitude = np.arctan2(normal[:, 0], -normal[:, 2]) * self.radius_m
        latitude = np.arcsin(np.clip(normal[:, 1], -1, 1)) * self.radius_m
        return self.material.colour(longitude, latitude, pixel_m) * _lambert(normal, points)


@dataclass(frozen=True, eq=False)
class Cylinder:
    """Upright open cylinder: `centre`, `radius_m`, half of `height_m` up and half down."""

    centre: Vector
    radius_m: float
    height_m: float
    material: Material

    def hit(self, origin: Array, rays: Array) -> Array:
        """Depth on the surface, as :meth:`Rectangle.hit`."""
        flat = np.array([1.0, 0.0, 1.0])
        t = _first_root(rays * flat, (origin - np.asarray(self.centre)) * flat, self.radius_m)
        y = origin[1] + np.where(np.isfinite(t), t, 0.0) * rays[:, 1]
        return np.where(np.abs(y - self.centre[1]) <= self.height_m / 2, t, np.inf)

    def shade(self, points: Array, pixel_m: Array) -> NDArray[np.float32]:
        """Linear intensity, as :meth:`Rectangle.shade`."""
        offset = points - np.asarray(self.centre)
        normal = offset * np.array([1.0, 0.0, 1.0]) / self.radius_m
        around = np.arctan2(normal[:, 0], -normal[:, 2]) * self.radius_m
        return self.material.colour(around, offset[:, 1], pixel_m) * _lambert(normal, points)


Surface = Rectangle | Sphere | Cylinder


def box(centre: Vector, size_m: Vector, turn: float, material: Material) -> list[Rectangle]:
    """Sides of a box, turned about its vertical axis by `turn` radians."""
    c, s = np.cos(turn), np.sin(turn)
    axes = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]) * np.asarray(size_m)[:, None] / 2
    sides = []
    for i in range(3):
        j, k = (0, 1) if i == 2 else ((i + 2) % 3, 1) if i == 0 else (0, 2)
        for sign in (-1.0, 1.0):
            sides.append(
                Rectangle(_vector(np.asarray(centre) + sign * axes[i]), _vector(axes[j]), _vector(axes[k]), material)
            )
    return sides


@dataclass(frozen=True, eq=False)
class Cast:
    """Pinhole image: `rgb_linear` float32 (H, W, 3), `depth_m` (H, W), surface index (H, W)."""

    rgb_linear: NDArray[np.float32]
    depth_m: NDArray[np.float32]
    surface: NDArray[np.int16] = field(repr=False)


def cast(
    surfaces: Sequence[Surface],
    width: int,
    height: int,
    fx_px: float,
    origin: ArrayLike = (0.0, 0.0, 0.0),
    samples: int = 2,
) -> Cast:
    """Cast rays from `origin` along +z through a centred pinhole of focal length `fx_px`.

    Depth and surface are those of the pixel's centre; colour is the mean of `samples` x `samples` rays to the same
    surface: no pixel mixes near and far. Raises ValueError for a ray without a surface: close the scene with a wall.
    """
    start = np.asarray(origin, np.float64)
    rays = pinhole_rays(width, height, fx_px, 0.0, 0.0)
    depth, index = nearest_surface(surfaces, start, rays)
    if not np.isfinite(depth).all():
        raise ValueError("scene: some rays meet no surface; put a wall behind everything")
    colour = np.zeros((width * height, 3), np.float32)
    count = np.zeros((width * height, 1), np.float32)
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    for dy in offsets:
        for dx in offsets:
            rays = pinhole_rays(width, height, fx_px, dx, dy)
            for i in np.unique(index):
                chosen = np.flatnonzero(index == i)
                t = surfaces[i].hit(start, rays[chosen])
                met = np.isfinite(t)
                if not met.any():
                    continue
                chosen, t = chosen[met], t[met]
                colour[chosen] += surfaces[i].shade(start + t[:, None] * rays[chosen], t / (fx_px * samples))
                count[chosen] += 1
    missed = count[:, 0] == 0  # a sliver under a pixel wide: the centre ray alone
    if missed.any():
        rays = pinhole_rays(width, height, fx_px, 0.0, 0.0)
        for i in np.unique(index[missed]):
            chosen = np.flatnonzero(missed & (index == i))
            colour[chosen] = surfaces[i].shade(start + depth[chosen, None] * rays[chosen], depth[chosen] / fx_px)
            count[chosen] = 1
    return Cast(
        (colour / count).reshape(height, width, 3),
        depth.reshape(height, width).astype(np.float32),
        index.reshape(height, width).astype(np.int16),
    )


def nearest_surface(surfaces: Sequence[Surface], origin: Array, rays: Array) -> tuple[Array, NDArray[np.intp]]:
    """Depth (N,) and index (N,) of the first surface on each ray; inf for none."""
    depth = np.full(len(rays), np.inf)
    index = np.zeros(len(rays), np.intp)
    for i, surface in enumerate(surfaces):
        t = surface.hit(origin, rays)
        nearer = t < depth
        depth[nearer] = t[nearer]
        index[nearer] = i
    return depth, index


def pinhole_rays(width: int, height: int, fx_px: float, dx: float, dy: float) -> Array:
    """Ray directions (H * W, 3) with z = 1; the ray parameter is the depth."""
    x = (np.arange(width) + dx - (width - 1) / 2) / fx_px
    y = (np.arange(height) + dy - (height - 1) / 2) / fx_px
    grid = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)
    return grid.reshape(-1, 3)


def _first_root(rays: Array, offset: Array, radius: float) -> Array:
    """Smallest t > 0 with ``|offset + t rays| = radius``; inf without, or from inside."""
    a = np.einsum("ni,ni->n", rays, rays)
    b = rays @ offset
    discriminant = b * b - a * (offset @ offset - radius * radius)
    t = (-b - np.sqrt(np.maximum(discriminant, 0.0))) / a
    return np.where((discriminant > 0) & (t > 0), t, np.inf)


def _lambert(normal: Array, points: Array) -> NDArray[np.float32]:
    """Lambert brightness (N, 1); a flat normal (3,) is turned towards the camera."""
    if normal.ndim == 1:
        normal = np.broadcast_to(normal if normal @ points.mean(axis=0) < 0 else -normal, points.shape)
    brightness = _AMBIENT + (1.0 - _AMBIENT) * np.maximum(normal @ _LIGHT, 0.0)
    column: NDArray[np.float32] = brightness.astype(np.float32)[:, None]
    return column


def _bilinear_wrapped(
    texture: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]
) -> NDArray[np.float32]:
    height, width = texture.shape[:2]
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    x0, x1, y0, y1 = x0 % width, (x0 + 1) % width, y0 % height, (y0 + 1) % height
    top = texture[y0, x0] * (1 - fx) + texture[y0, x1] * fx
    bottom = texture[y1, x0] * (1 - fx) + texture[y1, x1] * fx
    mixed: NDArray[np.float32] = (top * (1 - fy) + bottom * fy).astype(np.float32)
    return mixed


def _vector(values: Array) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])

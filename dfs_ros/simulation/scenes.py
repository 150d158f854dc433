"""Procedural scenes: sharp image, true depth, planes at known depths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.simulation import textures
from dfs_ros.simulation.render import decode, encode_uint8, reduce_image
from dfs_ros.simulation.surfaces import Cylinder, Material, Rectangle, Sphere, Surface, Vector, box, cast
from dfs_ros.simulation.textures import Texture
from dfs_ros.types import Camera

_DEMO_SEED = 1
DEMO_FOCUS_DIOPTERS = (2.2, 1.6, 1.1, 0.7, 0.35)
"""Focus sweep over the demo scene, from 0.45 m to its wall."""
DEMO_PERIOD_S = 12.0
"""Period of a slow sway before the demo scene, of at most 22 mm/s."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Scene: sharp image with its depth.

    `rgb` uint8 (H, W, 3), `depth_m` float32 (H, W), `label` int16 (H, W) into `names`; `plane_depth_m` gives the depth
    of those of the names that are planes facing the camera.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    label: NDArray[np.int16]
    names: tuple[str, ...]
    plane_depth_m: dict[str, float]

    def mask(self, name: str, margin_px: int = 0) -> NDArray[np.bool_]:
        """Pixels (H, W) of a named object, without those within `margin_px` of its edge."""
        if name not in self.names:
            raise ValueError(f"scene has no object {name!r}; it has {', '.join(self.names)}")
        mask = (self.label == self.names.index(name)).astype(np.uint8)
        inside = cv2.erode(
            mask, np.ones((2 * margin_px + 1,) * 2, np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        return np.asarray(inside, bool)

    def reduced(self, factor: int) -> Scene:
        """Reduce the scene by `factor`, as images with this oversampling: intensity is averaged, depth not."""
        middle = slice(factor // 2, None, factor)
        return replace(
            self,
            rgb=encode_uint8(reduce_image(decode(self.rgb), factor)),
            depth_m=self.depth_m[middle, middle],
            label=self.label[middle, middle],
        )


def demo_camera(width: int = 320) -> Camera:
    """Camera with a 25 mm f/1.4 lens and a 12.8 mm wide sensor of `width` pixels."""
    return Camera(focal_length_m=0.025, f_number=1.4, pixel_pitch_m=12.8e-3 / width)


def demo_scene(
    width: int = 320,
    height: int = 240,
    time_s: float = 0.0,
    fx_px: float = 0.0,
    period_s: float = DEMO_PERIOD_S,
) -> Scene:
    """Table top with objects at 0.45 to 2.2 m before a wall at 3 m.

    Seen by :func:`demo_camera` unless `fx_px` is given.

    The camera is at :func:`demo_origin`: it never moves towards the scene, so the known depths stay.
    """
    fx_px = fx_px or 0.025 / demo_camera(width).pixel_pitch_m
    return _scene(_demo_objects(), width, height, fx_px, demo_origin(time_s, period_s))


def demo_origin(time_s: float, period_s: float = DEMO_PERIOD_S) -> Vector:
    """Place of the camera before the demo scene: it sways by 3 cm sideways and 1.2 cm up and down."""
    phase = 2 * math.pi * time_s / period_s
    return 0.03 * math.sin(phase), 0.012 * math.sin(2 * phase), 0.0


def plane_scene(depth_m: float, width: int = 320, height: int = 240, seed: int = 0, fx_px: float = 0.0) -> Scene:
    """One textured plane facing the camera, named "plane"."""
    fx_px = fx_px or float(width)
    span = 2.0 * depth_m * max(width, height) / fx_px
    tile = depth_m * textures.SIZE / fx_px  # a texel a pixel
    material = Material(textures.clouds(np.random.default_rng(seed)), tile)
    return _scene([("plane", [_facing(0.0, 0.0, depth_m, span, span, material)])], width, height, fx_px)


def random_scene(
    rng: np.random.Generator | int,
    width: int = 320,
    height: int = 240,
    near_m: float = 0.4,
    far_m: float = 4.0,
    photos: Sequence[Texture] = (),
    fx_px: float = 0.0,
) -> Scene:
    """Random scene between two depths: background and 2 to 12 objects.

    Depths are drawn uniformly in inverse depth, sizes in pixels, textures of all kinds, half of them from `photos`
    (uint8
    RGB, mirrored where they repeat), if given.
    """
    if not 0 < near_m < far_m < math.inf:
        raise ValueError(f"scene: expected 0 < near_m < far_m, received {near_m} and {far_m}")
    generator = np.random.default_rng(rng)
    fx_px = fx_px or float(width)
    maker = _RandomObjects(generator, width, height, near_m, far_m, [_tileable(photo) for photo in photos], fx_px)
    objects = [("background", maker.background())]
    objects += [(f"object{i}", maker.object()) for i in range(int(generator.integers(2, 13)))]
    return _scene(objects, width, height, fx_px)


def _scene(
    objects: Sequence[tuple[str, Sequence[Surface]]],
    width: int,
    height: int,
    fx_px: float,
    origin: Vector = (0.0, 0.0, 0.0),
) -> Scene:
    surfaces = [surface for _, parts in objects for surface in parts]
    owner = np.array([i for i, (_, parts) in enumerate(objects) for _ in parts], np.int16)
    seen = cast(surfaces, width, height, fx_px, origin)
    planes = {name: depth for name, parts in objects if (depth := _facing_depth(parts)) is not None}
    return Scene(
        rgb=encode_uint8(seen.rgb_linear),
        depth_m=seen.depth_m,
        label=owner[seen.surface],
        names=tuple(name for name, _ in objects),
        plane_depth_m={name: depth - origin[2] for name, depth in planes.items()},
    )


def _facing_depth(parts: Sequence[Surface]) -> float | None:
    """Depth of a single rectangle that faces the camera."""
    if len(parts) == 1 and isinstance(parts[0], Rectangle) and parts[0].right[2] == 0 == parts[0].down[2]:
        return parts[0].centre[2]
    return None


def _facing(x: float, y: float, depth: float, width_m: float, height_m: float, material: Material) -> Rectangle:
    return Rectangle((x, y, depth), (width_m / 2, 0.0, 0.0), (0.0, height_m / 2, 0.0), material)


@lru_cache(maxsize=1)
def _demo_objects() -> tuple[tuple[str, tuple[Surface, ...]], ...]:
    rng = np.random.default_rng(_DEMO_SEED)
    table_y = 0.105

    def standing(x: float, depth: float, width_m: float, height_m: float, material: Material) -> Rectangle:
        return _facing(x, table_y - height_m / 2, depth, width_m, height_m, material)

    table = Rectangle((0.0, table_y, 1.0), (0.9, 0.0, 0.0), (0.0, 0.0, 0.75), Material(textures.wood(rng, 512), 0.35))
    crate = box((-0.115, table_y - 0.065, 0.8), (0.085, 0.13, 0.085), 0.6, Material(textures.wood(rng), 0.1))
    return (
        ("wall", (_facing(0.0, 0.0, 3.0, 8.0, 8.0, Material(textures.bricks(rng, 512), 0.9)),)),
        ("table", (table,)),
        ("letter", (standing(-0.085, 0.5, 0.06, 0.075, Material(textures.writing(rng), 0.11)),)),
        ("chart", (standing(0.15, 0.95, 0.14, 0.16, Material(textures.checker(rng), 0.16)),)),
        ("poster", (standing(-0.17, 1.5, 0.3, 0.36, Material(textures.blobs(rng), 0.3)),)),
        ("screen", (_facing(0.42, -0.15, 2.1, 0.4, 0.35, Material(textures.stripes(rng), 0.5)),)),
        ("ball", (Sphere((0.085, table_y - 0.03, 0.58), 0.03, Material(textures.blobs(rng), 0.09)),)),
        ("globe", (Sphere((0.06, table_y - 0.055, 1.15), 0.055, Material(textures.clouds(rng), 0.2)),)),
        ("can", (Cylinder((0.0, table_y - 0.05, 0.75), 0.026, 0.1, Material(textures.writing(rng), 0.1)),)),
        ("crate", tuple(crate)),
    )


class _RandomObjects:
    """Generator of backgrounds and objects for :func:`random_scene`."""

    def __init__(
        self,
        rng: np.random.Generator,
        width: int,
        height: int,
        near_m: float,
        far_m: float,
        photos: list[Texture],
        fx_px: float,
    ) -> None:
        self.rng, self.width, self.height, self.photos, self.fx_px = rng, width, height, photos, fx_px
        self.near_m, self.far_m = near_m, far_m

    def background(self) -> list[Surface]:
        """Wall at the far limit, sometimes with a tilted plane or a room before it."""
        far, rng = self.far_m, self.rng
        reach = 2.0 * far * max(self.width, self.height) / self.fx_px
        wall = far if rng.random() < 0.5 else self._depth(0.0, 0.4)
        surfaces: list[Surface] = [_facing(0.0, 0.0, wall, 2 * reach, 2 * reach, self._material(wall, 2.0))]
        kind = rng.random()
        if kind < 0.6:  # a floor or a table: meets the lower edge of the image at some near depth
            near = self._depth(0.4, 1.0)
            y = near * self.height / 2 / self.fx_px
            centre, half = (0.0, y, (near * 0.9 + wall) / 2), (wall - near * 0.9) / 2
            surfaces.append(Rectangle(centre, (reach, 0.0, 0.0), (0.0, 0.0, half), self._material(near)))
        if 0.3 < kind < 0.9:  # a side wall
            near = self._depth(0.2, 0.9)
            x = float(rng.choice([-1.0, 1.0])) * near * self.width / 2 / self.fx_px
            centre, half = (x, 0.0, (near * 0.9 + wall) / 2), (wall - near * 0.9) / 2
            surfaces.append(Rectangle(centre, (0.0, 0.0, half), (0.0, reach, 0.0), self._material(near)))
        return surfaces

    def object(self) -> list[Surface]:
        """Random card, box, ball or pole in view."""
        rng = self.rng
        depth = self._depth(0.0, 1.0)
        x = rng.uniform(-0.5, 0.5) * self.width * depth / self.fx_px
        y = rng.uniform(-0.5, 0.5) * self.height * depth / self.fx_px
        size = float(np.exp(rng.uniform(np.log(0.05), np.log(0.5)))) * self.width * depth / self.fx_px
        size = min(size, max(depth - self.near_m, 0.02 * depth))  # keeps whole objects beyond the near limit
        material = self._material(depth)
        kind = rng.integers(5)
        if kind == 0:
            return [Sphere((x, y, depth), size / 2, material)]
        if kind == 1:
            return list(box((x, y, depth), tuple(size * rng.uniform(0.4, 0.9, 3)), rng.uniform(0, np.pi), material))
        if kind == 2:
            pole = rng.uniform(2, 14) * depth / self.fx_px
            return [Cylinder((x, y, depth), min(pole, size) / 2, rng.uniform(1, 4) * size, material)]
        return [self._card(x, y, depth, size, material, tilted=kind == 3)]

    def _card(self, x: float, y: float, depth: float, size: float, material: Material, tilted: bool) -> Rectangle:
        width_m, height_m = size * self.rng.uniform(0.3, 1.0, 2)
        if not tilted:
            return _facing(x, y, depth, width_m, height_m, material)
        yaw, pitch, roll = self.rng.uniform(-1.1, 1.1), self.rng.uniform(-1.1, 1.1), self.rng.uniform(-np.pi, np.pi)
        turn = cv2.Rodrigues(np.array([0, yaw, 0.0]))[0] @ cv2.Rodrigues(np.array([pitch, 0, 0.0]))[0]
        turn = turn @ cv2.Rodrigues(np.array([0, 0, roll]))[0]
        right, down = turn[:, 0] * width_m / 2, turn[:, 1] * height_m / 2
        return Rectangle((x, y, depth), tuple(right.tolist()), tuple(down.tolist()), material)

    def _depth(self, low: float, high: float) -> float:
        """Random depth, uniform in inverse depth, between shares 0 (far) and 1 (near) of the range."""
        share = self.rng.uniform(low, high)
        return 1.0 / (1.0 / self.far_m + share * (1.0 / self.near_m - 1.0 / self.far_m))

    def _material(self, depth: float, coarser: float = 1.0) -> Material:
        from_photo = bool(self.photos) and self.rng.random() < 0.5
        texture = (
            self.photos[int(self.rng.integers(len(self.photos)))] if from_photo else textures.random_texture(self.rng)
        )
        texels_per_pixel = self.rng.uniform(0.4, 1.5) / coarser
        return Material(texture, texture.shape[1] * depth / self.fx_px / texels_per_pixel)


def _tileable(photo: Texture) -> Texture:
    """Photo with its mirror images, which tiles without seams."""
    both = np.concatenate([photo, photo[:, ::-1]], axis=1)
    return np.concatenate([both, both[::-1]], axis=0)

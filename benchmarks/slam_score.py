"""Scores of a trajectory and of a map against a room that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dfs_ros.simulation.surfaces import Cylinder, Rectangle, Sphere, Surface
from dfs_ros.transforms.rigid import Transform

Array = NDArray[np.float64]


@dataclass
class Mapped:
    """Places of the body by stamp, by odometry and as the map has them; stamps where it was lost; map in its frame."""

    odometry: dict[int, Transform] = field(default_factory=dict)
    path: dict[int, Transform] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    points: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    colours: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 3), np.uint8))


def trajectory_error_m(found: Mapping[int, Transform], true: Mapping[int, Transform]) -> float:
    """Root mean square distance of places with equal stamps, after the rigid motion that brings them closest.

    The absolute trajectory error of Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", 2012: the
    scale is not adapted. Raises ValueError for fewer than three common stamps.
    """
    stamps = sorted(found.keys() & true.keys())
    if len(stamps) < 3:
        raise ValueError(f"trajectory: expected three stamps or more of both, received {len(stamps)}")
    a = np.array([found[stamp].translation_m for stamp in stamps])
    b = np.array([true[stamp].translation_m for stamp in stamps])
    u, _, vt = np.linalg.svd((b - b.mean(axis=0)).T @ (a - a.mean(axis=0)))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)]) @ vt
    off = (a - a.mean(axis=0)) @ rotation.T - (b - b.mean(axis=0))
    return float(np.sqrt((off**2).sum(axis=1).mean()))


def scale_of(found: Mapping[int, Transform], true: Mapping[int, Transform]) -> float:
    """Ratio of the distances from the first to the last place."""
    first, *_, last = sorted(found.keys() & true.keys())
    ways = [np.linalg.norm(way[last].translation_m - way[first].translation_m) for way in (found, true)]
    return float(ways[0] / ways[1])


def distance_to_surfaces_m(points: Array, surfaces: tuple[Surface, ...]) -> Array:
    """Distance (N,) of points (N, 3) to the nearest surface."""
    return np.asarray(np.min([_distance_m(points, surface) for surface in surfaces], axis=0), np.float64)


def _distance_m(points: Array, surface: Surface) -> Array:
    offset = points - np.asarray(surface.centre)
    if isinstance(surface, Sphere):
        return np.asarray(np.abs(np.linalg.norm(offset, axis=1) - surface.radius_m), np.float64)
    if isinstance(surface, Cylinder):
        radial = np.hypot(offset[:, 0], offset[:, 2]) - surface.radius_m
        above = np.maximum(np.abs(offset[:, 1]) - surface.height_m / 2, 0.0)
        return np.asarray(np.hypot(radial, above), np.float64)
    return _distance_to_rectangle_m(offset, surface)


def _distance_to_rectangle_m(offset: Array, surface: Rectangle) -> Array:
    rest = offset
    for side in (np.asarray(surface.right), np.asarray(surface.down)):
        length = float(np.linalg.norm(side))
        along = offset @ (side / length)
        rest = rest - np.clip(along, -length, length)[:, None] * (side / length)
    return np.asarray(np.linalg.norm(rest, axis=1), np.float64)

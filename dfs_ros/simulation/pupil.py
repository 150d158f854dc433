"""Pupils of real lenses: polygon of aperture blades, spherical aberration.

The polygon has the area of the disk, so that the f-number keeps its meaning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SUPERSAMPLING = 5  # each way


@dataclass(frozen=True)
class Pupil:
    """Shape of the blur of a point out of focus.

    Attributes
    ----------
    blades
        Sides of a regular polygon; 0 is a circle.
    rotation_rad
        Rotation of the polygon.
    aberration
        -1 to 1: light is distributed over the radius r (1 = rim) as ``1 + aberration (2 r^2 - 1)``: a bright rim if
        positive, on the near side of the focus, the reverse on the far side, as of a lens with spherical aberration.
    """

    blades: int = 0
    rotation_rad: float = 0.0
    aberration: float = 0.0

    def __post_init__(self) -> None:
        if self.blades in (1, 2) or self.blades < 0 or not -1.0 <= self.aberration <= 1.0:
            raise ValueError(
                f"pupil: expected blades of 0, or 3 or more, and aberration -1 to 1, received {self.blades} and "
                f"{self.aberration}"
            )


def pupil_psf(diameter_px: float, size: int, pupil: Pupil, near: bool) -> NDArray[np.float64]:
    """Blur kernel (size, size) of a pupil, odd size, sum 1; `diameter_px` is its disk's.

    `near`: the point is nearer than the focus. A point mirrors the aperture there, so the polygon is turned round.
    """
    fine = (np.arange(size * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - size / 2.0
    x, y = np.meshgrid(fine, fine)
    radius = np.hypot(x, y)
    disk_radius = diameter_px / 2.0
    rim = np.full_like(radius, disk_radius)
    if pupil.blades:
        sector = 2.0 * math.pi / pupil.blades
        # Distance of the sides from the centre at the disk's area.
        apothem = disk_radius * math.sqrt(math.pi / (pupil.blades * math.tan(sector / 2.0)))
        angle = np.arctan2(y, x) + pupil.rotation_rad + (math.pi if near else 0.0)
        rim = apothem / np.cos((angle % sector) - sector / 2.0)
    # Soft by one fine pixel, so that small disks change evenly with their diameter.
    inside = np.clip((rim - radius) * _SUPERSAMPLING + 0.5, 0.0, 1.0)
    amount = pupil.aberration if near else -pupil.aberration
    weight = inside * np.maximum(1.0 + amount * (2.0 * np.minimum(radius / rim, 1.0) ** 2 - 1.0), 0.0)
    psf = np.asarray(cv2.resize(weight, (size, size), interpolation=cv2.INTER_AREA), np.float64)
    total = float(psf.sum())
    if total <= 0.0:
        raise ValueError(f"diameter_px: expected over 0, received {diameter_px}")
    return psf / total

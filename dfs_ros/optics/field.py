"""Focal surface and vignetting of a stack's lens; formulas: :mod:`dfs_ros.lens_field`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dfs_ros.types import Camera, FocalStack

Plane = NDArray[np.float32]
Stack = TypeVar("Stack", bound=FocalStack)


def surface_of(camera: Camera, size: tuple[int, int]) -> Plane:
    """Dioptres (H, W) to add to the inverse depths that blur tells, for those of the scene."""
    if camera.field is None:
        return np.zeros(size, np.float32)
    return camera.field.surface(size, camera.cx_px, camera.cy_px)


def surface_ends(camera: Camera, size: tuple[int, int]) -> tuple[float, float]:
    """Least and largest value of :func:`surface_of`."""
    if camera.field is None:
        return 0.0, 0.0
    surface = surface_of(camera, size)
    return float(surface.min()), float(surface.max())


def levelled(stack: Stack) -> Stack:
    """Stack with focus values of the nearest part of the focal surface, instead of the mean over the image.

    The scene of a flat surface with these focus values, which blurs as seen, is nearer than infinity everywhere.
    """
    field = stack.camera.field
    if field is None or field.level_diopters:
        return stack
    level = max(surface_ends(stack.camera, stack.size)[1], 0.0)
    focus = stack.focus_diopters + level
    raised: Any = replace(stack, camera=_at_level(stack.camera, level, stack.focus_diopters), focus_diopters=focus)
    return raised  # type: ignore[no-any-return]


def unlevelled(camera: Camera, focus_diopters: NDArray[np.float64]) -> Camera:
    """Camera of a stack that was levelled, as it was before; `focus_diopters` of the levelled stack."""
    level = 0.0 if camera.field is None else camera.field.level_diopters
    return _at_level(camera, -level, focus_diopters) if level else camera


def _at_level(camera: Camera, raised: float, focus_diopters: NDArray[np.float64]) -> Camera:
    """Camera for focus values raised by so many dioptres, whose blur stays: it has a factor 1 / (1 - f focus)."""
    if camera.field is None:
        return camera
    before = 1.0 - camera.focal_length_m * float(focus_diopters.mean())
    after = before - camera.focal_length_m * raised
    field = replace(camera.field, level_diopters=camera.field.level_diopters + raised)
    return replace(camera, f_number=camera.f_number * before / after, field=field)

"""Frames from images and focus metadata; changes of lens and image size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import StackConfig
from dfs_ros.types import FocusMetadata, Frame, LensState, check_focus

_SAME_LENS = 0.05  # relative; some drivers report a focal length that breathes with the focus
_UNKNOWN = (math.nan, math.nan)


class WaitingImage(NamedTuple):
    """Image that waits for its focus; `original_size_px` as in :class:`~dfs_ros.types.Frame`."""

    pixels: NDArray[np.uint8]
    original_size_px: tuple[int, int]


def paired(stamp_ns: int, image: WaitingImage, focus: FocusMetadata, settings: StackConfig) -> Frame:
    """Make a frame of an image and its focus metadata."""
    numbered = focus.count > 0
    swept = abs(focus.focus_end_diopters - focus.focus_start_diopters)
    moving = focus.lens_state == LensState.MOVING or (
        focus.lens_state == LensState.UNKNOWN and swept > settings.focus_tolerance_diopters
    )

    def known(value: float) -> float:
        return value if 0 < value < math.inf else math.nan

    return Frame(
        image=image.pixels,
        focus_diopters=focus.focus_diopters,
        stamp_ns=stamp_ns,
        sweep_id=focus.sweep_id if numbered else None,
        index=focus.index if numbered else None,
        count=focus.count if numbered else None,
        lens_moving=moving,
        magnification=known(focus.magnification),
        focal_length_m=known(focus.focal_length_m),
        f_number=known(focus.f_number),
        focus_sigma_diopters=focus.focus_sigma_diopters if focus.focus_sigma_diopters >= 0 else math.nan,
        original_size_px=image.original_size_px,
    )


def can_focus(frame: Frame) -> bool:
    """True if the focus is finite, not beyond infinity, and outside the focal length if known."""
    try:
        check_focus(frame.focus_diopters, frame.focal_length_m)
    except ValueError:
        return False
    return True


class Optics:
    """Image size and lens of the frames of one stack."""

    def __init__(self) -> None:
        self._sizes: tuple[tuple[int, ...], ...] | None = None
        self._lens = _UNKNOWN  # first known focal length and f-number: a slow zoom adds up

    def change(self, frame: Frame) -> str:
        """Event that separates a frame from the earlier ones; "" for none."""
        sizes, lens = (frame.image.shape, frame.original_size_px), (frame.focal_length_m, frame.f_number)
        resized = self._sizes not in (None, sizes)
        changed = any(abs(new - old) > _SAME_LENS * old for new, old in zip(lens, self._lens, strict=True))
        before = _UNKNOWN if resized or changed else self._lens
        self._sizes = sizes
        self._lens = (_first_known(before[0], lens[0]), _first_known(before[1], lens[1]))
        return "wrong_size" if resized else "lens_changed" if changed else ""


def _first_known(a: float, b: float) -> float:
    return b if math.isnan(a) else a

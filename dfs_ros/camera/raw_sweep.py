"""Sweeps of a camera's lens over its whole range, in raw positions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfs_ros.camera.lens_camera import LensCamera, steps_of_lens, swept_frames

_TIMEOUT_S = 5.0


class SweptImage(NamedTuple):
    """Image (H, W, 3) or (H, W) of a sweep.

    `raw`: position of the lens, or where it moves to, by the command that was accepted, or first reported, at
    `command_ns`; on the same clock `start_ns`, the start of the exposure. `sweep`: number of the sweep whose image at
    `raw` this is; None of all others, among them those that settle.
    """

    image: NDArray[np.uint8]
    raw: float
    start_ns: int
    command_ns: int
    moving: bool
    sweep: int | None


class RawSweep:
    """Sweep of a camera's lens over `count` positions, each of which settles for `settle_s`.

    `orders(count)`: indices of the rising positions, sweep by sweep, until they repeat.
    """

    def __init__(
        self, camera: LensCamera, settle_s: float, count: int, orders: Callable[[int], Sequence[Sequence[int]]]
    ) -> None:
        self._camera, self._settle_s = camera, settle_s
        low, high, self.step = camera.lens_range
        self.positions = sorted(set(steps_of_lens(np.linspace(low, high, count).tolist(), camera.lens_range)))
        self._orders = orders(len(self.positions))

    def images(self) -> Generator[SweptImage, None, None]:
        """Yield images without end; damaged ones are left out."""
        swept = swept_frames(self._camera, self.positions, self._orders, self._settle_s, _TIMEOUT_S)
        for frame, path, command_ns in swept:
            if path is not None and frame.image is not None:
                raw, number = self.positions[path.position], path.place[0] if path.place else None
                yield SweptImage(frame.image, raw, frame.start_ns, command_ns, path.moving, number)

    def close(self) -> None:
        """Stop, and release the camera."""
        self._camera.close()


def one_way(count: int) -> list[Sequence[int]]:
    """Upwards, each time."""
    return [range(count)]


def both_ways(count: int) -> list[Sequence[int]]:
    """Upwards, and downwards in steps of twice the size.

    >>> both_ways(7)
    [[0, 1, 2, 3, 4, 5, 6, 4, 2]]
    """
    return [[*range(count), *range(count - 3, 0, -2)]]

"""Spectra of the images of a stack, cached for stacks that share frames."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.cost_volume.fourier import half_spectrum
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.optics.srgb import LUMA_WEIGHTS, linear_table

# Half a spectrum as float32, real and imaginary parts alternating along the last axis.
Spectrum = NDArray[np.float32]  # (C, H', 2 (W' // 2 + 1))
Spectra = NDArray[np.float32]  # (F, C, H', 2 (W' // 2 + 1))


MOST_BYTES = 96 << 20  # 24 colour images, or 72 grey ones, of 640 x 480


class Sized(Protocol):
    """An array, or a tensor on a device."""

    @property
    def nbytes(self) -> int:
        """Size in memory."""


Kept = TypeVar("Kept", bound=Sized)


class SpectraCache:
    """Cache of frame spectra by the caller's keys, at most `most_bytes`.

    A key must identify the pixels of one ALIGNED image: a frame aligned to another reference is another image. The key
    need not include size, padding, curve and channels. Thread-safe.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        if most_bytes < 1:
            raise ValueError(f"most_bytes: expected 1 or more, received {most_bytes}")
        self._most_bytes = most_bytes
        self.bytes = 0
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()  # arrays, or tensors on a device
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable, compute: Callable[[], Kept]) -> Kept:
        """Spectrum of `key`, computed if missing."""
        with self._lock:
            if key in self._entries:
                self.hits += 1
                self._entries.move_to_end(key)
                kept: Kept = self._entries[key]
                return kept
        spectrum = compute()
        with self._lock:
            self.misses += 1
            self._forget(key)
            self._entries[key] = spectrum
            self.bytes += spectrum.nbytes
            while self.bytes > self._most_bytes:
                self._forget(next(iter(self._entries)))
        return spectrum

    def clear(self) -> None:
        """Remove all frames."""
        with self._lock:
            self._entries.clear()
            self.bytes = 0

    def _forget(self, key: Hashable) -> None:
        self.bytes -= self._entries.pop(key).nbytes if key in self._entries else 0


def stack_spectra(
    problem: Problem, cache: SpectraCache | None = None, frame_keys: Sequence[Hashable] | None = None
) -> Spectra:
    """Half spectra of the stack, float32 (F, C, H', 2 (W' // 2 + 1))."""
    if cache is None:
        return np.stack([image_spectrum(image, problem) for image in problem.stack.images])
    if frame_keys is None or len(frame_keys) != len(problem.stack):
        received = "none" if frame_keys is None else len(frame_keys)
        raise ValueError(f"frame_keys: expected one for each of the {len(problem.stack)} images, received {received}")
    cost = problem.cost
    prepared = (problem.stack.size, problem.pad_px, cost.transfer_curve, problem.channel_count)
    return np.stack(
        [
            cache.get((key, prepared), functools.partial(image_spectrum, image, problem))
            for key, image in zip(frame_keys, problem.stack.images, strict=True)
        ]
    )


def image_spectrum(image: NDArray[np.uint8], problem: Problem) -> Spectrum:
    """Half spectrum of the linear intensity of one image, with a reflected border."""
    (top, bottom), (left, right) = problem.pad_px
    padded = [
        cv2.copyMakeBorder(plane, top, bottom, left, right, cv2.BORDER_REFLECT) if top or left else plane
        for plane in linear_planes(image, problem.cost.transfer_curve, problem.channel_count)
    ]
    return half_spectrum(np.stack(padded)).view(np.float32)


def linear_planes(image: NDArray[np.uint8], transfer_curve: str, channels: int) -> list[NDArray[np.float32]]:
    """Linear intensity in [0, 1] of an image: `channels` planes, float32 (H, W).

    A single channel of a colour image is its luma.
    """
    if image.ndim == 3 and channels == 1:
        shares = cv2.LUT(image, _luma_table(transfer_curve))
        return [np.asarray(cv2.transform(shares, np.ones((1, 3), np.float32)), np.float32)]
    planes = image[..., None] if image.ndim == 2 else image
    table = linear_table(transfer_curve).astype(np.float32)
    return [table[planes[..., c]] for c in range(planes.shape[-1])]


@functools.cache
def _luma_table(transfer_curve: str) -> NDArray[np.float32]:
    """Share of each colour's values in the luma, (256, 1, 3)."""
    return np.multiply.outer(linear_table(transfer_curve), LUMA_WEIGHTS).astype(np.float32)[:, None]

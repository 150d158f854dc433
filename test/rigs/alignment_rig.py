"""Photos of a flat picture through a known motion, and how far from it an estimate is."""

from __future__ import annotations

import math

import cv2
import numpy as np
from places import DATA
from skimage import data

from dfs_ros.alignment.align import AlignedStack
from dfs_ros.alignment.registration import Motion
from dfs_ros.optics import thin_lens
from dfs_ros.types import Camera, FocalStack

SIZE = (240, 320)
CAMERA = Camera(focal_length_m=0.0068, f_number=1.85, pixel_pitch_m=9e-6)
FOCUS = np.array([2.5, 1.6, 1.0, 0.5, 0.2])
MIDDLE = 2
STACKS = DATA / "stacks"


def to_light(value: np.ndarray) -> np.ndarray:
    value = value / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def to_value(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0.0, 1.0)
    return 255.0 * np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def photograph(
    photo: np.ndarray,
    motion: Motion,
    *,
    blur_px: float = 0.0,
    gain: float = 1.0,
    noise_levels: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """What a camera sees of a flat photo. `motion` leads from the middle of the photo, SIZE large, to the image."""
    light = to_light(photo.astype(np.float32))
    if blur_px > 0:
        light = cv2.filter2D(light, -1, thin_lens.disk_psf(blur_px, 2 * math.ceil(blur_px / 2) + 1))
    # The way back by fixed-point iteration, so that this code shares none of the inverse with the code under test.
    height, width = motion.size
    target_x, target_y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = target_x.copy(), target_y.copy()
    for _ in range(20):
        forward_x, forward_y = forward(motion, x, y)
        x, y = x + target_x - forward_x, y + target_y - forward_y
    x, y = x + (photo.shape[1] - width) / 2, y + (photo.shape[0] - height) / 2
    seen = cv2.remap(
        light * np.float32(gain), np.float32(x), np.float32(y), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    noise = np.random.default_rng(seed).normal(0.0, noise_levels, seen.shape) if noise_levels else 0.0
    return np.rint(np.clip(to_value(seen) + noise, 0.0, 255.0)).astype(np.uint8)


def forward(motion: Motion, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where `motion` takes pixels, from its formula."""
    height, width = motion.size
    unit = max(motion.size) / 2
    u, v = (x - (width - 1) / 2) / unit, (y - (height - 1) / 2) / unit
    stretch = 1.0 + motion.radial * (u * u + v * v)
    a = motion.affine
    return (
        (a[0, 0] * u * stretch + a[0, 1] * v * stretch + a[0, 2]) * unit + (width - 1) / 2,
        (a[1, 0] * u * stretch + a[1, 1] * v * stretch + a[1, 2]) * unit + (height - 1) / 2,
    )


def lens(log_scale: float, *, shift_px: tuple[float, float] = (0, 0), degrees: float = 0, radial: float = 0) -> Motion:
    unit = max(SIZE) / 2
    shift = (shift_px[0] / unit, shift_px[1] / unit)
    return Motion.from_parameters(SIZE, shift, log_scale, math.radians(degrees), radial)


def stack_of(images: list[np.ndarray], focus: np.ndarray = FOCUS, camera: Camera = CAMERA) -> FocalStack:
    return FocalStack(np.stack(images), focus, camera)


def scene(**changes: list) -> FocalStack:
    """A still stack of the coffee photo, sharp at 1 dioptre; `changes` gives each frame its value of that argument."""
    motions = changes.pop("motion", [lens(0.0)] * len(FOCUS))
    blur = changes.pop("blur_px", list(thin_lens.coc_px(1.0, FOCUS, CAMERA) / 2))
    images = []
    for i, motion in enumerate(motions):
        values = {name: value[i] for name, value in changes.items()}
        images.append(photograph(data.coffee(), motion, blur_px=blur[i], seed=i, **values))
    return stack_of(images)


def corner_error_px(found: Motion, reference: Motion, frame: Motion) -> float:
    """Largest error at the corners of the map from reference to frame, both known from the flat photo."""
    height, width = SIZE
    x, y = (c.ravel() for c in np.meshgrid([0.0, (width - 1) / 2, width - 1.0], [0.0, (height - 1) / 2, height - 1.0]))
    on_reference = forward(reference, x, y)
    true = forward(frame, x, y)
    guess = forward(found, *on_reference)
    return float(np.hypot(guess[0] - true[0], guess[1] - true[1]).max())


def errors_px(aligned: AlignedStack, motions: list[Motion]) -> list[float]:
    reference = motions[aligned.kept[aligned.reference]]
    return [corner_error_px(aligned.estimates[i].motion, reference, motions[i]) for i in aligned.kept]

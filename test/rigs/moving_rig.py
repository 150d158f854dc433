"""Focal stack of two textured planes, from a camera that moves sideways within the sweep."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dfs_ros.optics import thin_lens
from dfs_ros.optics.srgb import encode_linear
from dfs_ros.pose import Pose
from dfs_ros.types import Camera, FocalStack

SIZE = (96, 128)
CAMERA = Camera(0.004, 1.0, 0.004 / 300)  # 300 px focal length
FOCUS = np.array([0.3, 0.9, 1.5, 2.1, 2.7])
REFERENCE = 2
FAR_M, NEAR_M = 1.6, 0.55
_REACH = 40  # pixels beyond the image


def truth_m() -> NDArray[np.float64]:
    """Depth (H, W): the near plane covers the lower half."""
    depth = np.full(SIZE, FAR_M)
    depth[SIZE[0] // 2 :] = NEAR_M
    return depth


def moving_stack(speed_m_s: float = 0.2, told: float = 1.0, sigma_m: float = 0.0) -> FocalStack:
    """Five frames at 30 Hz of a camera that moves right; its poses are `told` times as far apart as true."""
    rng = np.random.default_rng(5)
    shape = SIZE[0] + 2 * _REACH, SIZE[1] + 2 * _REACH
    planes = []
    for _ in range(2):
        texture = sum(ndimage.gaussian_filter(rng.standard_normal(shape), s) * s for s in (0.8, 2.0, 5.0))
        planes.append(np.clip(0.45 + 0.2 * np.asarray(texture) / np.std(texture), 0.02, 0.95))
    elapsed_s = (np.arange(len(FOCUS)) - REFERENCE) / 30.0
    images = []
    for focus, time_s in zip(FOCUS, elapsed_s, strict=True):
        seen = []
        for texture, depth_m in zip(planes, (FAR_M, NEAR_M), strict=True):
            shift_px = -speed_m_s * time_s * 300.0 / depth_m
            moved = ndimage.shift(texture, (0.0, shift_px), order=5, mode="reflect")
            diameter = float(thin_lens.coc_px(1.0 / depth_m, focus, CAMERA))
            frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None])
            seen.append(np.fft.ifft2(np.fft.fft2(moved) * thin_lens.disk_transfer(diameter, frequency)).real)
        light = np.where(np.arange(shape[0])[:, None] < shape[0] // 2, *seen)
        light += 0.002 * rng.standard_normal(shape)
        images.append(encode_linear(light[_REACH:-_REACH, _REACH:-_REACH], "srgb"))
    poses = tuple(Pose((float(told * speed_m_s * t), 0.0, 0.0), sigma_m=sigma_m) for t in elapsed_s)
    stamps = np.rint(1e9 * (1.0 + elapsed_s)).astype(np.int64)
    exact = np.ones(len(FOCUS))
    return FocalStack(np.stack(images), FOCUS, CAMERA, stamps, magnification=exact, poses=poses)

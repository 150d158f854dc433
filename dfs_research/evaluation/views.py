"""Renderer of a moving camera with a sweeping lens: parallax, disocclusion, breathing.

The scene is a photo with depth, split into layers as in :mod:`dfs_ros.simulation.render`. For every view each layer is
moved by its own depth, blurred by the lens and composited over the farther ones; behind nearer layers a layer is
extrapolated. With the camera at (X, Y, Z) metres from that of the photo, a layer at inverse depth q is
    scaled about the centre by s = 1 / (1 - Z q), shifted by -f_px (X, Y) q s, at inverse depth q s

A turn about the vertical axis moves the whole image by the homography of a camera in its place; breathing, roll and the
shift of a hand come last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from dfs_research.evaluation.lens_blur import LensBlur
from dfs_ros.simulation.render import (
    HIDDEN_WEIGHT,
    fill_depth_holes,
    layer_knots,
    layer_planes,
    layer_shares,
    reduce_image,
)
from dfs_ros.types import Camera

Image = NDArray[np.float32]

_STEP_PX = 0.5  # of blur and of parallax between neighbouring layers
_MOST_LAYERS = 96
_STILL_PX = 0.02
_BEYOND_RIM_PX = 4  # the softness reaches over the rim of the pupil
_CORNER = 0.8  # distance of a polygon's corner from its centre / diameter


@dataclass(frozen=True)
class View:
    """Pose and focus of one image, relative to the photo.

    `focus_diopters`: true focus, negative beyond infinity; `position_m` of the camera: right, down, forward; `scale`,
    `roll_rad` (clockwise) and `shift_px` (right, down) of the whole image about its centre; `yaw_rad` of the camera, to
    the right.
    """

    focus_diopters: float
    position_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    roll_rad: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    yaw_rad: float = field(default=0.0, repr=False)  # named in caches of light only where it is not zero

    def image_motion(
        self, size: tuple[int, int], oversampling: int = 1, focal_px: float = math.inf
    ) -> NDArray[np.float64]:
        """Homography (3, 3) from the photo's pixels to this image, without parallax."""
        centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
        c, s = self.scale * math.cos(self.roll_rad), self.scale * math.sin(self.roll_rad)
        turn = np.array([[c, -s], [s, c]])
        last = np.column_stack([turn, centre - turn @ centre + oversampling * np.array(self.shift_px)])
        affine = np.vstack([last, [0.0, 0.0, 1.0]])
        if self.yaw_rad == 0.0:
            return affine
        lens = np.array([[focal_px, 0.0, centre[0]], [0.0, focal_px, centre[1]], [0.0, 0.0, 1.0]])
        c, s = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        turned = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
        return np.asarray(affine @ lens @ turned @ np.linalg.inv(lens), np.float64)


def render_views(
    linear: Image,
    depth_m: NDArray[np.floating],
    camera: Camera,
    views: tuple[View, ...],
    blur: LensBlur,
    oversampling: int = 2,
) -> Image:
    """Render linear light (F, H, W, 3) of every view, without noise.

    `linear` float32 (oversampling H, oversampling W, 3) and `depth_m`, 0 or NaN = unknown, are the photo's,
    `oversampling` times finer than the result each way. `camera.pixel_pitch_m` is that of the result's pixels;
    `blur.softness_px` counts pixels of the photo.
    """
    height, width = linear.shape[:2]
    inverse_depth = 1.0 / fill_depth_holes(depth_m)
    focus, position, scale = (
        np.array([getattr(v, n) for v in views]) for n in ("focus_diopters", "position_m", "scale")
    )
    f = camera.focal_length_m
    focal_px = oversampling * f / camera.pixel_pitch_m
    # The images are scaled last; blur is divided by that scale here.
    px_per_diopter = focal_px * f / (camera.f_number * (1.0 - f * focus)) / scale
    reach_px = np.abs(position) @ np.array([focal_px, focal_px, math.hypot(width, height) / 2])
    step_diopters = oversampling * _STEP_PX / max(float(px_per_diopter.max()), float(reach_px.max()))
    knots = layer_knots(inverse_depth, step_diopters, _MOST_LAYERS)
    growth = 1.0 / (1.0 - position[:, 2:] * knots)  # (F, K)
    widest = min(height, width)
    diameters = np.clip(px_per_diopter[:, None] * (focus[:, None] - knots * growth), -widest, widest)
    shifts = -focal_px * position[:, None, :2] * (knots * growth)[..., None]  # (F, K, 2)

    warps = [view.image_motion((height, width), oversampling, focal_px) for view in views]
    margin = _margin(warps, height, width)
    rim = math.ceil(_CORNER * float(np.abs(diameters).max())) + _BEYOND_RIM_PX
    stretch = math.ceil(float(np.abs(growth - 1.0).max()) * math.hypot(width, height) / 2)
    pad = margin + rim + stretch + math.ceil(float(np.abs(shifts).max())) + 1
    border = ((pad, pad), (pad, pad))
    farther, nearer_share = layer_shares(inverse_depth, knots)
    scene = (
        np.pad(linear, (*border, (0, 0)), mode="symmetric"),
        np.pad(farther, border, mode="symmetric"),
        np.pad(nearer_share, border, mode="symmetric"),
    )
    frames = np.zeros((len(views), 3, height + 2 * margin, width + 2 * margin), np.float32)
    for k, knot in enumerate(knots):
        rim = math.ceil(_CORNER * float(np.abs(diameters[:, k]).max())) + _BEYOND_RIM_PX + stretch
        uncovered = math.ceil(float(reach_px.max()) * (knots[-1] - knot))
        layer = _Layer.cut(scene, k, rim, uncovered)
        if layer is None:
            continue
        for i, frame in enumerate(frames):
            layer.lay_over(frame, pad - margin, blur, float(diameters[i, k]), float(growth[i, k]), shifts[i, k])
    return np.stack(
        [
            reduce_image(_warped(frame.transpose(1, 2, 0), warp, margin), oversampling)
            for frame, warp in zip(frames, warps, strict=True)
        ]
    )


@dataclass(frozen=True, eq=False)
class _Layer:
    """Visible part of a layer with a rim for its blur.

    `planes` (5, h, w) as of `layer_planes`.
    """

    planes: Image
    spectrum: NDArray[np.complex64]
    row: int  # of the part in the padded scene
    column: int
    rim: int
    centre: tuple[float, float]  # of the image, (x, y) in the part

    @classmethod
    def cut(cls, scene: tuple[Image, NDArray[np.intp], Image], k: int, rim: int, uncovered: int) -> _Layer | None:
        """Cut layer k, extended by `uncovered` pixels; None if the photo shows nothing of it."""
        linear, farther, nearer_share = scene
        own = (farther == k) | ((farther == k - 1) & (nearer_share > 0))
        rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
        if not rows.size:
            return None
        reach = uncovered + 2 * rim
        top, left = max(0, rows[0] - reach), max(0, columns[0] - reach)
        part = np.s_[top : rows[-1] + reach + 1, left : columns[-1] + reach + 1]
        planes = layer_planes(linear[part], farther[part], nearer_share[part], k)
        shape = planes.shape[1:]
        centre = ((linear.shape[1] - 1) / 2 - left, (linear.shape[0] - 1) / 2 - top)
        return cls(
            planes, _spectrum(planes, _fast(shape)), int(top), int(left), min(rim, *(n // 2 for n in shape)), centre
        )

    def lay_over(
        self,
        frame: Image,
        origin: int,
        blur: LensBlur,
        diameter_px: float,
        growth: float,
        shift_px: NDArray[np.float64],
    ) -> None:
        """Move and blur the layer, and composite it over `frame` (3, H, W).

        The frame begins at (origin, origin) of the scene.
        """
        shape = self.planes.shape[1:]
        spectrum = self.spectrum
        if abs(growth - 1.0) * max(shape) > _STILL_PX:
            spectrum = _spectrum(self._grown(growth), _fast(shape))
        whole = np.rint(shift_px).astype(int)
        rest = (float(shift_px[0] - whole[0]), float(shift_px[1] - whole[1]))
        blurred = fft.irfft2(spectrum * blur.transfer(diameter_px, _fast(shape), rest), _fast(shape))
        top, left = self.row + whole[1] - origin, self.column + whole[0] - origin
        rows = slice(max(0, top + self.rim), min(frame.shape[1], top + shape[0] - self.rim))
        columns = slice(max(0, left + self.rim), min(frame.shape[2], left + shape[1] - self.rim))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        seen = blurred[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        layer = seen[:4] / np.maximum(seen[4], HIDDEN_WEIGHT / 2)
        under = frame[:, rows, columns]
        under *= 1.0 - np.clip(layer[3], 0.0, 1.0)
        under += layer[:3]

    def _grown(self, growth: float) -> Image:
        x, y = self.centre
        matrix = np.array([[growth, 0.0, x - growth * x], [0.0, growth, y - growth * y]])
        size = self.planes.shape[:0:-1]
        return np.stack(
            [
                cv2.warpAffine(p, matrix, size, flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT)
                for p in self.planes
            ]
        )


def _spectrum(planes: Image, shape: tuple[int, int]) -> NDArray[np.complex64]:
    return np.asarray(fft.rfft2(planes, shape), np.complex64)


def _fast(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = (int(fft.next_fast_len(n, real=True)) for n in shape)
    return height, width


def _margin(warps: list[NDArray[np.float64]], height: int, width: int) -> int:
    """Margin in pixels that the warps and their kernel read around the image."""
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)])
    sources = [corners @ np.linalg.inv(warp).T for warp in warps]
    moved = max(float(np.abs(p[:, :2] / p[:, 2:] - corners[:, :2]).max()) for p in sources)
    return math.ceil(moved) + 5 if moved > _STILL_PX else 0


def _warped(frame: Image, warp: NDArray[np.float64], margin: int) -> Image:
    """Warp a frame and crop its margin; clip at 0; do not resample for an identity."""
    height, width = frame.shape[0] - 2 * margin, frame.shape[1] - 2 * margin
    if np.abs(warp - np.eye(3)).max() < 1e-9:
        return np.maximum(frame[margin : margin + height, margin : margin + width], 0.0)
    shifted = warp.copy()
    shifted[:, 2] -= warp[:, :2] @ np.array([margin, margin])
    frame, size = np.ascontiguousarray(frame), (width, height)
    if np.array_equal(warp[2], [0.0, 0.0, 1.0]):
        moved = cv2.warpAffine(frame, shifted[:2], size, flags=cv2.INTER_LANCZOS4)
    else:
        moved = cv2.warpPerspective(frame, shifted, size, flags=cv2.INTER_LANCZOS4)
    return np.maximum(moved, 0.0).astype(np.float32)

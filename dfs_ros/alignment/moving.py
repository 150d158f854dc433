"""Focal stack of a camera that moves within the sweep: images as taken, each with its view of the reference.

A point of the reference at pixel x and inverse depth q lies in frame i, with K the intrinsics, t the position of its
camera in the reference, R the rotation from the reference to it and S its breathing (scale and radial term), at

    x_i = S_i K R_i (1 - t_i n' q) K^-1 x,        n' = (0, 0, 1),        q_i = q / (1 - t_i,z q)

so that frames can be brought to the reference for one inverse depth (a plane), or for that of every pixel. What a frame
does not see is filled from the reference and marked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_ros.alignment.resampling import equalized, resampled
from dfs_ros.optics.field import surface_of
from dfs_ros.optics.pinhole import Intrinsics, intrinsics
from dfs_ros.optics.srgb import LUMA_WEIGHTS, encode_linear, linear_table
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Border = tuple[tuple[int, int], tuple[int, int]]

NO_BORDER: Border = ((0, 0), (0, 0))
PREFILTER = 0.45  # standard deviation in pixels of the reduced image


@dataclass(frozen=True, eq=False)
class View:
    """Camera of a frame beside that of the reference.

    Attributes
    ----------
    position_m
        (3,) of the camera in the reference: right, down, forward.
    rotation
        (3, 3) from axes of the reference to axes of this camera.
    log_scale, radial
        Breathing: ``x' = exp(log_scale) (1 + radial |x|^2) x`` about the image centre, unit half the longer side.
    """

    position_m: Array
    rotation: Array = field(default_factory=lambda: np.eye(3))
    log_scale: float = 0.0
    radial: float = 0.0

    def maps(
        self, lens: Intrinsics, size: tuple[int, int], diopters: ArrayLike, border: Border = NO_BORDER
    ) -> tuple[Image, Image]:
        """Sampling maps x', y' in pixels of this frame, float32 (H, W) with the border.

        `diopters`: inverse depth, one for all pixels or (H, W). `lens`: of the reference; `size`: (height, width).
        """
        (top, bottom), (left, right) = border
        q = np.asarray(diopters, np.float64)
        x = (np.arange(-left, size[1] + right) - lens.cx)[None, :] / lens.fx
        y = (np.arange(-top, size[0] + bottom) - lens.cy)[:, None] / lens.fy
        tx, ty, tz = (float(v) for v in self.position_m)
        ray = x - tx * q, y - ty * q, 1.0 - tz * q
        a, b, c = (row[0] * ray[0] + row[1] * ray[1] + row[2] * ray[2] for row in self.rotation)
        cx, cy, unit = (size[1] - 1) / 2.0, (size[0] - 1) / 2.0, max(size) / 2.0
        u, v = a / c * lens.fx + (lens.cx - cx), b / c * lens.fy + (lens.cy - cy)
        stretch = np.exp(self.log_scale) * (1.0 + self.radial * (u * u + v * v) / unit**2)
        shape = size[0] + top + bottom, size[1] + left + right
        return tuple(  # type: ignore[return-value]
            np.ascontiguousarray(np.broadcast_to(m, shape), np.float32) for m in (u * stretch + cx, v * stretch + cy)
        )


@dataclass(frozen=True, eq=False)
class MovingStack(FocalStack):
    """Stack whose images lie in the reference for one inverse depth only; `source` and `views` serve the others.

    Attributes
    ----------
    images
        As of FocalStack, brought to the reference roughly: for one plane, or for a first depth.
    blur_scale
        Of the images as taken, times ``exp(-log_scale)`` of their view.
    source
        Images as taken, uint8 (F, H, W, 3) or (F, H, W), of this or a larger size.
    gains
        (F,) factor on the linear intensity of each.
    views
        (F,) of them; that of the reference is no motion.
    reference
        Index of the reference.
    """

    source: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    gains: Array = field(default_factory=lambda: np.zeros(0))
    views: tuple[View, ...] = ()
    reference: int = 0

    @property
    def positions_m(self) -> Array:
        """Position (F, 3) of each camera in the reference."""
        return np.stack([view.position_m for view in self.views])

    @property
    def parallax_px_per_diopter(self) -> float:
        """Largest displacement of a pixel by a dioptre in any frame."""
        x, y, z = np.abs(self.positions_m).T
        return float((np.hypot(x * self.lens.fx, y * self.lens.fy) + z * np.hypot(*self.size) / 2.0).max())

    @property
    def lens(self) -> Intrinsics:
        """Intrinsics of the images."""
        return intrinsics(self.camera, self.size)

    def linear(self, transfer_curve: str, channels: int) -> Image:
        """Linear intensity of the images as taken, times their gains, float32 (F, C, H, W)."""
        table = linear_table(transfer_curve).astype(np.float32)
        planes = []
        for image, gain in zip(self.source, self.gains, strict=True):
            light: NDArray[Any] = cv2.LUT(image, table) * np.float32(gain)
            if light.ndim == 3 and channels == 1:
                light = cv2.transform(light, np.array([LUMA_WEIGHTS], np.float32))
            if light.shape[:2] != self.size:
                # An area alone aliases fine texture, which then does not move with the scene.
                sigma_px = PREFILTER * light.shape[1] / self.size[1]
                light = cv2.GaussianBlur(light, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
                light = cv2.resize(light, self.size[::-1], interpolation=cv2.INTER_AREA)
            planes.append(np.moveaxis(np.atleast_3d(light), -1, 0))
        return np.stack(planes)

    def seen(self, linear: Image, diopters: ArrayLike, border: Border = NO_BORDER) -> tuple[Image, Mask]:
        """Frames in the reference for one inverse depth, or that of each pixel (H, W), with the border.

        `linear` (F, C, H, W) of :meth:`linear`. Inverse depths are as blur tells them, without the focal surface.
        Returns float32 (F, C, H', W') and which pixels each frame sees, bool (F, H', W'); the reference's border is
        reflected and counts as not seen by the others.
        """
        (top, _), (left, _) = border
        own = np.stack([_bordered(equalized(plane), border) for plane in linear[self.reference]])
        out = np.empty((len(self), *own.shape), np.float32)
        inside = np.zeros((len(self), *own.shape[1:]), np.bool_)
        height, width = self.size
        diopters = self.of_scene(diopters, border)
        for i, view in enumerate(self.views):
            if i == self.reference:
                out[i] = own
                inside[i, top : top + height, left : left + width] = True
                continue
            map_x, map_y = view.maps(self.lens, self.size, diopters, border)
            inside[i] = (map_x >= -0.5) & (map_x <= width - 0.5) & (map_y >= -0.5) & (map_y <= height - 0.5)
            for plane, fill, target in zip(linear[i], own, out[i], strict=True):
                target[:] = np.where(inside[i], resampled(plane, map_x, map_y), fill)
        return out, inside

    def of_scene(self, diopters: ArrayLike, border: Border = NO_BORDER) -> ArrayLike:
        """Inverse depth of the scene, one or (H', W') with the border, of one that blur tells, one or (H', W')."""
        if self.camera.field is None:
            return diopters
        return np.asarray(diopters) + _bordered(surface_of(self.camera, self.size), border)

    def still(self, diopters: ArrayLike, transfer_curve: str) -> tuple[FocalStack, Mask]:
        """Stack of a camera that stands still, frames brought to the reference by an inverse depth (H, W).

        And which pixels each frame sees, bool (F, H, W).
        """
        linear = self.linear(transfer_curve, 3 if self.source.ndim == 4 else 1)
        seen, inside = self.seen(linear, diopters)
        images = encode_linear(np.moveaxis(seen, 1, -1), transfer_curve)
        plain = {name: getattr(self, name) for name in FocalStack.__dataclass_fields__}
        return FocalStack(
            **{**plain, "images": images.reshape(-1, *self.size, *images.shape[3:][: self._colour])}
        ), inside

    @property
    def _colour(self) -> int:
        return int(self.source.ndim == 4)

    def with_views(self, views: tuple[View, ...]) -> MovingStack:
        """Other views of the same frames."""
        grown = [new.log_scale - old.log_scale for new, old in zip(views, self.views, strict=True)]
        return replace(self, views=views, blur_scale=self.blur_scale * np.exp(-np.array(grown)))

    def seen_diopters(self, diopters: ArrayLike) -> tuple[Array, Array]:
        """Inverse depth (..., F) as each frame sees it, and its enlargement in the reference beyond `blur_scale`."""
        q = np.asarray(diopters, np.float64)
        nearer = 1.0 - self.positions_m[:, 2] * q
        return q / nearer, nearer


def _bordered(plane: Image, border: Border) -> Image:
    (top, bottom), (left, right) = border
    return np.asarray(cv2.copyMakeBorder(plane, top, bottom, left, right, cv2.BORDER_REFLECT), np.float32)

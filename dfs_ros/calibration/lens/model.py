"""Model of a lens that calibration fits: where a point of a board appears, and how it is blurred.

A point at depth z [m] on the ray (x, y, 1) is seen at raw lens position `raw`, normalised to

    e = (raw - centre) / half range - direction hysteresis / 2

with `direction` 1 upwards, -1 downwards, 0 unknown. The image scale is s = 1 + breathing1 e + breathing2 e^2,
distortion that of OpenCV, d = 1 + k1 (x^2 + y^2) + k2 (x^2 + y^2)^2, so that

    u = cx + fx s d x,   v = cy + fx s d y

With X, Y, R in half diagonals of the image from (cx, cy), blur is a disk of diameter c and a Gaussian of variance s2:

    c = aperture fx s (1 - vignetting R^2) |focus0 + focus1 e + focus2 e^2 + curvature R^2 + tilt_x X + tilt_y Y - 1/z|
    s2 = softness + softness_edge R^2

where `aperture` [m] is the diameter of the entrance pupil: the cone of light of a point, cut by the plane in focus.
Spherical aberration takes light from centre to rim, by `side` = aberration on the near side of the focus, -aberration
on the far side (:func:`dfs_ros.optics.thin_lens.disk_transfer`), smoothly where blur is less than a pixel.

What a camera makes of the image, and a printer of the board, is seen beside the lens (see `patches`): `sharpening`, the
gain of an unsharp mask, `tone`, the bend of the curve between black and white, `ink_mm`, by which ink spreads at edges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NAMES = (
    *("log_fx", "cx_px", "cy_px", "k1", "k2", "breathing1", "breathing2"),
    *("focus0", "focus1", "focus2", "hysteresis", "curvature", "tilt_x", "tilt_y"),
    *("log_aperture", "vignetting", "softness_px2", "softness_edge_px2", "aberration"),
    *("sharpening", "tone", "ink_mm"),
)
"""Parameters in the order of vectors: geometry, then focus, then blur of a lens; then camera and print."""

PROCESSING = NAMES[-3:]
"""Parameters of camera and print, which are no part of a lens."""

COLUMNS = 5 + len(PROCESSING)
"""Columns of :func:`predict`."""

LATE = ("aberration", *PROCESSING)
"""Parameters that show where all others are nearly right."""

INDEX = {name: i for i, name in enumerate(NAMES)}
GEOMETRY = tuple(range(INDEX["focus0"]))
_STEPS = np.array([1e-5, 1e-2, 1e-2, 1e-4, 1e-4, 1e-5, 1e-5, *[1e-4] * 7, *[1e-4] * 5, *[1e-4] * 3])
_POSE_STEPS = np.array([1e-5, 1e-5, 1e-5, 1e-6, 1e-6, 1e-6])
_SIDE_PX = 0.3  # blur whose sides hardly differ
_LEAST_OPEN = 0.05  # share of the aperture that a corner of the image keeps


@dataclass(frozen=True)
class RawScale:
    """Normalisation of raw lens positions, from those of the images."""

    centre: float
    half_range: float

    def normalised(self, raw: Array) -> Array:
        """Position in [-1, 1], without hysteresis."""
        return (raw - self.centre) / self.half_range


@dataclass(frozen=True, eq=False)
class Observations:
    """Corners in images, one a row: indices of image and pose, position on the board, raw position and direction."""

    image: NDArray[np.intp]
    pose: NDArray[np.intp]
    board_m: Array  # (N, 2)
    position: Array  # (N,) normalised, without hysteresis
    direction: Array  # (N,) -1, 0, 1

    def __len__(self) -> int:
        return len(self.image)

    def chosen(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Observations:
        """A part of the rows."""
        return Observations(
            self.image[which], self.pose[which], self.board_m[which], self.position[which], self.direction[which]
        )


def predict(lens: Array, poses: Array, seen: Observations, size: tuple[int, int]) -> Array:
    """Columns u, v [px], q = c^2 [px^2], s2 [px^2], side and PROCESSING of all observations, (N, 8).

    Parameters
    ----------
    lens
        (22,), by NAMES.
    poses
        (P, 6): rotation vector and translation [m] from board to camera.
    """
    return _predict(lens, poses[seen.pose], seen, size)


def _predict(lens: Array, poses: Array, seen: Observations, size: tuple[int, int]) -> Array:
    p = dict(zip(NAMES, lens, strict=True))
    point = rotated(poses[:, :3], seen.board_m) + poses[:, 3:]
    z = np.maximum(point[:, 2], 1e-3)
    x, y = point[:, 0] / z, point[:, 1] / z
    e = seen.position - 0.5 * p["hysteresis"] * seen.direction
    scaled = math.exp(p["log_fx"]) * (1.0 + p["breathing1"] * e + p["breathing2"] * e * e)
    r2 = x * x + y * y
    distorted = scaled * (1.0 + p["k1"] * r2 + p["k2"] * r2 * r2)
    dx, dy = distorted * x, distorted * y
    half_diagonal = math.hypot(*size) / 2
    fx, fy = dx / half_diagonal, dy / half_diagonal
    field2 = fx * fx + fy * fy
    focus = p["focus0"] + p["focus1"] * e + p["focus2"] * e * e
    focus = focus + p["curvature"] * field2 + p["tilt_x"] * fx + p["tilt_y"] * fy
    opened = np.maximum(1.0 - p["vignetting"] * field2, _LEAST_OPEN)
    blur = math.exp(p["log_aperture"]) * scaled * opened * (focus - 1.0 / z)
    softness = p["softness_px2"] + p["softness_edge_px2"] * field2
    side = -p["aberration"] * blur / np.sqrt(blur * blur + _SIDE_PX**2)
    processing = (np.full(len(x), p[name]) for name in PROCESSING)
    return np.stack([p["cx_px"] + dx, p["cy_px"] + dy, blur * blur, softness, side, *processing], 1)


def jacobian(lens: Array, poses: Array, seen: Observations, size: tuple[int, int]) -> tuple[Array, Array]:
    """Derivatives of :func:`predict` by the lens, (N, 8, 22), and by each row's own pose, (N, 8, 6)."""
    own = poses[seen.pose]

    def difference(lens_step: Array | float, pose_step: Array | float, step: float) -> Array:
        ahead = _predict(lens + lens_step, own + pose_step, seen, size)
        return (ahead - _predict(lens - lens_step, own - pose_step, seen, size)) / (2 * step)

    by_lens = np.empty((len(seen), COLUMNS, len(NAMES)))
    for i, step in enumerate(_STEPS):
        by_lens[..., i] = difference(step * np.eye(len(NAMES))[i], 0.0, step)
    by_pose = np.empty((len(seen), COLUMNS, 6))
    for i, step in enumerate(_POSE_STEPS):
        by_pose[..., i] = difference(0.0, step * np.eye(6)[i], step)
    return by_lens, by_pose


def depths(poses: Array, seen: Observations) -> Array:
    """Depth z [m] of the observations, (N,)."""
    own = poses[seen.pose]
    return np.asarray(rotated(own[:, :3], seen.board_m)[:, 2] + own[:, 5])


def rotated(rotation: Array, board_m: Array) -> Array:
    """Points (N, 2) of the board's plane turned by rotation vectors (N, 3): (N, 3)."""
    angle = np.sqrt((rotation**2).sum(1) + 1e-24)[:, None]
    axis = rotation / angle
    point = np.concatenate([board_m, np.zeros((len(board_m), 1))], 1)
    cos, sin = np.cos(angle), np.sin(angle)
    along = (axis * point).sum(1, keepdims=True)
    return np.asarray(point * cos + np.cross(axis, point) * sin + axis * along * (1.0 - cos))


def board_at(
    lens: Array, pose: Array, position: float, direction: float, u: Array, v: Array
) -> tuple[Array, Array, Array]:
    """Board coordinates [m] and depth [m] seen at pixels (u, v), for one pose and lens position."""
    p = dict(zip(NAMES, lens, strict=True))
    e = position - 0.5 * p["hysteresis"] * direction
    scaled = math.exp(p["log_fx"]) * (1.0 + p["breathing1"] * e + p["breathing2"] * e * e)
    xd, yd = (u - p["cx_px"]) / scaled, (v - p["cy_px"]) / scaled
    rd2 = xd * xd + yd * yd
    a, b = p["k1"] * rd2, p["k2"] * rd2 * rd2
    t = 1.0 / (1.0 + a + b)  # undistorted over distorted radius: t (1 + a t^2 + b t^4) = 1, by Newton
    for _ in range(3):
        t2 = t * t
        t = t - (t * (1.0 + t2 * (a + b * t2)) - 1.0) / (1.0 + t2 * (3.0 * a + 5.0 * b * t2))
    x, y = xd * t, yd * t
    axes = rotated(np.tile(pose[:3], (2, 1)), np.eye(2))  # the board's x and y in the camera
    normal = np.cross(axes[0], axes[1])
    z = (normal @ pose[3:]) / (normal[0] * x + normal[1] * y + normal[2])
    board_x, board_y = (z * (x * axis[0] + y * axis[1] + axis[2]) - axis @ pose[3:] for axis in axes)
    return board_x, board_y, z

"""Calibration boards as lenses with known properties see them, for the bench of lens calibration.

Independent of the calibration that it judges: the board is rendered at eight times the image's size, blurred at levels
of at most 0.3 px of diameter by the exact transfer function of a disk, and each pixel is interpolated between levels of
diameter and of softness by cubics.

With e = (raw - (raw0 + raw1) / 2) / ((raw1 - raw0) / 2) less half the hysteresis in the direction of travel, and r, x,
y in half diagonals from the principal point, a point at depth z is blurred to the diameter

    c = aperture fx scale(e) (1 - vignetting r^2) |focus(e) + curvature r^2 + tilt_x x + tilt_y y - 1 / z|

with the spherical aberration of :func:`dfs_ros.optics.thin_lens.disk_transfer`, and by a Gaussian of variance
softness_px2 + softness_edge_px2 r^2. `focus` and `scale` are quadratic in e. Ink grows the board's black by ink_mm at
every edge; the camera adds `sharpening` times what a Gaussian of 1 px takes off, and bends light l, from 0 of black to
1 of white, to l + tone l (1 - l).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from dfs_ros.calibration.board import SOFT_CELLS
from dfs_ros.lens.positions import travel_directions
from dfs_ros.optics.srgb import encode_linear
from dfs_ros.optics.thin_lens import disk_transfer

_FINE = 4  # samples per pixel, each way, of twice as many rendered ones
_KEPT = 2  # samples per pixel whose spectrum is kept: pixel and softness hardly pass more than a cycle per pixel
_LEVEL_PX = 0.3
_TABLE = 20000
_PAD_PX = 24  # beyond the part that is kept, so that what wraps around lies outside
_BACKGROUND = 0.3
_UNSHARP_PX = 1.0
_WHITE, _BLACK = 0.75, 0.05  # of paper and ink, in linear intensity

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BenchLens:
    """Lens of the bench, see the head of this module. Focus in dioptres, lengths in metres or pixels as named."""

    size: tuple[int, int]
    raw_range: tuple[float, float]
    focus: tuple[float, float, float]
    fx_px: float
    cx_px: float
    cy_px: float
    aperture_m: float
    breathing: tuple[float, float] = (0.0, 0.0)
    distortion: tuple[float, float] = (0.0, 0.0)
    hysteresis_raw: float = 0.0
    curvature: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    vignetting: float = 0.0
    softness_px2: float = 0.25
    softness_edge_px2: float = 0.0
    noise: float = 0.005
    aberration: float = 0.0
    sharpening: float = 0.0
    tone: float = 0.0
    ink_mm: float = 0.0

    def position(self, raw: float, direction: int = 0) -> float:
        """Normalised lens position e of a raw one, reached upwards (1), downwards (-1) or unknown (0)."""
        low, high = self.raw_range
        return (raw - direction * self.hysteresis_raw / 2 - (low + high) / 2) / ((high - low) / 2)

    def focus_diopters(self, raw: float, direction: int = 0) -> float:
        """Focus on the axis."""
        e = self.position(raw, direction)
        return self.focus[0] + self.focus[1] * e + self.focus[2] * e * e

    def scale(self, raw: float, direction: int = 0) -> float:
        """Image scale by breathing, 1 in the middle of the range."""
        e = self.position(raw, direction)
        return 1.0 + self.breathing[0] * e + self.breathing[1] * e * e


class Flat(Protocol):
    """A flat thing with a picture on it: a board, or a textured plane; see :class:`dfs_ros.calibration.board.Board`."""

    @property
    def size_m(self) -> tuple[float, float]: ...
    @property
    def square_m(self) -> float: ...
    def raster(self, cells_per_m: float, margin_m: float, ink_m: float = 0.0, /) -> NDArray[np.float32]: ...
    def __hash__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class BoardPose:
    """Board in the camera's optical frame: rotation vector and translation of its origin in metres."""

    rotation: Array
    translation_m: Array


@dataclass(frozen=True)
class Shot:
    """One image of a bench: pose, raw position and the direction from which the lens came."""

    pose: int
    raw: float
    direction: int


def board_pose(
    board: Flat, distance_m: float, tilt_deg: tuple[float, float], aside_m: tuple[float, float]
) -> BoardPose:
    """Pose with the board's centre at a distance, tilted about x and y, moved aside."""
    rotation, _ = cv2.Rodrigues(np.radians(np.array([tilt_deg[0], tilt_deg[1], 2.0])))
    height, width = board.size_m
    centre = rotation @ np.array([width / 2, height / 2, 0.0])
    translation = np.array([*aside_m, distance_m]) - centre
    return BoardPose(np.ravel(cv2.Rodrigues(rotation)[0]).astype(np.float64), translation)


def sweeps(poses: int, raws: Sequence[float]) -> list[Shot]:
    """Sweep up and down of each pose. The first image has no direction, those at an end that of the sweep before."""
    travel = [*raws, *reversed(raws)] * poses
    directions = travel_directions(travel)
    return [Shot(i // (2 * len(raws)), *shot) for i, shot in enumerate(zip(travel, directions, strict=True))]


def rendered(
    lens: BenchLens,
    board: Flat,
    poses: Sequence[BoardPose],
    shots: Sequence[Shot],
    seed: int | np.random.Generator = 0,
) -> Iterator[NDArray[np.uint8]]:
    """Images (H, W) of all shots, sRGB; each takes (H, W) normal numbers of the generator that `seed` is or begins."""
    rng = np.random.default_rng(seed)
    for shot in shots:
        light = _light(lens, board, poses[shot.pose], shot)
        paper = (light - _BLACK) / (_WHITE - _BLACK)
        light += lens.tone * (_WHITE - _BLACK) * paper * (1.0 - paper)
        light += lens.noise * rng.standard_normal(light.shape) * np.sqrt(0.25 + light)
        yield encode_linear(light, "srgb")


def plane_maps(lens: BenchLens, pose: BoardPose, shot: Shot, u: Array, v: Array) -> tuple[Array, Array, Array, Array]:
    """Board coordinates x, y, depth z in metres and blur diameter in pixels at the pixels (u, v).

    The diameter is positive on the near side of the focus, negative on the far side.
    """
    board_x, board_y, z = _on_board(lens, pose, shot, u, v)
    scaled = lens.fx_px * lens.scale(shot.raw, shot.direction)
    half_diagonal = np.hypot(*lens.size) / 2
    rx, ry = (u - lens.cx_px) / half_diagonal, (v - lens.cy_px) / half_diagonal
    r2 = rx * rx + ry * ry
    focus = lens.focus_diopters(shot.raw, shot.direction)
    defocus = focus + lens.curvature * r2 + lens.tilt[0] * rx + lens.tilt[1] * ry - 1.0 / z
    blur = lens.aperture_m * scaled * np.maximum(1.0 - lens.vignetting * r2, 0.1) * -defocus
    return board_x, board_y, z, blur


def _on_board(lens: BenchLens, pose: BoardPose, shot: Shot, u: Array, v: Array) -> tuple[Array, Array, Array]:
    """Board coordinates x, y and depth z in metres at the pixels (u, v)."""
    scaled = lens.fx_px * lens.scale(shot.raw, shot.direction)
    x, y = _undistorted((u - lens.cx_px) / scaled, (v - lens.cy_px) / scaled, lens.distortion)
    rotation, _ = cv2.Rodrigues(pose.rotation)
    normal = rotation[:, 2]
    z = normal @ pose.translation_m / (normal[0] * x + normal[1] * y + normal[2])
    z = np.where(z > 0.01, z, 100.0)
    point = x * z - pose.translation_m[0], y * z - pose.translation_m[1], z - pose.translation_m[2]
    board_x, board_y = (sum(point[k] * rotation[k, axis] for k in range(3)) for axis in (0, 1))
    return board_x, board_y, z


def _undistorted(xd: Array, yd: Array, distortion: tuple[float, float]) -> tuple[Array, Array]:
    """Inverse of the distortion d = 1 + k1 r^2 + k2 r^4, by a table over the radius (error under 1e-8)."""
    rd2 = xd * xd + yd * yd
    r = np.linspace(0.0, 1.5 * float(np.sqrt(rd2.max())), _TABLE)
    factor = 1.0 + distortion[0] * r**2 + distortion[1] * r**4
    rising = int(np.argmin(np.diff(r * factor) > 0)) or _TABLE  # beyond, the lens folds back
    inverse = np.interp(rd2, ((r * factor) ** 2)[:rising], (1.0 / factor)[:rising])
    return xd * inverse, yd * inverse


def _light(lens: BenchLens, board: Flat, pose: BoardPose, shot: Shot) -> Array:
    """Linear intensity (H, W) of a shot without noise."""
    light = np.full(lens.size, _BACKGROUND)
    margin = board.square_m / 2
    board_height, board_width = board.size_m

    def on_paper(x: Array, y: Array, beyond: float = 0.0) -> NDArray[np.bool_]:
        reach = margin + beyond
        return (x > -reach) & (x < board_width + reach) & (y > -reach) & (y < board_height + reach)

    height, width = lens.size
    wide, high = (np.arange(-_PAD_PX, count + _PAD_PX, dtype=np.float64) for count in (width, height))
    x, y, z = _on_board(lens, pose, shot, *np.meshgrid(wide, high))
    near = on_paper(x, y, 2.0 * float(z.max()) / lens.fx_px)  # two pixels more: what lies beyond is background
    if not near.any():
        return light
    # The part of the image that the paper is blurred over.
    (top, below), (left, right) = (
        (max(int(seen[0]) - _PAD_PX, 0), min(int(seen[-1]) + 1 + _PAD_PX, count))
        for seen, count in ((high[near.any(1)], height), (wide[near.any(0)], width))
    )
    rows, columns = (2 * scipy.fft.next_fast_len(n // 2 + _PAD_PX + 1) for n in (below - top, right - left))
    px_per_m = lens.fx_px / float(np.median(z[near]))
    texels_per_m = 2.0 ** (math.floor(4 * math.log2(2 * _FINE * px_per_m)) / 4)  # one for all images of a sweep
    texture = _texture(board, texels_per_m, margin, 1e-3 * lens.ink_mm)
    kept = _sharp(lens, texture, pose, shot, (top - _PAD_PX, left - _PAD_PX, rows, columns), (texels_per_m, margin))

    u, v = np.meshgrid(np.arange(left, right, dtype=np.float64), np.arange(top, below, dtype=np.float64))
    x, y, _, blur = plane_maps(lens, pose, shot, u, v)
    half_diagonal = np.hypot(*lens.size) / 2
    r2 = ((u - lens.cx_px) ** 2 + (v - lens.cy_px) ** 2) / half_diagonal**2
    by_v, by_u = (np.gradient(x + 1j * y, axis=axis) for axis in (0, 1))
    texel_px2 = 1.0 / np.maximum(texels_per_m**2 * np.abs((np.conj(by_u) * by_v).imag), 1e-9)
    # The texture and linear interpolation have blurred already.
    soft = lens.softness_px2 + lens.softness_edge_px2 * r2 - (SOFT_CELLS**2 + 1.0 / 6.0) * texel_px2
    seen = on_paper(x, y)
    if not seen.any():
        seen = np.ones_like(seen)
    blur, soft = (np.clip(values, values[seen].min(), values[seen].max()) for values in (blur, soft))
    light[top:below, left:right] = _mixed(kept, (rows, columns), lens, blur, soft)
    return light


def _sharp(
    lens: BenchLens,
    texture: NDArray[np.float32],
    pose: BoardPose,
    shot: Shot,
    window: tuple[int, int, int, int],
    texels: tuple[float, float],
) -> NDArray[np.complex64]:
    """Half spectrum to a cycle per pixel of the sharp image in (top, left, rows, columns).

    `texels`: their number in a metre of the texture, and its margin in metres.
    """
    top, left, rows, columns = window
    texels_per_m, margin = texels
    # Places are smooth: between half pixels they are linear, to 1e-4 px.
    u, v = (first + (np.arange(2 * count) + 0.5) / 2 - 0.5 for first, count in ((left, columns), (top, rows)))
    x, y, _ = _on_board(lens, pose, shot, *np.meshgrid(u, v))
    size = 2 * _FINE * columns, 2 * _FINE * rows
    map_x, map_y = (cv2.resize((texels_per_m * (c + margin) - 0.5).astype(np.float32), size) for c in (x, y))
    sharp = cv2.remap(texture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=_BACKGROUND)
    spectrum = scipy.fft.rfft2(cv2.pyrDown(sharp))[:, : columns + 1]
    return np.asarray(np.concatenate([spectrum[:rows], spectrum[-rows:]]) / np.float32(_FINE**2), np.complex64)


@functools.lru_cache(maxsize=2)
def _texture(board: Flat, texels_per_m: float, margin_m: float, ink_m: float) -> NDArray[np.float32]:
    """Linear intensity of the board with its margin."""
    return (_BLACK + (_WHITE - _BLACK) * board.raster(texels_per_m, margin_m, ink_m)).astype(np.float32)


def _mixed(spectrum: NDArray[np.complex64], size: tuple[int, int], lens: BenchLens, blur: Array, soft: Array) -> Array:
    """Image within a border of _PAD_PX, of which each pixel is mixed from levels of blur and of softness."""
    rows, columns = size
    part = tuple(slice(_PAD_PX, _PAD_PX + count) for count in blur.shape)
    fy = scipy.fft.fftfreq(rows * _KEPT, 1.0 / _KEPT)[:, None]
    fx = scipy.fft.rfftfreq(columns * _KEPT, 1.0 / _KEPT)[None, :]
    rho2 = fx * fx + fy * fy
    half = 0.5 * (1 - 0.5 / _FINE)  # centre of a pixel, from the centre of its first rendered one
    # pyrDown is a binomial filter over five rendered pixels.
    common = np.sinc(fx) * np.sinc(fy) / (np.cos(np.pi / 2 * fx / _FINE) * np.cos(np.pi / 2 * fy / _FINE)) ** 4
    common *= 1.0 + lens.sharpening * (1.0 - np.exp(-2.0 * np.pi**2 * _UNSHARP_PX**2 * rho2))
    light_spectrum = np.asarray(spectrum * (common * np.exp(2j * np.pi * half * (fx + fy))), np.complex64)
    soft_levels = np.linspace(soft.min(), max(soft.max(), soft.min() + 1e-3), 4)
    softened = [np.exp(-2.0 * np.pi**2 * variance * rho2).astype(np.float32) for variance in soft_levels]
    shares = [_weight(soft, soft_levels, k) for k in range(4)]
    first, last = int(np.floor(blur.min() / _LEVEL_PX)), int(np.ceil(blur.max() / _LEVEL_PX))
    levels: Array = _LEVEL_PX * np.arange(first, max(last, first + 3) + 1, dtype=np.float64)
    # Transfer functions are radial: by a table, to 1e-6.
    mirror = np.abs(np.fft.fftfreq(2 * rows, 1 / (2 * rows))).astype(np.intp)
    place = np.sqrt(rho2[: rows + 1]) * (_TABLE / 1.5)
    below = place.astype(np.intp)
    share_above = (place - below).astype(np.float32)
    radii = np.arange(_TABLE + 1) * (1.5 / _TABLE)
    light = np.zeros(blur.shape)
    for i, level in enumerate(levels):
        weight = _weight(blur, levels, i)
        if not weight.any():
            continue
        table = disk_transfer(level, radii, lens.aberration).astype(np.float32)
        blurred = light_spectrum * (table[below] + share_above * np.diff(table)[below])[mirror]
        for share, transfer in zip(shares, softened, strict=True):
            image = scipy.fft.irfft2(_folded(blurred * transfer), (rows, columns))
            light += weight * share * image[part]
    return light


def _folded(spectrum: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
    """Half spectrum of every second sample each way, from the half spectrum of all."""
    rows, columns = spectrum.shape[0] // 2, spectrum.shape[1] - 1
    folded = spectrum[:rows] + spectrum[rows:]
    half = columns // 2 + 1
    mirrored = folded[:, columns - half + 1 :][-np.arange(rows) % rows, ::-1]
    return folded[:, :half] + np.conj(mirrored)


def _weight(value: Array, levels: Array, i: int) -> Array:
    """Weight of level i in the cubic through the four levels about `value`, of four or more rising levels."""
    first = np.clip(np.searchsorted(levels, value) - 2, 0, len(levels) - 4)
    near = (first <= i) & (i < first + 4)
    first, value = first[near], value[near]
    weight = np.ones(len(value))
    for k in range(4):
        other = levels[first + k]
        weight *= np.where(first + k == i, 1.0, (value - other) / np.where(other == levels[i], 1.0, levels[i] - other))
    weights = np.zeros(near.shape)
    weights[near] = weight
    return weights

"""Small windows around corners of a board: rendered sharp, blurred by a model, and compared with the images.

A window's pixels are ``offset + (gain + gain_x x + gain_y y) (M + tone M (1 - M))``, where M is the sharp board, with
its dark parts grown by ink_mm, at its predicted place, shifted, times the transfer functions of a pixel, a disk of
diameter c (q = c^2), a Gaussian of variance s2 and an unsharp mask with a Gaussian of UNSHARP_PX:

    T(pi c rho) exp(-2 pi^2 s2 rho^2) (1 + sharpening (1 - exp(-2 pi^2 UNSHARP_PX^2 rho^2)))
    T(x) = 2 J1(x) / x + side (2 J1(x) / x - 8 J2(x) / x^2)

A disk's transfer is smooth in q also at q = 0, so nothing is singular in focus. Offset and gains are eliminated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.special import j1, jv

from dfs_ros.calibration.board import SOFT_CELLS, Board
from dfs_ros.calibration.lens.model import INDEX, Observations, board_at, predict

WIDEST_BLUR_PX = 16.0
"""Diameter beyond which corners are left out."""

UNSHARP_PX = 1.0
"""Radius of the unsharp mask of a camera: the gain of another radius is answered by softness."""

_FINE = 4  # rendered pixels per pixel, each way: with 2, aliases bias the focus by .03 dioptres
_KEPT = 2  # samples per pixel whose spectrum is kept: pixel and softness hardly pass more than a cycle per pixel
_LEAST_HALF, _MOST_HALF = 4, 10  # of a window, pixels
_HALF_OF_SQUARE = 0.42
_WHITE_MARGIN = 0.3  # of a square: known to be white around the pattern
_CHUNK = 12  # windows at a time, whose spectra fit a cache
_TABLE_STEP = 0.05
_INK_MM = 0.1  # by which a board is grown for its derivative
_LEAST_NOISE = 1.0 / 255.0 / math.sqrt(12.0) / 4.0  # of linear intensity, in shadows of an 8-bit image

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Local:
    """Quadratic model of the misfit of N windows about a prediction of u, v, q, s2, side and what camera and print do.

    `information` (N, 8, 8), `score` (N, 8): half the negative derivative of `cost` (N,), over the variance of the
    noise; `noise` (N,): standard deviation of linear intensity that remains after a fit of place and blur of the window
    alone.
    """

    information: Array
    score: Array
    cost: Array
    noise: Array
    valid: NDArray[np.bool_]


class Patches:
    """Windows of all observations in the images, (H, W) linear intensity, rendered at a first lens and its poses.

    `late`: derivatives by side and by what camera and print do, too; else these are 0.
    """

    def __init__(
        self,
        images: list[NDArray[np.float32]],
        board: Board,
        seen: Observations,
        lens: Array,
        poses: Array,
        late: bool = False,
    ) -> None:
        self._late = late
        self.size = (images[0].shape[0], images[0].shape[1])
        self._board, self._lens, self._poses = board, lens, poses
        place = predict(lens, poses, seen, self.size)
        square_px = _square_px(board, seen, lens, poses)
        self._half = int(np.clip(round(_HALF_OF_SQUARE * float(np.median(square_px))), _LEAST_HALF, _MOST_HALF))
        self._count = scipy.fft.next_fast_len(2 * self._half + 1 + math.ceil(WIDEST_BLUR_PX) + 6, real=True)
        self._count += self._count % 2
        self._fy = scipy.fft.fftfreq(self._count * _KEPT, 1.0 / _KEPT)[:, None].astype(np.float32)
        self._fx = scipy.fft.rfftfreq(self._count * _KEPT, 1.0 / _KEPT)[None, :].astype(np.float32)
        inside = self._inside(place, seen)
        self.seen, place = seen.chosen(inside), place[inside]
        square_px = square_px[inside]
        self._start = place[:, :2]
        centre = np.rint(self._start).astype(int)
        half = self._half
        self._windows = np.stack(
            [
                images[i][y - half : y + half + 1, x - half : x + half + 1]
                for i, (x, y) in zip(self.seen.image, centre, strict=True)
            ]
        ) if len(centre) else np.zeros((0, 2 * half + 1, 2 * half + 1), np.float32)  # fmt: skip
        self._last: tuple[Array, Local] | None = None  # fits look at one place several times
        self._rasters: dict[tuple[int, float], NDArray[np.float32]] = {}
        # The first is that of the board with the ink it has; the second its change by more.
        self._ink_mm = max(float(lens[INDEX["ink_mm"]]), 0.0) if late else 0.0
        self._spectra = np.stack([self._rendered(i, centre[i], square_px[i]) for i in range(len(centre))])

    def local(self, place: Array) -> Local:
        """Compare with the images at a prediction (N, 8) of u, v, q, s2, side and what camera and print do."""
        if self._last is None or not np.array_equal(self._last[0], place):
            self._last = place.copy(), self._all(place)
        return self._last[1]

    def _all(self, place: Array) -> Local:
        parts = [self._chunk(slice(i, i + _CHUNK), place[i : i + _CHUNK]) for i in range(0, len(place), _CHUNK)]
        return Local(*(np.concatenate([getattr(part, name) for part in parts]) for name in Local.__dataclass_fields__))

    def _inside(self, place: Array, seen: Observations) -> NDArray[np.bool_]:
        """Windows within the image whose blur comes from the known board alone."""
        height, width = self.size
        u, v, blur = place[:, 0], place[:, 1], np.sqrt(place[:, 2])
        half = self._half + 1.0
        within = (u > half) & (u < width - 1 - half) & (v > half) & (v < height - 1 - half)
        inside: NDArray[np.bool_] = np.array(within & (blur < WIDEST_BLUR_PX))
        reach = half + blur / 2 + 1.0
        margin = _WHITE_MARGIN * self._board.square_m
        board_height, board_width = self._board.size_m
        for i in np.flatnonzero(inside):
            du, dv = reach[i] * np.array([-1, 1, 1, -1]), reach[i] * np.array([-1, -1, 1, 1])
            pose = self._poses[seen.pose[i]]
            x, y, _ = board_at(self._lens, pose, seen.position[i], seen.direction[i], u[i] + du, v[i] + dv)
            low, high = -margin, margin
            inside[i] = (
                x.min() > low and y.min() > low and x.max() < board_width + high and y.max() < board_height + high
            )
        return inside

    def _rendered(self, i: int, centre: NDArray[np.intp], square_px: float) -> NDArray[np.complex64]:
        """Half spectra of the sharp board around a window, to a cycle per pixel, and its change by 1 mm of ink."""
        # Places on the board are smooth: between half pixels they are linear, to 1e-4 px.
        offset = (np.arange(-1, 2 * self._count + 1) + 0.5) / 2 - 0.5 - self._count // 2
        u, v = np.meshgrid(centre[0] + offset, centre[1] + offset)
        seen = self.seen
        x, y, _ = board_at(self._lens, self._poses[seen.pose[i]], seen.position[i], seen.direction[i], u, v)
        # Texels of 1 to sqrt(2) rendered pixels: smaller ones leave aliases.
        level = math.floor(2 * math.log2(_FINE * square_px / self._board.square_m))
        texels_per_m = 2.0 ** (level / 2)
        margin = self._board.square_m
        step = _FINE // 2
        map_x, map_y = (
            cv2.resize(((c + margin) * texels_per_m - 0.5).astype(np.float32), None, fx=step, fy=step)[
                step:-step, step:-step
            ]
            for c in (x, y)
        )
        found = []
        for ink_mm in (self._ink_mm, self._ink_mm + _INK_MM) if self._late else (0.0,):
            if (level, ink_mm) not in self._rasters:
                self._rasters[level, ink_mm] = self._board.raster(texels_per_m, margin, 1e-3 * ink_mm)
            sharp = cv2.remap(self._rasters[level, ink_mm], map_x, map_y, cv2.INTER_LINEAR, borderValue=1.0)
            spectrum = scipy.fft.rfft2(sharp)[:, : self._count + 1]
            kept = np.concatenate([spectrum[: self._count], spectrum[-self._count :]])
            found.append(np.asarray(kept / _FINE**2, np.complex64))
        if self._late:
            found[1] = (found[1] - found[0]) / np.float32(_INK_MM)
        return np.stack(found) / self._texel_transfer(map_x, map_y)

    def _texel_transfer(self, map_x: NDArray[np.float32], map_y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Transfer of the board's raster and of linear interpolation between its texels."""
        middle = len(map_x) // 2
        across, down = (
            np.array([float(part[middle + i, middle + j] - part[middle - i, middle - j]) for part in (map_x, map_y)])
            * (_FINE / 2.0)
            for i, j in ((0, 1), (1, 0))
        )
        texels = np.linalg.inv(np.stack([across, down], 1))  # in pixels: columns x, y of the board
        u, v = (self._fx * texels[0, k] + self._fy * texels[1, k] for k in (0, 1))
        soft = np.exp(-2.0 * (np.pi * SOFT_CELLS) ** 2 * (u * u + v * v))
        return np.asarray(soft * (np.sinc(u) * np.sinc(v)) ** 2, np.float32)

    def _chunk(self, rows: slice, place: Array) -> Local:
        count, half = self._count, self._half
        fx, fy = self._fx, self._fy
        rho2 = fx * fx + fy * fy
        shift = (place[:, :2] - self._start[rows] - 0.5 * (1 - 1 / _FINE)).astype(np.float32)
        q, s2, side, sharpening, tone, ink_mm = (column.astype(np.float32)[:, None, None] for column in place[:, 2:].T)
        across, down = (
            np.exp(-2j * np.pi * f * place_px - 2.0 * np.pi**2 * s2 * f * f) * np.sinc(f)
            for f, place_px in ((fx, shift[:, :1, None]), (fy, shift[:, 1:, None]))
        )
        optics = np.asarray(across * down, np.complex64)
        drawn = self._spectra[rows]
        sharp = drawn[:, 0] * optics
        argument = (np.pi**2) * q * rho2
        disk, by_argument = _disk(argument, _DISK)
        fine = 1.0 - np.exp(-2.0 * np.pi**2 * UNSHARP_PX**2 * rho2)
        if self._late:
            rim, rim_by_argument = _disk(argument, _RIM)
            disk = disk + side * rim
            by_argument = by_argument + side * rim_by_argument
            spread = drawn[:, 1] * optics
            sharp += (ink_mm - self._ink_mm) * spread
            mask = 1.0 + sharpening * fine
            blurred = sharp * disk
            sharp, model, spread = sharp * mask, blurred * mask, spread * disk * mask
        else:
            model = sharp * disk
        spectra = np.empty((len(place), 8 if self._late else 5, *model.shape[1:]), np.complex64)
        spectra[:, 0] = model
        np.multiply(model, -2j * np.pi * fx, out=spectra[:, 1], casting="same_kind")
        np.multiply(model, -2j * np.pi * fy, out=spectra[:, 2], casting="same_kind")
        np.multiply(sharp, by_argument * (np.pi**2 * rho2), out=spectra[:, 3], casting="same_kind")
        np.multiply(model, -2.0 * np.pi**2 * rho2, out=spectra[:, 4], casting="same_kind")
        if self._late:
            np.multiply(sharp, rim, out=spectra[:, 5], casting="same_kind")
            np.multiply(blurred, fine, out=spectra[:, 6], casting="same_kind")
            spectra[:, 7] = spread
        pixels = scipy.fft.irfft2(_folded(spectra), (count, count))
        middle = slice(count // 2 - half, count // 2 + half + 1)
        pixels = pixels[..., middle, middle].reshape(*spectra.shape[:2], -1).astype(np.float64)
        observed = self._windows[rows].reshape(len(place), -1).astype(np.float64)
        return _compared(observed, _toned(pixels, tone.astype(np.float64)), half)


def _toned(pixels: Array, tone: Array) -> Array:
    """Model and derivatives by all columns (N, 9, K) of light through a curve, from those of light (N, 5 or 8, K)."""
    light = pixels[:, :1]
    bend = light * (1.0 - light)
    toned = pixels * (1.0 + tone * (1.0 - 2.0 * light))
    toned[:, :1] = light + tone * bend
    if pixels.shape[1] == 5:
        return np.concatenate([toned, np.zeros((len(pixels), 4, pixels.shape[2]))], 1)
    return np.concatenate([toned[:, :7], bend, toned[:, 7:]], 1)


def _compared(observed: Array, pixels: Array, half: int) -> Local:
    """Local model of windows (N, K) from the model and its derivatives (N, 9, K)."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, -1) / half
    model = pixels[:, 0]
    nuisance = np.stack([np.ones_like(model), model, x * model, y * model], 1)  # (N, 4, K)
    normal = nuisance @ nuisance.transpose(0, 2, 1)
    normal += 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(4)
    inverse = np.linalg.inv(normal)

    def projected(values: Array) -> Array:
        return np.asarray(values - (values @ nuisance.transpose(0, 2, 1) @ inverse) @ nuisance)

    level = (observed[:, None, :] @ nuisance.transpose(0, 2, 1) @ inverse)[:, 0]
    gain = level[:, 1:2] + level[:, 2:3] * x + level[:, 3:4] * y
    residual = projected(observed[:, None, :])[:, 0]
    derivatives = projected(pixels[:, 1:] * gain[:, None, :])
    information = derivatives @ derivatives.transpose(0, 2, 1)
    score = np.einsum("nik,nk->ni", derivatives, residual)
    rss = (residual**2).sum(1)
    gained = np.einsum("ni,ni->n", score[:, :4], own_step(information, score))
    variance = np.maximum((rss - gained) / (observed.shape[1] - 8), _LEAST_NOISE**2)
    valid = (level[:, 1] > 10.0 * np.sqrt(variance)) & np.isfinite(score).all(1)
    return Local(
        information / variance[:, None, None], score / variance[:, None], rss / variance, np.sqrt(variance), valid
    )


def own_step(information: Array, score: Array) -> Array:
    """Change of place and blur (N, 4) that explains each window alone best; camera and print are common to all."""
    own = information[:, :4, :4]
    ridge = 1e-9 * np.trace(own, axis1=1, axis2=2)[:, None, None] * np.eye(4) + 1e-12 * np.eye(4)
    return np.asarray(np.linalg.solve(own + ridge, score[:, :4, None])[..., 0])


def _folded(spectrum: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Half spectra of every second sample each way, from the half spectra of all."""
    rows, columns = spectrum.shape[-2] // 2, spectrum.shape[-1] - 1
    folded = spectrum[..., :rows, :] + spectrum[..., rows:, :]
    half = columns // 2 + 1
    mirrored = folded[..., columns - half + 1 :][..., -np.arange(rows) % rows, ::-1]
    return np.asarray(folded[..., :half] + np.conj(mirrored))


_Table = tuple[NDArray[np.float32], NDArray[np.float32]]


def _tables() -> tuple[_Table, _Table]:
    """``2 J1(x) / x``, ``2 J1(x) / x - 8 J2(x) / x^2``, each with its derivative by x^2, over x^2 in equal steps."""
    most = (math.pi * (WIDEST_BLUR_PX + 4.0)) ** 2 * 2.0
    x = np.sqrt(np.arange(0.0, most, _TABLE_STEP))
    x[0] = 1e-2
    disk, disk_slope = 2.0 * j1(x) / x, -jv(2, x) / x**2
    rim, rim_slope = disk - 8.0 * jv(2, x) / x**2, disk_slope + 4.0 * jv(3, x) / x**3
    of_disk, of_rim = (np.stack(columns).astype(np.float32) for columns in ((disk, disk_slope), (rim, rim_slope)))
    return (of_disk[0], of_disk[1]), (of_rim[0], of_rim[1])


_DISK, _RIM = _tables()


def _disk(argument: NDArray[np.float32], table: _Table) -> _Table:
    """Values and slopes of a table."""
    place = np.clip(argument / _TABLE_STEP, 0, len(table[0]) - 2)
    low = place.astype(np.int32)
    share = place - low
    values, slopes = (column[low] + share * (column[low + 1] - column[low]) for column in table)
    return values, slopes


def _square_px(board: Board, seen: Observations, lens: Array, poses: Array) -> Array:
    """Side of a square in pixels at each observation, fronto-parallel."""
    from dfs_ros.calibration.lens.model import depths

    return np.asarray(math.exp(lens[INDEX["log_fx"]]) * board.square_m / np.maximum(depths(poses, seen), 1e-3))

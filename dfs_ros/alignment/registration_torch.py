"""Registration on a device: :mod:`.registration` on tensors.

A search of several steps does not wait for the device: steps after convergence change nothing. Its result is one
transfer, a correlation another.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dfs_ros.alignment import registration
from dfs_ros.alignment.filters import OUTLIER, WINDOW_PX
from dfs_ros.alignment.filters_torch import (
    applied,
    area,
    cubic,
    detail,
    difference,
    filtered,
    gaussian,
    grey_of,
    mean,
    narrow,
    reduced,
    resized,
    rounded_up,
    smoothed,
)
from dfs_ros.alignment.registration import Motion, coordinates
from dfs_ros.optics.srgb import linear_table
from dfs_ros.system.transfers import downloaded, uploaded

Image = NDArray[np.float32]
Size = tuple[int, int]
Record = Callable[..., tuple[Tensor, ...]]
"""``record(key, compute, *inputs)`` returns ``compute(*inputs)``, as :class:`.cuda.graphs.CudaGraphs` does."""

POSITIONS = 32.0  # OpenCV interpolates at positions in steps of a 32nd of a pixel


def computed(key: Hashable, compute: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Compute without a recording."""
    return compute(*inputs)


class TorchRegistration:
    """Functions of :mod:`.registration` on one device.

    `upload`: brings images there. `record`: replays repeated computations.
    """

    def __init__(
        self,
        device: torch.device,
        upload: Callable[[NDArray[np.uint8]], Tensor] | None = None,
        record: Record = computed,
    ) -> None:
        self._device, self._record = device, record
        self._upload = upload or functools.partial(uploaded, device=device)
        self._grids: dict[tuple[Size, Size], _Grid] = {}

    def features(self, images: NDArray[np.uint8], longest_px: int, transfer_curve: str) -> list[TorchFeatures]:
        """:class:`.registration.Features` of images uint8 (F, H, W, 3) or (F, H, W)."""
        pyramids = _Pyramids(self._upload(images), longest_px, transfer_curve)
        return [TorchFeatures(pyramids, i) for i in range(len(images))]

    def template(self, features: TorchFeatures) -> TorchTemplate:
        """:class:`.registration.Template`."""
        return TorchTemplate(features, self._grid)

    def correlation(self, moving: TorchFeatures, template: TorchTemplate, motion: Motion, level: int) -> float:
        """:func:`.registration.correlation`."""
        fixed, grid = template.level(level), template.grid(level)

        def compute(plane: Tensor, features: Tensor, state: Tensor, *local: Tensor) -> tuple[Tensor]:
            seen, inside = grid.seen(plane, state, *local)
            features = features * inside
            power = (seen @ seen) * (features @ features)
            enough = (inside.mean() >= registration.MIN_OVERLAP) & (power > 0.0)
            return (torch.where(enough, seen @ features / power.sqrt(), math.nan),)

        inputs = moving.levels[level], fixed.features, *self._uploaded(motion)
        return float(downloaded(self._record(("correlation", grid.shape), compute, *inputs)[0]))

    def shifted(self, moving: TorchFeatures, template: TorchTemplate, motion: Motion, level: int) -> Motion:
        """:func:`.registration.shifted`, of the downloaded level: it is small, and begins a search far away alone."""
        fixed, grid = template.level(level), template.grid(level)
        seen, _ = grid.seen(moving.levels[level], *self._uploaded(motion))
        both = downloaded(torch.stack([fixed.features, seen]).reshape(2, *grid.shape))
        return registration.shifted_by_phase(both[0], both[1], motion)

    def register(
        self,
        moving: TorchFeatures,
        template: TorchTemplate,
        start: Motion,
        expected: Motion,
        levels: range,
        iterations: int,
    ) -> Motion:
        """:func:`.registration.register`."""
        (state,), (toward,) = self._uploaded(start), self._uploaded(expected)
        for level in levels:
            fixed, grid = template.level(level), template.grid(level)

            def compute(
                plane: Tensor, features: Tensor, derivatives: Tensor, state: Tensor, toward: Tensor, grid: _Grid = grid
            ) -> tuple[Tensor]:
                return (_searched(grid, plane, features, derivatives, state, toward, iterations),)

            inputs = moving.levels[level], fixed.features, fixed.derivatives, state, toward
            (state,) = self._record(("register", grid.shape, iterations), compute, *inputs)
        shift_x, shift_y, log_scale, rotation, radial = downloaded(state)[:5].tolist()
        found = Motion.from_parameters(start.size, (shift_x, shift_y), log_scale, rotation, radial)
        return replace(found, perspective=start.perspective)

    def register_local(
        self,
        moving: TorchFeatures,
        template: TorchTemplate,
        motion: Motion,
        level: int,
        iterations: int,
        within: float,
    ) -> Motion:
        """:func:`.registration.register_local`."""
        fixed, grid = template.level(level), template.grid(level)

        def compute(
            plane: Tensor, features: Tensor, derivatives: Tensor, state: Tensor, local: Tensor
        ) -> tuple[Tensor]:
            return (_searched_locally(grid, plane, features, derivatives, state, local, iterations, within),)

        state, *known = self._uploaded(motion)
        local = known[0] if known else torch.zeros((2, *grid.cells), device=self._device)
        inputs = moving.levels[level], fixed.features, fixed.derivatives[:2], state, local
        (found,) = self._record(("local", grid.shape, iterations, within), compute, *inputs)
        return replace(motion, local=np.ascontiguousarray(np.moveaxis(downloaded(found), 0, -1)))

    def _grid(self, size: Size, shape: Size) -> _Grid:
        # Recordings read the memory of these, so they stay.
        if (size, shape) not in self._grids:
            self._grids[size, shape] = _Grid.of(size, shape, self._device)
        return self._grids[size, shape]

    def _uploaded(self, motion: Motion) -> tuple[Tensor, ...]:
        """Shift x and y, log scale, rotation, radial and perspective terms, float64 (7,); local motion, if any.

        The latter (2, rows, columns).
        """
        values = [*motion.affine[:2, 2], motion.log_scale, motion.rotation_rad, motion.radial, *motion.perspective]
        state = uploaded(np.array(values, np.float64), self._device)
        if motion.local is None:
            return (state,)
        return state, uploaded(np.moveaxis(motion.local, -1, 0).astype(np.float32), self._device)


class _Pyramids:
    """Features of all images of a stack, coarse to fine: `levels`, float32 (F, h, w)."""

    def __init__(self, images: Tensor, longest_px: int, transfer_curve: str) -> None:
        self.size = int(images.shape[1]), int(images.shape[2])
        self._grey = grey_of(images)
        table = uploaded(linear_table(transfer_curve).astype(np.float32), images.device)
        linear = table[self._grey.long()]
        planes = [reduced(linear, max(1, math.ceil(max(self.size) / longest_px)))]
        while registration.has_coarser(tuple(planes[0].shape[1:])):
            planes.insert(0, reduced(planes[0], 2))
        noise = registration.NOISE * planes[0].mean(dim=(1, 2), keepdim=True) + 1e-4
        self.levels = [_normalized(plane, noise) for plane in planes]
        self._contrasts: dict[tuple[int, float], list[float]] = {}

    def contrast(self, level: int, blur_px: float) -> list[float]:
        """:meth:`.registration.Features.contrast` of every image."""
        if (level, blur_px) not in self._contrasts:
            height, width = self.levels[level].shape[1:]
            planes = rounded_up(resized(self._grey, (height, width)))
            if blur_px > 0:
                planes = filtered(planes, gaussian, gaussian, blur_px)
            rms = _local_contrast(planes).square().mean(dim=(1, 2)).sqrt()
            self._contrasts[level, blur_px] = downloaded(rms).tolist()
        return self._contrasts[level, blur_px]


class TorchFeatures:
    """:class:`.registration.Features` of one image of a stack."""

    def __init__(self, pyramids: _Pyramids, index: int) -> None:
        self._pyramids, self._index = pyramids, index
        self.size = pyramids.size
        self.levels = [planes[index] for planes in pyramids.levels]

    def level_near(self, longest_px: int) -> int:
        """:meth:`.registration.Features.level_near`."""
        return registration.level_near([tuple(plane.shape) for plane in self.levels], longest_px)

    def contrast(self, level: int, blur_px: float = 0.0) -> float:
        """:meth:`.registration.Features.contrast`; one transfer for all images of the stack."""
        return self._pyramids.contrast(level, blur_px)[self._index]


@dataclass(frozen=True, eq=False)
class _TemplateLevel:
    features: Tensor  # (pixels,)
    derivatives: Tensor  # (parameters, pixels)


class TorchTemplate:
    """:class:`.registration.Template`."""

    def __init__(self, features: TorchFeatures, grid: Callable[[Size, Size], _Grid]) -> None:
        self.features, self._grid = features, grid
        self._levels: dict[int, _TemplateLevel] = {}

    def level(self, index: int) -> _TemplateLevel:
        """Features and derivatives of a level, made at its first use."""
        if index not in self._levels:
            self._levels[index] = self._made(index)
        return self._levels[index]

    def grid(self, index: int) -> _Grid:
        """Pixels of a level."""
        height, width = self.features.levels[index].shape
        return self._grid(self.features.size, (height, width))

    def _made(self, index: int) -> _TemplateLevel:
        plane, grid = self.features.levels[index], self.grid(index)
        x, y = grid.x, grid.y
        slope_x = filtered(plane, smoothed, difference) * (grid.per_px[0] / 8.0)
        slope_y = filtered(plane, difference, smoothed) * (grid.per_px[1] / 8.0)
        outward = slope_x * x + slope_y * y
        columns = (slope_x, slope_y, outward, slope_y * x - slope_x * y, outward * grid.square)
        return _TemplateLevel(plane.flatten(), torch.stack([column.flatten() for column in columns]))


@dataclass(frozen=True, eq=False)
class _Grid:
    """Pixels of a level of `shape`, of images of `size`; x, y and their squares' sum in half longer sides."""

    shape: Size
    per_px: tuple[float, float]  # pixels per half longer side, (x, y)
    x: Tensor  # (1, w)
    y: Tensor  # (h, 1)
    square: Tensor  # (h, w)
    gather_rows: Tensor  # (rows, h): means of cells, smoothed
    gather_columns: Tensor  # (columns, w)
    spread_rows: Tensor  # (h, rows): cubic interpolation between cells
    spread_columns: Tensor  # (w, columns)
    information: Tensor  # (5,) of what is expected
    smallest: float

    @classmethod
    def of(cls, size: Size, shape: Size, device: torch.device) -> _Grid:
        x, y = (uploaded(axis, device) for axis in coordinates(size, shape))
        unit = max(size) / 2.0
        per_px = unit * shape[1] / size[1], unit * shape[0] / size[0]
        cells = registration.local_cells(shape)
        rows, columns = (uploaded(_gathering(n, m), device) for n, m in zip(shape, cells, strict=True))
        tall, wide = (uploaded(cubic(m, n), device) for n, m in zip(shape, cells, strict=True))
        information = uploaded(np.array(registration.EXPECTED_WITHIN) ** -2.0, device)
        smallest = registration.CONVERGED_PX * 2.0 / max(shape)
        return cls(shape, per_px, x, y, x * x + y * y, rows, columns, tall, wide, information, smallest)

    @property
    def cells(self) -> Size:
        """(rows, columns) of local motion."""
        return self.gather_rows.shape[0], self.gather_columns.shape[0]

    def seen(self, plane: Tensor, state: Tensor, local: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Plane in the reference's geometry, zero outside, and which pixels are inside, float32 (pixels,)."""
        (height, width), (per_x, per_y) = self.shape, self.per_px
        shift_x, shift_y, log_scale, rotation, *bent = state.unbind()
        across, down = log_scale.exp() * rotation.cos(), log_scale.exp() * rotation.sin()
        values = across * per_x, down * per_x, shift_x * per_x, across * per_y, down * per_y, shift_y * per_y, *bent
        ax, bx, cx, ay, by, cy, k, bent_x, bent_y = torch.stack(values).float().unbind()
        stretch = 1.0 + k * self.square + (bent_x * self.x + bent_y * self.y)
        map_x = (ax * self.x - bx * self.y) * stretch + (cx + (width - 1) / 2.0)
        map_y = (by * self.x + ay * self.y) * stretch + (cy + (height - 1) / 2.0)
        if local is not None:
            moved = applied(self.spread_rows, local, self.spread_columns)
            map_x, map_y = map_x + moved[0] * per_x, map_y + moved[1] * per_y
        map_x, map_y = ((m * POSITIONS).round() * (1.0 / POSITIONS) for m in (map_x, map_y))
        inside = (map_x >= 0.0) & (map_x <= width - 1.0) & (map_y >= 0.0) & (map_y <= height - 1.0)
        normal = torch.stack([map_x * (2.0 / (width - 1)) - 1.0, map_y * (2.0 / (height - 1)) - 1.0], dim=-1)
        seen = F.grid_sample(plane[None, None], normal[None], mode="bilinear", align_corners=True)
        counts = inside.float().flatten()
        return seen.flatten() * counts, counts


def _searched(
    grid: _Grid, plane: Tensor, features: Tensor, derivatives: Tensor, state: Tensor, toward: Tensor, iterations: int
) -> Tensor:
    """Gauss-Newton steps of one level from `state` (7,), whose perspective terms stay."""
    done = torch.zeros((), dtype=torch.bool, device=state.device)
    for _ in range(iterations):
        residual, weight, variance = _residual(features, *grid.seen(plane, state))
        information = 1.0 / (variance.double() * registration.PIXELS_PER_MEASUREMENT)
        weighted = derivatives * weight
        normal = torch.diag(grid.information) + information * (weighted @ derivatives.T).double()
        pull = grid.information * (state - toward)[:5] + information * (weighted @ residual).double()
        step = torch.linalg.solve_ex(normal, pull[:, None]).result[:, 0]
        log_scale, rotation, radial = (state[2:5] - step[2:]).unbind()
        across, down = log_scale.exp() * rotation.cos(), log_scale.exp() * rotation.sin()
        shift_x = state[0] - (across * step[0] - down * step[1])
        shift_y = state[1] - (down * step[0] + across * step[1])
        moved = torch.stack([shift_x, shift_y, log_scale, rotation, radial, *state[5:].unbind()])
        state = torch.where(done, state, moved)
        done = done | (step.abs().amax() < grid.smallest)
    return state


def _residual(features: Tensor, seen: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Residual and weight (pixels,), and the residual's variance."""
    power = seen @ seen
    gain = torch.where(power > 0.0, seen @ features / power, 0.0).clamp(min=registration.LEAST_GAIN)
    residual = gain * seen - features * inside
    typical = residual.abs().sum() / inside.sum().clamp(min=1.0) + 1e-6
    weight = inside / (1.0 + (residual / (OUTLIER * typical)).square())
    variance = (residual * weight) @ residual / weight.sum().clamp(min=1.0)
    return residual, weight, variance.clamp(min=1e-6)


def _searched_locally(
    grid: _Grid,
    plane: Tensor,
    features: Tensor,
    derivatives: Tensor,
    state: Tensor,
    local: Tensor,
    iterations: int,
    within: float,
) -> Tensor:
    """Lucas-Kanade steps of local motion (2, rows, columns)."""
    gx, gy = derivatives
    hold, cell = 1.0 / within**2, max(grid.shape) / registration.LOCAL_CELLS
    for _ in range(iterations):
        residual, weight, variance = _residual(features, *grid.seen(plane, state, local))
        information = weight * (cell * cell / (variance * registration.PIXELS_PER_MEASUREMENT))
        products = torch.stack([gx * gx, gx * gy, gy * gy, gx * residual, gy * residual]) * information
        gathered = applied(grid.gather_rows, products.reshape(5, *grid.shape), grid.gather_columns)
        xx, xy, yy = gathered[0] + hold, gathered[1], gathered[2] + hold
        rx, ry = gathered[3] + hold * local[0], gathered[4] + hold * local[1]
        local = local - torch.stack([yy * rx - xy * ry, xx * ry - xy * rx]) / (xx * yy - xy * xy)
    return local


def _local_contrast(planes: Tensor) -> Tensor:
    return detail(filtered(planes, narrow, narrow))


def _normalized(planes: Tensor, noise: Tensor) -> Tensor:
    contrast = _local_contrast(planes)
    variance = filtered(contrast.square(), mean, mean, WINDOW_PX)
    return contrast / (variance + noise.square()).sqrt()


def _gathering(size: int, cells: int) -> Image:
    """Means of cells, smoothed over their neighbours."""
    return gaussian(cells, 1.0) @ area(size, cells)

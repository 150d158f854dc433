"""Refinement on a device: :func:`.refinement.fitted`, of all frames at once.

Two transfers for a stack: the range of blur, for which the host makes the disks, and the fits. Steps after convergence
change nothing. Images are blurred by FFT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

from dfs_ros.alignment import filters_torch, refinement
from dfs_ros.alignment.align import AlignedStack
from dfs_ros.alignment.filters import OUTLIER
from dfs_ros.alignment.filters_torch import central, detail, reflected
from dfs_ros.alignment.refinement import MODELS, Fits, FrameFit
from dfs_ros.alignment.registration import PIXELS_PER_MEASUREMENT, coordinates
from dfs_ros.alignment.registration_torch import POSITIONS
from dfs_ros.alignment.resampling_torch import maps_of
from dfs_ros.optics import thin_lens
from dfs_ros.system.transfers import downloaded, uploaded
from dfs_ros.types import FocalStack

Image = NDArray[np.float32]
Size = tuple[int, int]

_COUNT = len(refinement.EXPECTED_WITHIN)


def fitted(
    stack: FocalStack,
    aligned: AlignedStack,
    diopters: Image,
    transfer_curve: str,
    frames: Mapping[int, int],
    step: int,
    upload: Callable[[NDArray[np.uint8]], Tensor],
) -> Fits | None:
    """:func:`.refinement.fitted`; `upload` brings images to the device."""
    images, chosen = upload(stack.images), [aligned.estimates[i] for i in frames.values()]
    device, shape = images.device, (stack.size[0] // step, stack.size[1] // step)
    inner = refinement.reduced_diopters(diopters, shape)
    q = uploaded(inner, device)
    slopes, focus = (
        uploaded(np.asarray(values, np.float32)[:, None, None], device)
        for values in (refinement.coc_slopes(aligned.stack, step), aligned.stack.focus_diopters)
    )
    coc_px = (slopes * (focus - q).abs()).clamp(max=min(shape) / 4.0)
    counts = _beside_no_jump(coc_px, uploaded(refinement.reduced_valid(aligned, shape).astype(np.float32), device))
    number = counts.sum()
    middle = (q * counts).sum() / number
    spread = (((q - middle).square() * counts).sum() / number).sqrt()
    told = downloaded(torch.stack([*coc_px.amin(dim=(1, 2)), *coc_px.amax(dim=(1, 2)), number, middle, spread]))
    (low_px, high_px), (pixels, typical, width) = told[:-3].reshape(2, -1), told[-3:].tolist()
    if pixels < refinement.LEAST_SHARE * counts.numel():
        return None
    light = filters_torch.light(images, shape, transfer_curve)
    blurs = [_Blur.of(float(low_px[k]), float(high_px[k]), coc_px[k]) for k in range(len(coc_px))]
    motions = [e.motion for e in chosen]
    own = light[aligned.kept[aligned.reference]]
    gains = uploaded(np.array([e.gain for e in chosen], np.float32)[:, None, None], device)
    pairs = _Pairs(
        stack.size,
        light[list(frames.values())] * gains,
        torch.stack([detail(blurs[k].applied(own[None])[0]) for k in frames]),
        blurs[aligned.reference],
        counts,
        (q - typical) / (width + 1e-6),
        uploaded(np.array([(m.radial, *m.perspective) for m in motions], np.float32).T[..., None, None], device),
    )
    starts = [
        [*np.array(m.shift_px) / m.unit_px, m.log_scale, m.rotation_rad, 0, 0, 0] for m in (e.motion for e in chosen)
    ]
    found = pairs.fits(uploaded(np.array(starts, np.float64), device))
    maps = [torch.stack(maps_of(m, shape, device)) for m in motions]
    as_found = pairs.misfit(pairs.compared(torch.stack(maps, dim=1))[0])[1]
    values = downloaded(torch.cat([torch.cat(found, dim=1), as_found[:, None]], dim=1))
    models, before = {}, {}
    for i, row in zip(frames.values(), values, strict=True):
        of_models = row[:-1].reshape(len(MODELS), -1)
        models[i] = [
            FrameFit(m[:_COUNT], m[_COUNT:-1].reshape(_COUNT, _COUNT), float(m[-1]), pixels) for m in of_models
        ]
        before[i] = FrameFit(np.zeros(_COUNT), np.zeros((_COUNT, _COUNT)), float(row[-1]), pixels)
    return Fits(models, before, inner, typical, width)


@dataclass(frozen=True, eq=False)
class _Blur:
    """Blur of every pixel by a disk of its own diameter, as :func:`.refinement.blurred`.

    `transfer` (L, H', W' // 2 + 1) of the disks on images with a border of `reach`; `shares` (L, h, w) of each.
    """

    transfer: Tensor
    shares: Tensor
    reach: int
    padded: Size

    @classmethod
    def of(cls, low_px: float, high_px: float, diameter_px: Tensor) -> _Blur:
        levels, device = refinement.disk_levels(low_px, high_px), diameter_px.device
        reach = math.ceil(levels[-1] / 2.0)
        disks = np.stack([thin_lens.disk_psf(float(level), 2 * reach + 1) for level in levels])
        height, width = (next_fast_len(n + 2 * reach, real=True) for n in diameter_px.shape)
        across = F.pad(
            uploaded(disks.astype(np.float32), device), (0, width - 2 * reach - 1, 0, height - 2 * reach - 1)
        )
        transfer = torch.fft.rfft2(across.roll((-reach, -reach), dims=(1, 2))).real
        steps = uploaded(levels.astype(np.float32), device)[:, None, None]
        shares = (1.0 - (diameter_px - steps).abs() / float(levels[1] - levels[0])).clamp(min=0.0)
        return cls(transfer, shares, reach, (height, width))

    def applied(self, planes: Tensor) -> Tensor:
        """Planes (K, h, w) blurred."""
        height, width = planes.shape[1:]
        rows, columns = (
            reflected(torch.arange(-self.reach, n - self.reach, device=planes.device), size)
            for n, size in zip(self.padded, (height, width), strict=True)
        )
        spectra = torch.fft.rfft2(planes[:, rows][:, :, columns])
        blurred = torch.fft.irfft2(spectra[:, None] * self.transfer, s=self.padded)
        here = slice(self.reach, self.reach + height), slice(self.reach, self.reach + width)
        found: Tensor = (blurred[..., here[0], here[1]] * self.shares).sum(dim=1)
        return found


class _Pairs:
    """Reference and frames (K, h, w), blurred alike."""

    def __init__(
        self, size: Size, light: Tensor, fixed: Tensor, blur: _Blur, counts: Tensor, depth: Tensor, bent: Tensor
    ) -> None:
        self._light, self._fixed, self._blur, self._counts, self._bent = light, fixed, blur, counts, bent
        shape, unit = counts.shape, max(size) / 2.0
        self._x, self._y = (uploaded(axis, counts.device) for axis in coordinates(size, (shape[0], shape[1])))
        self._per_px = unit * shape[1] / size[1], unit * shape[0] / size[0]
        x, y = self._x.expand(shape), self._y.expand(shape)
        one, zero = torch.ones_like(depth), torch.zeros_like(depth)
        self._basis_x = torch.stack([one, zero, x, -y, depth, zero, depth * x])
        self._basis_y = torch.stack([zero, one, y, x, zero, depth, depth * y])
        self._held = uploaded(np.asarray(refinement.EXPECTED_WITHIN) ** -2.0, counts.device)

    def fits(self, start: Tensor) -> list[Tensor]:
        """Parameters, information and misfit of every frame, flat (K, 57), by each of MODELS."""
        whole = self._gauss_newton(start, MODELS[-1], refinement.ITERATIONS)
        parameters, information, _ = whole
        found = []
        for free in MODELS[:-1]:
            chosen = self._chosen(free)
            pull = information @ ((1.0 - chosen) * parameters)[..., None]
            best = chosen * (parameters + self._solved(information, chosen, pull[..., 0]))
            found.append(self._gauss_newton(best, free, 1))
        return [torch.cat([p, i.flatten(1), m[:, None]], dim=1) for p, i, m in (*found, whole)]

    def compared(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Residual, and the mean of both images, (K, h, w), of sampling maps (2, K, h, w)."""
        height, width = self._counts.shape
        x, y = ((m * POSITIONS).round() * (1.0 / POSITIONS) for m in maps)
        normal = torch.stack([(2.0 * x + 1.0) / width - 1.0, (2.0 * y + 1.0) / height - 1.0], dim=-1)
        seen = F.grid_sample(
            self._light[:, None], normal, mode="bicubic", padding_mode="reflection", align_corners=False
        )
        moving = detail(self._blur.applied(seen[:, 0]))
        return moving - self._fixed, (moving + self._fixed) * 0.5

    def misfit(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (K, h, w), 0 where pixels do not count, and the mean squared residual (K,), float64."""
        typical = (residual.abs() * self._counts).sum(dim=(1, 2)) / self._counts.sum() + 1e-9
        weight = self._counts / (1.0 + (residual / (OUTLIER * typical[:, None, None])).square())
        squares = (weight * residual.square()).sum(dim=(1, 2)).double()
        return weight, squares / weight.sum(dim=(1, 2)).double() + 1e-14

    def _gauss_newton(
        self, parameters: Tensor, free: tuple[int, ...], iterations: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        chosen = self._chosen(free)
        done = torch.zeros((len(parameters), 1), dtype=torch.bool, device=parameters.device)
        for turn in range(iterations + 1):
            residual, both = self.compared(self._maps(parameters))
            weight, misfit = self.misfit(residual)
            slope_x, slope_y = (
                central(both, axis)[:, None] * (0.5 * per) for axis, per in zip((2, 1), self._per_px, strict=True)
            )
            derivatives = slope_x * self._basis_x + slope_y * self._basis_y
            flat = derivatives.flatten(2)  # (K, 7, pixels)
            scaled = flat * (weight.flatten(1) / (misfit[:, None].float() * PIXELS_PER_MEASUREMENT))[:, None]
            information = (scaled @ flat.transpose(1, 2)).double() + torch.diag(self._held)
            if turn == iterations:
                break
            pull = (scaled @ residual.flatten(1)[..., None])[..., 0].double()
            step = self._solved(information, chosen, pull)
            parameters = torch.where(done, parameters, parameters - step)
            done = done | (step.abs().amax(dim=1, keepdim=True) * max(self._per_px) < refinement.CONVERGED_PX)
        return parameters, information, misfit

    def _maps(self, parameters: Tensor) -> Tensor:
        """Sampling maps (2, K, h, w) of parameters (K, 7)."""
        (height, width), (per_x, per_y) = self._counts.shape, self._per_px
        scale, rotation = parameters[:, 2].exp(), parameters[:, 3]
        values = torch.stack([scale * rotation.cos(), scale * rotation.sin(), parameters[:, 0], parameters[:, 1]])
        c, s, shift_x, shift_y = values.float()[..., None, None]
        radial, bent_x, bent_y = self._bent
        stretch = 1.0 + radial * (self._x.square() + self._y.square()) + (bent_x * self._x + bent_y * self._y)
        parallax = parameters[:, 4:].float()
        local_x, local_y = (torch.tensordot(parallax, basis[4:], dims=1) for basis in (self._basis_x, self._basis_y))
        map_x = ((c * self._x - s * self._y) * stretch + shift_x + local_x) * per_x + (width - 1) / 2.0
        map_y = ((s * self._x + c * self._y) * stretch + shift_y + local_y) * per_y + (height - 1) / 2.0
        return torch.stack([map_x, map_y])

    def _chosen(self, free: tuple[int, ...]) -> Tensor:
        return uploaded(np.isin(np.arange(_COUNT), free).astype(np.float64), self._held.device)

    def _solved(self, information: Tensor, chosen: Tensor, right: Tensor) -> Tensor:
        """Solution (K, 7) for the chosen parameters, 0 for the others."""
        inside = information * chosen[:, None] * chosen + torch.diag(1.0 - chosen)
        found: Tensor = torch.linalg.solve_ex(inside, (right * chosen)[..., None]).result[..., 0]
        return found


def _beside_no_jump(coc_px: Tensor, valid: Tensor) -> Tensor:
    """:func:`.refinement.beside_no_jump`, float32 (h, w)."""
    near, window = refinement.NEAR_PX, 2 * refinement.NEAR_PX + 1
    whole = -F.max_pool2d(-F.pad(valid[None], (near, near, near, near)), window, stride=1)[0]
    planes = coc_px[:, None]
    range_px = F.max_pool2d(planes, window, 1, near) + F.max_pool2d(-planes, window, 1, near)
    return whole * (range_px < refinement.JUMP_PX).all(dim=0)[0]

"""Cost volume by kernels and FFTs, in blocks of hypotheses. Formulas: ../reference.py.

    linear_planes      uint8 -> linear intensity, with a reflected border
    FFT                spectra of the images; kept between stacks that share frames
    for every block of hypotheses:
      table_transfer                     transfer functions, where they are not radial
      residual_pairs | wiener_pairs      residual or deblurred spectra, two real images in one complex FFT
      inverse FFT
      energy_rows, residual_columns      squares over images and colours, window, over noise gain, epilogue
      | mean_rows, mean_columns, variance_rows, variance_columns
    scale_over_depth                     for the bounded volumes
    moved_pairs, seen_rows, seen_columns in place of those of `residual`, for a camera that moves (moving.py)

This code does not depend on whether the kernels run on a GPU: tensors, FFTs and memory are torch's, on any device.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dfs_ros.cost_volume.bounding import BOUND_C_MAX, BOUND_F1
from dfs_ros.cost_volume.cuda.driver import Kernels
from dfs_ros.cost_volume.cuda.graphs import CudaGraphs
from dfs_ros.cost_volume.cuda.job import THREADS, Job, blocks, columns_grid, rows_grid, with_arrays
from dfs_ros.cost_volume.cuda.tables import RADIAL_ENTRIES_PER_UNIT, make_tables
from dfs_ros.cost_volume.energy import COST_FLOOR
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.cost_volume.spectra import SpectraCache
from dfs_ros.system.memory import is_out_of_memory
from dfs_ros.system.transfers import uploaded

OUTPUTS = ("cost", "log_energy", "bounded")
DTYPES = (torch.float32, torch.float16)

Result = TypeVar("Result")

_SPECTRUM_THREADS = 128  # transfer functions of up to 64 images times this many floats fit in 48 kB of shared memory
_OCTANT = 136
_BLOCK_BYTES_BEYOND_L2 = 64 << 20  # if not even one hypothesis fits in the L2 cache
_BLOCK_BYTES_UNKNOWN_L2 = 32 << 20

_log = logging.getLogger(__name__)


class VolumeEngine:
    """Cost volumes of one size, CostConfig and output form, on one device.

    It keeps its tables on the device. One stream at a time; nothing waits for the device.

    Parameters
    ----------
    problem
        Any problem of these sizes; its images and blur diameters are not used.
    output
        `cost`: as :func:`dfs_ros.cost_volume.cost_volume`. `log_energy`: its logarithm, for networks
        (:func:`dfs_ros.cost_volume.energy.log_energy`). `bounded`: as :func:`dfs_ros.cost_volume.bound_and_scale`.
    dtype
        torch.float32 or torch.float16, of the volume; inside it is float32.
    block_bytes
        Memory of the spectra and images of a block of hypotheses; 0 = by the device's L2 cache.
    """

    def __init__(
        self,
        problem: Problem,
        kernels: Kernels,
        device: torch.device,
        *,
        output: str = "cost",
        dtype: torch.dtype = torch.float32,
        block_bytes: int = 0,
    ) -> None:
        if output not in OUTPUTS:
            raise ValueError(f"output: expected one of {', '.join(OUTPUTS)}, received {output!r}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected torch.float32 or torch.float16, received {dtype}")
        if block_bytes < 0:
            raise ValueError(f"block_bytes: expected 0 (from the L2 cache) or more, received {block_bytes}")
        self._kernels, self._device, self._output, self._dtype = kernels, device, output, dtype
        self._residual = problem.cost.method == "residual"
        self._images_shape: tuple[int, ...] = tuple(problem.stack.images.shape)
        self._image_channels = 3 if problem.stack.images.ndim == 4 else 1
        self._channels = problem.channel_count
        self._size, self._padded = problem.stack.size, problem.padded_size
        self._diameters = torch.empty(problem.coc_px.shape, dtype=torch.float32, device=device)
        tables = make_tables(self._padded, problem.cost, self._image_channels, problem.aberration)
        self._tables = {f.name: uploaded(getattr(tables, f.name), device) for f in dataclasses.fields(tables)}
        self._job = self._constant_part(problem)
        self._block = self._depths_in(block_bytes)
        curve = problem.cost.transfer_curve
        self._prepared = (self._images_shape[1:], problem.pad_px, curve, self._channels, str(device))

    def spectra(
        self,
        images: NDArray[np.uint8] | torch.Tensor,
        cache: SpectraCache | None = None,
        frame_keys: Sequence[Hashable] | None = None,
    ) -> torch.Tensor:
        """Half spectra of images, complex64 (F, C, H', W' // 2 + 1).

        `images` (F, H, W[, 3]).

        With a cache, only new images are uploaded and transformed; keys as in
        :func:`dfs_ros.cost_volume.spectra.stack_spectra`.
        """
        if tuple(images.shape) != self._images_shape:
            raise ValueError(f"images: expected shape {self._images_shape}, received {tuple(images.shape)}")
        if cache is None:
            return self._transformed(images)
        if frame_keys is None or len(frame_keys) != len(images):
            received = "none" if frame_keys is None else len(frame_keys)
            raise ValueError(f"frame_keys: expected one for each of the {len(images)} images, received {received}")
        kept = []
        for i, key in enumerate(frame_keys):
            kept.append(cache.get((key, self._prepared), lambda i=i: self._transformed(images[i : i + 1])))  # type: ignore[misc]
        return torch.cat(kept)

    def volume(
        self, spectra: torch.Tensor, coc_px: NDArray[np.float64], graphs: CudaGraphs | None = None
    ) -> torch.Tensor:
        """Volume (D, H, W) on the device for blur diameters (D, F) in pixels.

        With `graphs`, the launches are recorded when sizes repeat, and the next volume then overwrites this one. With
        too little device memory, see :meth:`retried`.
        """
        self.set_blur(coc_px)

        def attempt() -> torch.Tensor:
            if graphs is None:
                return self.compute(spectra)
            return graphs((self, self._block), lambda kept: (self.compute(kept),), spectra)[0]

        return self.retried(attempt)

    def set_blur(self, coc_px: NDArray[np.float64]) -> None:
        """Set the blur diameters (D, F) in pixels, at most `max_coc_px`, of later volumes."""
        if coc_px.shape != tuple(self._diameters.shape):
            raise ValueError(f"coc_px: expected shape {tuple(self._diameters.shape)}, received {coc_px.shape}")
        self._diameters.copy_(uploaded(np.ascontiguousarray(coc_px, np.float32), self._device))

    def moved(
        self, spectra: torch.Tensor, inside: torch.Tensor, coc_px: torch.Tensor, shifts_px: torch.Tensor
    ) -> torch.Tensor:
        """Residual volume (d, H, W) of images moved for each hypothesis, over those that see a pixel.

        `inside` uint8 (F, H', W') of the images before; `coc_px` (d, F) and `shifts_px` (d, F, 2) float32. Formula:
        ../moving.py.
        """
        gains = self._noise_gains(coc_px)
        volume = self._empty(len(coc_px), *self._size)
        for first in range(0, len(coc_px), self._block):
            block = slice(first, min(first + self._block, len(coc_px)))
            depths, shifts = len(coc_px[block]), shifts_px[block]
            images = self._images_of("moved_pairs", spectra, coc_px[block], shifts=shifts)
            rows = self._empty(2 * depths, *self._size)
            arrays = {"pairs": images, "rows": rows, "gains": gains[block], "volume": volume[block]}
            job = self._job_with(depths=depths, shifts=shifts, inside=inside, **arrays)
            self._launch_rows("seen_rows", 2 * depths, job)
            self._launch_columns("seen_columns", depths, 2, job)
        return volume

    def retried(self, attempt: Callable[[], Result]) -> Result:
        """Return the result of `attempt`, which may use :meth:`compute`.

        With too little device memory, blocks of hypotheses are halved, with a warning, and it is repeated; at the end
        torch.cuda.OutOfMemoryError is raised.
        """
        while True:
            try:
                return attempt()
            except RuntimeError as error:
                if not is_out_of_memory(error) or self._block == 1:
                    raise
            # Outside of `except`: the error keeps the allocations alive.
            self._block = (self._block + 1) // 2
            _log.warning("out of device memory: blocks of %d hypotheses from now on", self._block)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    @property
    def radial(self) -> torch.Tensor:
        """Table of the transfer function, see :func:`.tables.radial_cubics`."""
        return self._tables["radial"]

    @property
    def far_cells(self) -> int:
        """First cell of that table for the far side of the focus of an aberrated lens."""
        return len(self.radial) // 2

    @property
    def block(self) -> int:
        """Number of hypotheses computed at once."""
        return self._block

    def _constant_part(self, problem: Problem) -> Job:
        """Fields of the job that are the same for all blocks."""
        cost = problem.cost
        job = Job(frames=len(problem.stack), channels=self._channels, image_channels=self._image_channels)
        (job.height, job.width), (job.padded_height, job.padded_width) = self._size, self._padded
        (job.pad_top, _), (job.pad_left, _) = problem.pad_px
        job.window_radius = len(self._tables["window"]) - 1
        job.taps = self._tables["disks"].shape[-1]
        job.far_cells = self.far_cells if problem.aberration else 0
        job.residual, job.tabulated = self._residual, cost.psf == "table"
        job.mix_channels = cost.method == "released" and self._channels == 3
        job.epilogue = OUTPUTS.index(self._output)
        # Bounded costs are scaled in float32 before they are rounded.
        job.half_output = self._dtype is torch.float16 and self._output != "bounded"
        job.eps, job.table_entries_per_unit, job.log_floor = cost.eps, RADIAL_ENTRIES_PER_UNIT, COST_FLOOR
        job.bound = math.atanh(BOUND_F1) / BOUND_C_MAX
        for name, table in self._tables.items():
            setattr(job, name, table.data_ptr())
        return job

    def _depths_in(self, block_bytes: int) -> int:
        """Hypotheses of a block: as many as fit, in blocks of nearly equal size."""
        depths = len(self._diameters)
        each = 16 * self._pairs * self._padded[0] * self._padded[1]  # complex64 before and after the inverse FFT
        if block_bytes == 0:
            block_bytes = _l2_bytes(self._device) * 3 // 4
            if each > block_bytes:
                block_bytes = _BLOCK_BYTES_BEYOND_L2
        blocks = -(-depths // max(1, block_bytes // each))
        return -(-depths // blocks)

    @property
    def _pairs(self) -> int:
        return (self._images_shape[0] * self._channels + 1) // 2

    def _transformed(self, images: NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
        on_device = (
            uploaded(images, self._device) if isinstance(images, np.ndarray) else images.to(self._device).contiguous()
        )
        if on_device.dtype != torch.uint8:
            raise TypeError(f"images: expected uint8, received {on_device.dtype}")
        planes = self._empty(len(images), self._channels, *self._padded)
        job = self._job_with(images=on_device, planes=planes)
        self._launch("linear_planes", (blocks(self._padded[1]), self._padded[0], len(images)), job)
        spectra: torch.Tensor = torch.fft.rfft2(planes).contiguous()
        return spectra

    def compute(self, spectra: torch.Tensor) -> torch.Tensor:
        """Volume for the current blur; a CUDA graph can record it."""
        depths = len(self._diameters)
        bounded = self._output == "bounded"
        volume = self._empty(depths, *self._size, dtype=torch.float32 if bounded else self._dtype)
        gains = self._noise_gains(self._diameters) if self._residual else None
        for first in range(0, depths, self._block):
            block = slice(first, min(first + self._block, depths))
            if gains is not None:
                self._residual_block(spectra, self._diameters[block], gains[block], volume[block])
            else:
                self._wiener_block(spectra, self._diameters[block], volume[block])
        return self._scaled(volume) if bounded else volume

    def _noise_gains(self, diameters: torch.Tensor) -> torch.Tensor:
        gains = self._empty(len(diameters))
        job = self._job_with(diameters=diameters, gains=gains)
        self._launch("noise_gains", (len(gains), 1, 1), job, shared=_OCTANT)
        return gains

    def _residual_block(
        self, spectra: torch.Tensor, diameters: torch.Tensor, gains: torch.Tensor, volume: torch.Tensor
    ) -> None:
        depths = len(diameters)
        images = self._images_of("residual_pairs", spectra, diameters)
        rows = self._empty(depths, *self._size)
        job = self._job_with(depths=depths, pairs=images, rows=rows, gains=gains, volume=volume)
        self._launch_rows("energy_rows", depths, job)
        self._launch_columns("residual_columns", depths, 1, job)

    def _wiener_block(self, spectra: torch.Tensor, diameters: torch.Tensor, volume: torch.Tensor) -> None:
        depths, planes = len(diameters), len(diameters) * self._channels
        images = self._images_of("wiener_pairs", spectra, diameters)
        rows, mean = self._empty(planes, *self._size), self._empty(planes, *self._size)
        job = self._job_with(depths=depths, pairs=images, rows=rows, mean=mean, volume=volume)
        self._launch_rows("mean_rows", planes, job)
        self._launch_columns("mean_columns", depths, self._channels, job)
        self._launch_rows("variance_rows", planes, job)
        self._launch_columns("variance_columns", depths, self._channels, job)

    def _images_of(
        self, kernel: str, spectra: torch.Tensor, diameters: torch.Tensor, **arrays: torch.Tensor
    ) -> torch.Tensor:
        """Images from a spectral kernel, two real ones in each complex, (d, pairs, H', W')."""
        depths, columns = len(diameters), self._padded[1] // 2 + 1
        pairs = self._empty(depths, self._pairs, *self._padded, dtype=torch.complex64)
        job = self._job_with(depths=depths, spectra=spectra, diameters=diameters, pairs=pairs, **arrays)
        if job.tabulated:
            rows = self._padded[0] // 2 + 1
            quadrants = self._empty(diameters.numel(), rows, columns)
            job.quadrants = quadrants.data_ptr()
            self._launch("table_transfer", (blocks(columns), rows, diameters.numel()), job, shared=job.taps)
        bins = self._padded[0] * columns
        self._launch(
            kernel,
            (blocks(bins, _SPECTRUM_THREADS), depths, 1),
            job,
            threads=_SPECTRUM_THREADS,
            shared=0 if kernel == "wiener_pairs" else job.frames * _SPECTRUM_THREADS,
        )
        images: torch.Tensor = torch.fft.ifft2(pairs, norm="forward").contiguous()
        return images

    def _scaled(self, bounded: torch.Tensor) -> torch.Tensor:
        volume = torch.empty_like(bounded, dtype=self._dtype)
        job = self._job_with(depths=len(bounded), rows=bounded, volume=volume)
        job.half_output = self._dtype is torch.float16
        self._launch("scale_over_depth", (blocks(bounded[0].numel()), 1, 1), job)
        return volume

    def _job_with(self, depths: int = 0, **arrays: torch.Tensor) -> Job:
        return with_arrays(self._job, depths, **arrays)

    def _launch_rows(self, kernel: str, planes: int, job: Job) -> None:
        grid, shared = rows_grid(self._size, planes, job.window_radius)
        self._launch(kernel, grid, job, shared=shared)

    def _launch_columns(self, kernel: str, depths: int, planes: int, job: Job) -> None:
        grid, shared = columns_grid(self._size, depths, planes, job.window_radius)
        self._launch(kernel, grid, job, shared=shared)

    def _launch(
        self, kernel: str, grid: tuple[int, int, int], job: Job, *, threads: int = THREADS, shared: int = 0
    ) -> None:
        """`shared` in floats."""
        self._kernels.launch(kernel, grid, threads, 4 * shared, job)

    def _empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self._device)


def _l2_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return _BLOCK_BYTES_UNKNOWN_L2
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", _BLOCK_BYTES_UNKNOWN_L2))

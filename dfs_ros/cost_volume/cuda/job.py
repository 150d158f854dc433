"""Arguments and grids of the kernels."""

from __future__ import annotations

import ctypes

import torch

THREADS = 256
TILE = 32


class Job(ctypes.Structure):
    """`Job` of elements.cuh, field by field."""

    _fields_ = [
        ("frames", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("image_channels", ctypes.c_int),
        ("depths", ctypes.c_int),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("padded_height", ctypes.c_int),
        ("padded_width", ctypes.c_int),
        ("pad_top", ctypes.c_int),
        ("pad_left", ctypes.c_int),
        ("window_radius", ctypes.c_int),
        ("taps", ctypes.c_int),
        ("residual", ctypes.c_int),
        ("tabulated", ctypes.c_int),
        ("mix_channels", ctypes.c_int),
        ("epilogue", ctypes.c_int),
        ("half_output", ctypes.c_int),
        ("far_cells", ctypes.c_int),
        ("eps", ctypes.c_float),
        ("table_entries_per_unit", ctypes.c_float),
        ("bound", ctypes.c_float),
        ("log_floor", ctypes.c_float),
        ("smoothness", ctypes.c_float),
        ("edge_contrast", ctypes.c_float),
        ("sigma_scale", ctypes.c_float),
        ("images", ctypes.c_void_p),
        ("linear", ctypes.c_void_p),
        ("planes", ctypes.c_void_p),
        ("spectra", ctypes.c_void_p),
        ("diameters", ctypes.c_void_p),
        ("radial", ctypes.c_void_p),
        ("disks", ctypes.c_void_p),
        ("row_cosines", ctypes.c_void_p),
        ("column_cosines", ctypes.c_void_p),
        ("quadrants", ctypes.c_void_p),
        ("row_laplacian", ctypes.c_void_p),
        ("column_laplacian", ctypes.c_void_p),
        ("window", ctypes.c_void_p),
        ("mixing", ctypes.c_void_p),
        ("gains", ctypes.c_void_p),
        ("pairs", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("mean", ctypes.c_void_p),
        ("volume", ctypes.c_void_p),
        ("costs", ctypes.c_void_p),
        ("guide", ctypes.c_void_p),
        ("guide_mean", ctypes.c_void_p),
        ("guide_scale", ctypes.c_void_p),
        ("levels", ctypes.c_void_p),
        ("level_steps", ctypes.c_void_p),
        ("shifts", ctypes.c_void_p),
        ("inside", ctypes.c_void_p),
    ]


def with_arrays(job: Job, depths: int, **arrays: torch.Tensor) -> Job:
    """Copy a job, set its depth count and tensor addresses.

    The tensors must outlive the copy.
    """
    job = Job.from_buffer_copy(job)
    job.depths = depths
    for name, array in arrays.items():
        setattr(job, name, array.data_ptr())
    return job


def blocks(count: int, threads: int = THREADS) -> int:
    """Blocks of so many threads that `count` of them need."""
    return -(-count // threads)


def rows_grid(size: tuple[int, int], planes: int, window_radius: int) -> tuple[tuple[int, int, int], int]:
    """Grid, and shared floats, of a kernel that windows rows of (planes, height, width)."""
    return (blocks(size[1]), size[0], planes), THREADS + 2 * window_radius


def columns_grid(
    size: tuple[int, int], depths: int, planes: int, window_radius: int
) -> tuple[tuple[int, int, int], int]:
    """Grid and shared floats of a kernel that windows columns."""
    shared = TILE * (TILE + 2 * window_radius) + planes * TILE * TILE
    return (blocks(size[1], TILE), blocks(size[0], TILE), depths), shared

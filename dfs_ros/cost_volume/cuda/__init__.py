"""Cost volumes on NVIDIA GPUs: uint8 frames in, device volume out.

    kernels.cu, *.cuh              everything but the FFTs, in CUDA C++
    build.py, driver.py, job.py    compiled at first use or ahead, launched by cuda-bindings: no torch headers
    tables.py, volume.py           lookup tables of the kernels, and their order
    engines.py                     engines of one owner, one for each size
    sharp.py                       all-in-focus image

Importing this package needs no CUDA; torch is imported for the first volume.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from dfs_ros.cost_volume.cuda.build import CudaUnavailable
from dfs_ros.cost_volume.cuda.driver import cuda_kernels, why_not
from dfs_ros.cost_volume.cuda.graphs import CudaGraphs
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.cost_volume.spectra import SpectraCache

if TYPE_CHECKING:
    import torch

    from dfs_ros.cost_volume.cuda.engines import Engines

__all__ = ["CudaUnavailable", "cost_volume", "cuda_kernels", "why_not"]

_graphs = CudaGraphs()
_lock = threading.Lock()


def cost_volume(
    problem: Problem,
    device: str | torch.device = "cuda",
    *,
    images: torch.Tensor | None = None,
    output: str = "cost",
    dtype: torch.dtype | None = None,
    spectra_cache: SpectraCache | None = None,
    frame_keys: Sequence[Hashable] | None = None,
    block_bytes: int = 0,
    graph: bool = False,
) -> torch.Tensor:
    """Cost volume (D, H, W) on the device; does not wait for it.

    Parameters
    ----------
    device
        `cuda`, or one of several as `cuda:1`.
    images
        uint8, the stack's images in its shape, already on the device; the stack's own are then not read.
    output, dtype, block_bytes
        As in :class:`dfs_ros.cost_volume.cuda.volume.VolumeEngine`: `cost`, `log_energy` or `bounded`; torch.float32
        (the default) or torch.float16.
    graph
        Record the launches when sizes repeat, and replay them from then on. The next volume of the same sizes then
        overwrites this one.
    spectra_cache, frame_keys
        As in :func:`dfs_ros.cost_volume.cost_volume_from_config`. Used on one stream.

    Raises
    ------
    CudaUnavailable
        Without a CUDA device, or if the kernels cannot be compiled for it.
    torch.cuda.OutOfMemoryError
        If not even a single hypothesis fits into the device's memory.
    """
    cause = why_not()
    if cause is not None:
        raise CudaUnavailable(f"device {device}: CUDA cannot be used: {cause}; use the device cpu or auto")
    import torch

    device = torch.device(device)
    if device.type != "cuda":
        raise ValueError(f"device: expected cuda or cuda:N, received {device}")
    device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    # An engine holds the blur of one volume at a time.
    with torch.cuda.device(device), torch.inference_mode(), _lock:
        engine = _engines_of(device).of(problem, output, dtype or torch.float32, block_bytes)
        spectra = engine.spectra(problem.stack.images if images is None else images, spectra_cache, frame_keys)
        return engine.volume(spectra, problem.coc_px, _graphs if graph else None)


@functools.cache
def _engines_of(device: torch.device) -> Engines:
    from dfs_ros.cost_volume.cuda.engines import Engines

    return Engines(cuda_kernels(device.index), device)

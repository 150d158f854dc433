"""Device memory of depth estimation, counted without a device.

The code of the GPU runs on torch's device `meta`, which has shapes but no data, and every live tensor is counted. On a
GPU, rounding and reserve of torch's allocator, machine code and libraries come on top.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dfs_ros.alignment.align import aligned_as_is
from dfs_ros.config import Config
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.estimator.gpu import GpuSteps
from dfs_ros.pipeline import infer

_META = torch.device("meta")


class NoKernels:
    """Replacement of the kernels that launches nothing."""

    def launch(
        self, name: str, grid: tuple[int, int, int], threads: int, shared_bytes: int, job: ctypes.Structure
    ) -> None:
        """Do nothing."""


class MemoryCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of the bytes in a device's tensors: `now` and at `most`.

    An FFT is counted with a workspace as large as its input, as cuFFT needs for two dimensions.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._known: set[int] = set()
        self.now: int = 0
        self.most: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device == self._device:
                self._add(tensor.untyped_storage())
        workspace = args[0].nbytes if "fft" in str(func) and isinstance(args[0], torch.Tensor) else 0
        self.most = max(self.most, self.now + workspace)
        return result

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def planned_volume_bytes(problem: Problem, output: str = "cost") -> int:
    """Peak bytes on the device for a volume, from frames on the device.

    Tables, frames and volume are included.
    """
    kernels = NoKernels()
    with torch.inference_mode(), MemoryCount(_META) as count:
        images = torch.empty(problem.stack.images.shape, dtype=torch.uint8, device=_META)
        engine = Engines(kernels, _META).of(problem, output)
        volume = engine.volume(engine.spectra(images), problem.coc_px)
        del volume, images
    return int(count.most)


def planned_depth_bytes(problem: Problem, config: Config | None = None) -> int:
    """Peak bytes on the device from frames to depth, without a network."""
    with MemoryCount(_META) as count:
        steps = GpuSteps(NoKernels(), _META, None)
        with steps.current():
            infer(aligned_as_is(problem.stack), problem.depths_m, config or Config.from_dict({}), steps)
    return int(count.most)

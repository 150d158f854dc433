"""Volume engines of one owner, one for each size and setting.

An engine holds the blur of one volume at a time, so owners do not share engines.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import torch

from dfs_ros.cost_volume.cuda.driver import Kernels
from dfs_ros.cost_volume.cuda.volume import VolumeEngine
from dfs_ros.cost_volume.problem import Problem

_MOST = 8


class Engines:
    """Cache of one device's volume engines, last eight sizes and settings. Not thread-safe."""

    def __init__(self, kernels: Kernels, device: torch.device) -> None:
        self._kernels, self._device = kernels, device
        self._kept: OrderedDict[Hashable, VolumeEngine] = OrderedDict()

    def of(
        self, problem: Problem, output: str = "cost", dtype: torch.dtype = torch.float32, block_bytes: int = 0
    ) -> VolumeEngine:
        """The engine of these sizes and settings, see :class:`.volume.VolumeEngine`."""
        sizes = problem.stack.images.shape, problem.pad_px, problem.coc_px.shape
        key = (*sizes, problem.cost, problem.aberration, output, dtype, block_bytes)
        if key not in self._kept:
            self._kept[key] = VolumeEngine(
                problem, self._kernels, self._device, output=output, dtype=dtype, block_bytes=block_bytes
            )
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return self._kept[key]

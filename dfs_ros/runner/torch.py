"""Networks in PyTorch: on any machine, and the reference for all other runners."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dfs_ros.runner.base import Runner


class TorchRunner(Runner):
    """Runs a module that takes and gives batches, in float32.

    `device`: `auto` (CUDA where there is one), `cpu` or `cuda`. Raises ValueError where CUDA is asked for in vain.
    """

    def __init__(self, module: nn.Module, device: str = "auto") -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device: expected auto, cpu or cuda, received {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "device: cuda was asked for, but PyTorch finds no CUDA GPU here; use cpu or auto, or see `dfs doctor`"
            )
        cuda = device != "cpu" and torch.cuda.is_available()
        self._device = torch.device("cuda" if cuda else "cpu")
        if not cuda:
            # Half the cores: the convolutions are small, and threads that wait for each other when it is busy cost more
            # than they bring (2 threads on 2 busy cores take twice as long as 1).
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            torch.set_num_threads(max(1, cores // 2))
        module = module.to(self._device).eval()
        self._module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def description(self) -> str:
        return f"torch on {self._device.type}"

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batches = [torch.from_numpy(np.ascontiguousarray(array))[None].to(self._device) for array in inputs]
            output: NDArray[np.float32] = self._module(*batches)[0].float().cpu().numpy()
        return output

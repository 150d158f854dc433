"""Networks in PyTorch: on any machine, and the reference for all other runners."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn

from dfs_ros.runner.base import Array, Runner


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
            torch.set_num_threads(threads_for_small_convolutions())
        module = module.to(self._device).eval()
        self._module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def description(self) -> str:
        return f"torch on {self._device.type}"

    def run(self, *inputs: Array) -> Array:
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in inputs)
        output: Array = self.run_tensors(*(tensor.to(self._device) for tensor in tensors)).cpu().numpy()
        return output

    def run_tensors(self, *inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = self._module(*(tensor[None].to(self._device) for tensor in inputs))[0].float()
        return output.to(inputs[0].device)


def threads_for_small_convolutions() -> int:
    """Half the cores: threads that wait for each other when the machine is busy cost more than they bring.

    Measured on these networks: 2 threads on 2 busy cores take twice as long as 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)

"""Networks in PyTorch: on any machine, and the reference for all other runners."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dfs_ros.cost_volume.cuda.graphs import CudaGraphs
from dfs_ros.network.runners.base import Array, Runner
from dfs_ros.system.cores import network_threads

_GRAPHS = 2  # image sizes kept


class TorchRunner(Runner):
    """Runner of a module on batches of float32, at any internal precision.

    Parameters
    ----------
    device
        `auto` (CUDA if available), `cpu` or `cuda`. Raises ValueError for an unavailable CUDA.
    precision
        Internal precision of the module, for the description. Convolutions in `fp32` are exact; in `auto` a GPU may
        round their inputs to 10 bits (TF32), which is several times faster. `bf16`, on the CPU, rounds them to 8 bits,
        as in training.
    graphs
        On CUDA, record a CUDA graph for repeated sizes.
    threads
        CPU threads of all of PyTorch; as in :func:`dfs_ros.system.cores.network_threads`.
    """

    def __init__(
        self, module: nn.Module, device: str = "auto", precision: str = "auto", graphs: bool = True, threads: int = 0
    ) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device: expected auto, cpu or cuda, received {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "device: cuda was asked for, but PyTorch finds no CUDA GPU here; use cpu or auto, or see `dfs doctor`"
            )
        cuda = device != "cpu" and torch.cuda.is_available()
        self._device = torch.device("cuda" if cuda else "cpu")
        self._precision, self._graphs = precision, CudaGraphs(_GRAPHS) if graphs else None
        if not cuda:
            torch.set_num_threads(network_threads(threads))
        module = module.to(self._device).eval()
        self._bf16 = precision == "bf16" and not cuda
        self._module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def description(self) -> str:
        told = self._precision == "fp16" or (self._precision == "fp32" and self._device.type == "cuda")
        precision = f" {self._precision}" if told else ""
        return f"torch{precision} on {self._device.type}"

    def run(self, *inputs: Array) -> Array:
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in inputs)
        output: Array = self.run_tensors(*(tensor.to(self._device) for tensor in tensors)).cpu().numpy()
        return output

    def run_tensors(self, *inputs: Tensor) -> Tensor:
        batches = [tensor[None].to(self._device) for tensor in inputs]
        tf32 = self._precision == "auto"
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32),
            torch.autocast("cpu", torch.bfloat16, enabled=self._bf16),
        ):
            if self._graphs is None:
                (output,) = self._computed(*batches)
            else:
                (output,) = self._graphs("network", self._computed, *batches)
        return output.to(inputs[0].device)

    def _computed(self, *batches: Tensor) -> tuple[Tensor]:
        output: Tensor = self._module(*batches)[0].float()
        return (output,)


def has_bfloat16() -> bool:
    """True if this processor has bfloat16 instructions; without them bfloat16 is slower."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)

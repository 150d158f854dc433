"""An estimator whose GPU is the CPU, with the kernels' host build, for tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dfs_ros.config import Config
from dfs_ros.cost_volume.cuda.graphs import Compute, CudaGraphs, Recorded, Tensors
from dfs_ros.estimator import estimator
from dfs_ros.estimator.cpu import CpuSteps
from dfs_ros.estimator.gpu import GpuSteps
from dfs_ros.estimator.host import HostSteps

CPU = torch.device("cpu")


class ResampledByHost(GpuSteps):
    """Steps of the GPU that get the very images of the CPU: PyTorch rounds one value in 40000 the other way."""

    operations = HostSteps.operations
    fit_motions = HostSteps.fit_motions
    energies = HostSteps.energies


def host_build_steps(
    cpu: CpuSteps, kernels: Any, graphs: CudaGraphs | None = None, made: type[GpuSteps] = GpuSteps
) -> GpuSteps:
    """Steps of the GPU beside those of an estimator."""
    return made(kernels, CPU, cpu.network, cpu.threads, spectra=cpu.spectra, graphs=graphs)


def on_host_build(
    monkeypatch: pytest.MonkeyPatch,
    kernels: Any,
    config: Config,
    graphs: CudaGraphs | None = None,
    made: type[GpuSteps] = ResampledByHost,
) -> estimator.DepthEstimator:
    """An estimator whose GPU is the CPU with the kernels' host build."""

    def gpu_for(config: Config, cpu: CpuSteps) -> GpuSteps:
        return host_build_steps(cpu, kernels, graphs, made)

    monkeypatch.setattr(estimator, "gpu_for", gpu_for)
    return estimator.DepthEstimator(config)


def record_by_hand(compute: Compute, inputs: Tensors) -> Recorded:
    """As CUDA records: on the memory of its inputs, which replaying reads and overwrites."""
    outputs = tuple(torch.full_like(tensor, torch.nan) for tensor in compute(*inputs))

    def replay() -> None:
        for output, new in zip(outputs, compute(*inputs), strict=True):
            output.copy_(new)

    return Recorded(inputs, outputs, replay)

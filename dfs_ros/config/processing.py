"""Settings of network and computation."""

from __future__ import annotations

from dataclasses import dataclass

from dfs_ros.config.setting import setting


@dataclass(frozen=True)
class NetworkConfig:
    """Network between cost volume and depth."""

    name: str = setting(
        "light",
        "Network. none: minimum of the regularised cost; otherwise a model of models/ or the path of a "
        ".safetensors file",
    )
    runner: str = setting(
        "auto",
        "Inference engine; auto: on a GPU the first that works of TensorRT, TensorRT for RTX and PyTorch, on a "
        "CPU PyTorch",
        choices=("auto", "torch", "onnx", "tensorrt", "tensorrt_rtx"),
    )
    precision: str = setting(
        "auto",
        "Precision of the convolutions; auto: TensorRT fp16 if its depth passes the accuracy check, PyTorch TF32 "
        "on a GPU, bfloat16 on CPUs with instructions for it, otherwise fp32; fp16 needs a GPU or runner onnx",
        choices=("auto", "fp32", "fp16"),
    )


@dataclass(frozen=True)
class ProcessingConfig:
    """Device, threads and image sizes."""

    device: str = setting(
        "auto",
        "Device of cost volume and network; auto: a CUDA GPU where it can be used, otherwise the CPU",
        choices=("auto", "cpu", "cuda"),
    )
    threads: int = setting(0, "Largest number of CPU threads; 0: one for each available core", low=0, high=256)
    processes: int = setting(
        0,
        "Live stacks computed at once, each by a process with its share of the threads; 0: two on a CPU with two cores "
        "or more, one of more than 0.2 Mpx if the share is one thread. One for a sliding window and on a GPU",
        low=0,
        high=16,
    )
    cuda_graphs: bool = setting(True, "Replay recorded CUDA graphs for repeated image sizes: faster, more GPU memory")
    max_megapixels: float = setting(
        0.5,
        "Maximum working size; larger images are reduced to it. Depth files are enlarged to the input size again, "
        "topics stay at the working size",
        unit="Mpx",
        low=0.01,
        high=50,
    )

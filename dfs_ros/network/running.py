"""Which runner a network gets.

`auto` is TensorRT, TensorRT for RTX, PyTorch on a CUDA GPU, in this order, and PyTorch on the CPU
(as fast as ONNX Runtime: 0.15 s and 0.16 s for 64 hypotheses at 256x256 on one core, and nothing more to install).
TensorRT begins with fp16; where an engine's depth is not PyTorch's, fp32 comes next. Each step is logged with its
reason.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from dfs_ros.network.export import INPUTS, PRECISIONS, TOLERANCE, Shape, difference, golden_inputs, onnx_of
from dfs_ros.runner.base import Array, Progress, Runner, RunnerError
from dfs_ros.runner.chain import ChainRunner

if TYPE_CHECKING:
    from dfs_ros.network.light import LightNetwork
    from dfs_ros.runner.tensorrt import EngineModel

Link = tuple[str, Callable[[], Runner]]


def make_runner(module: LightNetwork, runner: str, device: str, progress: Progress | None = None) -> Runner:
    """What runs `module`: `runner` as in :class:`dfs_ros.config.NetworkConfig`, PyTorch where that fails later.

    Raises ValueError for a device that is not there, and where a runner other than `auto` cannot be had at all.
    """
    import torch

    from dfs_ros.runner.torch import TorchRunner

    pytorch = TorchRunner(copy.deepcopy(module), device)
    if runner == "torch":
        return pytorch
    cuda = device != "cpu" and torch.cuda.is_available()
    links: list[Link] = []
    if runner == "auto":
        for backend in ("tensorrt", "tensorrt_rtx") if cuda else ():
            links += tensorrt_links(module, backend, progress)
    elif runner == "onnx":
        links.append(("onnx", lambda: onnx_runner(module, device)))
    elif device == "cpu":
        raise ValueError(f"network.runner: {runner} needs a CUDA GPU, and the device is cpu; use auto, onnx or torch")
    else:
        links += tensorrt_links(module, runner, progress)
    if runner != "auto":
        try:
            first = links[0][1]()
        except RunnerError as error:
            raise ValueError(f"network.runner: {error}; or use auto or torch") from error
        links[0] = (runner, lambda: first)
    return ChainRunner([*links, ("torch", lambda: pytorch)])


def onnx_runner(module: LightNetwork, device: str) -> Runner:
    """ONNX Runtime with one graph for all shapes."""
    from dfs_ros.network.light import DOWNSAMPLING
    from dfs_ros.runner.onnx import OnnxRunner
    from dfs_ros.runner.torch import threads_for_small_convolutions

    def model(hypotheses: int) -> bytes:
        # The example has more than one hypothesis more than the least, so that no dimension looks like a constant.
        return _exported(module, Shape(8 + hypotheses % 2, 2 * DOWNSAMPLING, 3 * DOWNSAMPLING), "fp32", dynamic=True)

    return OnnxRunner(model, INPUTS, device, threads_for_small_convolutions())


def tensorrt_links(module: LightNetwork, backend: str, progress: Progress | None) -> list[Link]:
    """fp16, then fp32."""

    def make(precision: str) -> Runner:
        from dfs_ros.runner.tensorrt import TensorRTRunner

        model = functools.partial(engine_model, module, precision)
        return TensorRTRunner(backend, model, precision=precision, progress=progress)

    return [(f"{backend} {precision}", functools.partial(make, precision)) for precision in reversed(PRECISIONS)]


def engine_model(module: LightNetwork, precision: str, hypotheses: int, height: int, width: int) -> EngineModel:
    """What to build for a shape, and the reference: PyTorch on the CPU, where float32 is float32."""
    import torch

    from dfs_ros.runner.tensorrt import EngineModel

    shape = Shape(hypotheses, height, width)

    def distance(probability: Array) -> float:
        with torch.inference_mode():
            inputs = (torch.from_numpy(array)[None] for array in golden_inputs(shape))
            reference = copy.deepcopy(module).cpu().eval()(*inputs)[0].numpy()
        return difference(probability, reference)

    return EngineModel(
        onnx=_exported(module, shape, precision, dynamic=False),
        precision=precision,
        shapes=shape.of_inputs(),
        golden_inputs=lambda: golden_inputs(shape),
        difference=distance,
        tolerance=TOLERANCE[precision],
    )


def _exported(module: LightNetwork, shape: Shape, precision: str, dynamic: bool) -> bytes:
    try:
        return onnx_of(module, shape, precision, dynamic)
    except Exception as error:  # whatever PyTorch's exporter may raise
        if "onnx is not installed" in str(error):
            raise RunnerError(
                "PyTorch needs the package onnx to export the network; `pip install dfs_ros[onnx]`"
            ) from error
        raise RunnerError(f"the network cannot be exported to ONNX: {error}") from error

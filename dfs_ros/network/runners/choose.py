"""Choice of a network's runner.

`auto` is TensorRT, TensorRT for RTX, PyTorch on a CUDA GPU, in this order, and PyTorch on the CPU (on all its cores,
faster than ONNX Runtime there, without further packages). TensorRT starts with fp16, and takes fp32 if the engine's
depth differs from PyTorch's. Each step is logged with its reason.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_ros.network.export import INPUTS, TOLERANCE, Shape, difference, dynamic_name, golden_inputs, halve, onnx_of
from dfs_ros.network.onnx_file import read_onnx
from dfs_ros.network.runners.base import Array, Golden, Runner, RunnerError
from dfs_ros.network.runners.chain import ChainRunner
from dfs_ros.system.cores import network_threads
from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.types import Progress

if TYPE_CHECKING:
    from dfs_ros.network.light import LightNetwork
    from dfs_ros.network.runners.tensorrt import EngineModel

Link = tuple[str, Callable[[], Runner]]

_log = logging.getLogger(__name__)

_EXAMPLE = (9, 64, 96)  # hypotheses, height, width of the example and golden test for graphs of any shape


def make_runner(
    module: LightNetwork,
    runner: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
    graphs: bool = True,
    file: Path | None = None,
    threads: int = 0,
) -> Runner:
    """Chain of runners for `module`; PyTorch comes last.

    `runner` and `precision` as in :class:`dfs_ros.config.NetworkConfig`.

    `file`: of the weights. ONNX files beside it are used if PyTorch cannot export. `threads`: on the CPU, as in
    :func:`dfs_ros.system.cores.network_threads`.

    Raises ValueError for an unavailable device, and for an unavailable fp16 or runner other than `auto`.
    """
    import torch

    if device == "cuda":
        check_cuda()
    cuda = device != "cpu" and torch.cuda.is_available()
    # PyTorch's fp16 is useless on the CPU; with `onnx` the file has it.
    if precision == "fp16" and not cuda and runner != "onnx":
        raise ValueError("network.precision: fp16 needs a CUDA GPU, or the runner onnx; use auto or fp32")
    links: list[Link] = []
    if runner == "auto":
        for backend in ("tensorrt", "tensorrt_rtx") if cuda else ():
            links += tensorrt_links(module, backend, precision, progress, file)
    elif runner == "onnx":
        onnx_precision = "fp32" if precision == "auto" else precision
        links.append(("onnx", lambda: onnx_runner(module, device, onnx_precision, file, threads)))
    elif runner != "torch" and device == "cpu":
        raise ValueError(f"network.runner: {runner} needs a CUDA GPU, and the device is cpu; use auto, onnx or torch")
    elif runner != "torch":
        links += tensorrt_links(module, runner, precision, progress, file)
    if runner not in ("auto", "torch"):
        try:
            first = links[0][1]()
        except RunnerError as error:
            raise ValueError(f"network.runner: {error}; or use auto or torch") from error
        links[0] = (links[0][0], lambda: first)
    return ChainRunner([*links, *torch_links(module, cuda, precision, graphs, threads)])


def check_cuda() -> None:
    """Raise ValueError if PyTorch finds no GPU."""
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            "device: cuda was asked for, but PyTorch finds no CUDA GPU here; use cpu or auto, or see `dfs doctor`"
        )


def torch_links(module: LightNetwork, cuda: bool, precision: str, graphs: bool, threads: int) -> list[Link]:
    """Links of PyTorch: GPU, in fp16 first if requested, then CPU."""
    from dfs_ros.network.runners.torch import TorchRunner, has_bfloat16

    links: list[Link] = []
    if cuda and precision == "fp16":
        links.append(("torch fp16", lambda: half_torch_runner(module, "cuda", graphs)))
    if cuda:
        kept = "fp32" if precision == "fp16" else precision
        links.append(("torch", lambda: TorchRunner(copy.deepcopy(module), "cuda", kept, graphs)))
    on_cpu = "bf16" if precision != "fp32" and has_bfloat16() else "fp32"
    return [
        *links,
        ("torch on the CPU", lambda: TorchRunner(copy.deepcopy(module), "cpu", on_cpu, graphs=False, threads=threads)),
    ]


def half_torch_runner(module: LightNetwork, device: str, graphs: bool) -> Runner:
    """PyTorch with convolutions in fp16, tested against fp32."""
    from dfs_ros.network.runners.torch import TorchRunner

    halved = copy.deepcopy(module)
    halve(halved)
    runner = TorchRunner(halved, device, "fp16", graphs)
    golden = golden_of(module, Shape(*_EXAMPLE), "fp16")
    golden.check(runner.description, runner.run(*golden.inputs()))
    return runner


def onnx_runner(
    module: LightNetwork, device: str, precision: str = "fp32", file: Path | None = None, threads: int = 0
) -> Runner:
    """ONNX Runtime with one graph for all shapes."""
    from dfs_ros.network.runners.onnx import OnnxRunner

    shape = Shape(*_EXAMPLE)
    model = functools.partial(_exported, module, shape, precision, True, file)
    golden = golden_of(module, shape, precision)
    return OnnxRunner(model, INPUTS, device, network_threads(threads), golden, precision)


def tensorrt_links(
    module: LightNetwork, backend: str, precision: str, progress: Progress | None, file: Path | None = None
) -> list[Link]:
    """Links of TensorRT: fp16 unless excluded, then fp32."""

    def make(precision: str) -> Runner:
        from dfs_ros.network.runners.tensorrt import TensorRTRunner

        def model(hypotheses: int, half_height: int, half_width: int) -> EngineModel:
            return engine_model(module, precision, Shape(hypotheses, 2 * half_height, 2 * half_width), file)

        return TensorRTRunner(backend, model, precision=precision, progress=progress)

    wanted = ("fp32",) if precision == "fp32" else ("fp16", "fp32")
    return [(f"{backend} {name}", functools.partial(make, name)) for name in wanted]


def engine_model(module: LightNetwork, precision: str, shape: Shape, file: Path | None = None) -> EngineModel:
    """ONNX model of one shape, with golden inputs to check its engine.

    `file`: the network's weights. Where PyTorch cannot export, the ONNX file beside them is used.
    """
    from dfs_ros.network.runners.tensorrt import EngineModel

    model = _exported(module, shape, precision, False, file)
    return EngineModel(model, precision, shape.of_inputs(), golden_of(module, shape, precision))


def golden_of(module: LightNetwork, shape: Shape, precision: str) -> Golden:
    """Golden answer of the reference: PyTorch on the CPU, without TF32 rounding."""
    import torch

    def distance(probability: Array) -> float:
        with torch.inference_mode():
            inputs = (torch.from_numpy(array)[None] for array in golden_inputs(shape))
            reference = copy.deepcopy(module).cpu().eval()(*inputs)[0].numpy()
        return difference(probability, reference)

    return Golden(lambda: golden_inputs(shape), distance, TOLERANCE[precision])


def _exported(module: LightNetwork, shape: Shape, precision: str, dynamic: bool, file: Path | None) -> bytes:
    try:
        return onnx_of(module, shape, precision, dynamic)
    except Exception as error:  # whatever PyTorch's exporter may raise
        keep_traceback(error)
        # Export needs the package onnx, which a robot may lack: the file for any shape replaces it. The golden inputs
        # show whether it belongs to these weights.
        if file is not None and (kept := file.with_name(dynamic_name(file.stem, precision))).is_file():
            _log.info("PyTorch cannot export the network (%s); %s is used", str(error).splitlines()[0], kept)
            try:
                return read_onnx(kept, sum(tensor.numel() for tensor in module.state_dict().values()))
            except (ValueError, OSError) as refused:
                raise RunnerError(str(refused)) from refused
        if "onnx is not installed" in str(error):
            raise RunnerError(
                "PyTorch needs the package onnx to export the network; `pip install dfs_ros[onnx]`"
            ) from error
        raise RunnerError(f"the network cannot be exported to ONNX: {error}") from error

"""Networks in TensorRT 10.3 to 11 and TensorRT for RTX, by their common API.

Networks are strongly typed: precision is in the ONNX file and no builder flag lowers it. An engine is built for one
shape, at its first volume, and cached (:mod:`.engine_cache`). It is tested by a golden input and not used if its answer
differs from the reference.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfs_ros.network.runners.base import Array, Golden, OutOfDeviceMemory, Runner, RunnerError, RunnerMissing
from dfs_ros.network.runners.engine_cache import EngineCache, EngineKey
from dfs_ros.types import Progress

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = ("tensorrt", "tensorrt_rtx")
WORKSPACE_BYTES = 1 << 30
RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities of TensorRT for RTX: neither Jetson Orin and Thor nor Hopper."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineModel:
    """Model and golden answer of an engine, for volumes of one shape."""

    onnx: bytes
    precision: str
    shapes: Mapping[str, tuple[int, ...]]
    golden: Golden


class TensorRTRunner(Runner):
    """Runner of engines of one backend of `BACKENDS` on the current CUDA GPU.

    `model` returns the model to build for hypotheses, height and width of a volume. Raises RunnerMissing if the backend
    is not installed or does not support the GPU, or without a GPU for PyTorch.
    """

    def __init__(
        self,
        backend: str,
        model: Callable[[int, int, int], EngineModel],
        *,
        precision: str,
        cache: EngineCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        import torch

        self._trt = import_backend(backend)
        if not torch.cuda.is_available():
            raise RunnerMissing(f"{backend}: needs a CUDA GPU and a PyTorch with CUDA")
        torch.cuda.init()  # type: ignore[no-untyped-call]
        gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
        if backend == "tensorrt_rtx" and (gpu.major, gpu.minor) not in RTX_CAPABILITIES:
            raise RunnerMissing(f"{backend}: has no engines for {gpu.name} (sm_{gpu.major}{gpu.minor})")
        self._backend, self._model, self._precision = backend, model, precision
        self._cache, self._progress = cache or EngineCache(), progress
        self._log = make_logger(self._trt)
        self._runtime = self._trt.Runtime(self._log)
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._loaded: dict[tuple[int, ...], tuple[EngineKey, _Loaded]] = {}

    @property
    def description(self) -> str:
        return f"{self._backend} {self._trt.__version__} {self._precision} on cuda"

    def run(self, *inputs: Array) -> Array:
        import torch

        tensors = (torch.from_numpy(np.ascontiguousarray(array)).cuda() for array in inputs)
        output: Array = self.run_tensors(*tensors).cpu().numpy()
        return output

    def run_tensors(self, *inputs: Tensor) -> Tensor:
        shape = tuple(inputs[0].shape)
        if shape not in self._loaded:
            # Engines of other shapes are released: a camera has one size, and GPU memory is scarce.
            for key, _ in self._loaded.values():
                self._cache.release(key)
            self._loaded.clear()
            self._loaded[shape] = self._obtain(*shape)
        key, loaded = self._loaded[shape]
        output = loaded.run(inputs, self._stream)
        compiled = loaded.newly_compiled()
        if compiled is not None:
            self._cache.write_compiled(key, compiled)
        return output

    def _obtain(self, hypotheses: int, height: int, width: int) -> tuple[EngineKey, _Loaded]:
        self._tell("preparing the network", 0.0)
        model = self._model(hypotheses, height, width)
        key = engine_key(self._backend, self._trt, model)

        def check(loaded: _Loaded) -> dict[str, Any]:
            import torch

            tensors = [torch.from_numpy(array).cuda() for array in model.golden.inputs()]
            return model.golden.check(self.description, loaded.run(tensors, self._stream).cpu().numpy())

        def load(plan: bytes) -> _Loaded:
            compiled = self._cache.read_compiled(key)
            return _Loaded(self._trt, self._runtime, self._log, plan, tuple(model.shapes), compiled)

        def build() -> bytes:
            _log.info("%s: building an engine for %d x %d x %d", self.description, hypotheses, height, width)
            return build_engine(self._trt, model.onnx, model.shapes, self._progress)

        return key, self._cache.obtain(key, build, load, check)

    def _tell(self, what: str, share: float) -> None:
        if self._progress is not None:
            self._progress(what, share)


class _Loaded:
    """Engine ready to run; `compiled`: earlier run-time compilations of TensorRT for RTX."""

    def __init__(
        self,
        trt: Any,
        runtime: Any,
        log: Any,
        plan: bytes,
        inputs: tuple[str, ...],
        compiled: bytes | None = None,
    ) -> None:
        log.errors.clear()
        self._engine = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise RunnerError(f"the engine cannot be deserialised: {log.told()}")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        outputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
        if set(names) - set(outputs) != set(inputs) or len(outputs) != 1:
            raise RunnerError(f"the engine has tensors {names}; expected inputs {list(inputs)} and one output")
        self._compiling, self._context = execution_context(self._engine, compiled)
        self._compiled_bytes = 0 if compiled is None else len(compiled)
        if self._context is None:
            raise OutOfDeviceMemory(f"no execution context (out of device memory?): {log.told()}")
        self._inputs, self._output, self._log = inputs, outputs[0], log

    def run(self, inputs: tuple[Tensor, ...] | list[Tensor], stream: Any) -> Tensor:
        import torch

        batches = [tensor[None].cuda().float().contiguous() for tensor in inputs]
        for name, batch in zip(self._inputs, batches, strict=True):
            if not self._context.set_input_shape(name, tuple(batch.shape)):
                raise RunnerError(f"input {name} of shape {tuple(batch.shape)} does not fit the engine")
            self._context.set_tensor_address(name, batch.data_ptr())
        output = torch.empty(tuple(self._context.get_tensor_shape(self._output)), device=batches[0].device)
        self._context.set_tensor_address(self._output, output.data_ptr())
        # TensorRT synchronises on the default stream. The current stream waits for ours, so memory freed on it is not
        # reused too early.
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        self._log.errors.clear()
        done = self._context.execute_async_v3(stream.cuda_stream)
        current.wait_stream(stream)
        if not done:
            raise RunnerError(f"execution failed: {self._log.told()}")
        return output[0]

    def newly_compiled(self) -> bytes | None:
        """Run-time compiled kernels, all so far; None if nothing is new."""
        if self._compiling is None:
            return None
        compiled = bytes(self._compiling.serialize())
        if len(compiled) == self._compiled_bytes:
            self._compiling = None  # shapes are fixed: nothing is compiled later
            return None
        self._compiled_bytes = len(compiled)
        return compiled


def execution_context(engine: Any, compiled: bytes | None) -> tuple[Any, Any]:
    """Run-time kernel cache (or None) and execution context of an engine.

    The cache is filled with `compiled`.

    TensorRT for RTX compiles kernels at an engine's first run, and can cache them; TensorRT compiles while building.
    """
    make = getattr(engine, "create_runtime_config", None)
    config: Any = make() if make is not None else None
    if config is None or not hasattr(config, "create_runtime_cache"):
        return None, engine.create_execution_context()
    cache = config.create_runtime_cache()
    if compiled is not None and not cache.deserialize(compiled):
        _log.info("kernels kept for the engine are of another machine or version; they are compiled again")
    config.set_runtime_cache(cache)
    return cache, engine.create_execution_context(config)


def import_backend(backend: str) -> Any:
    """The Python module of a backend. Raises RunnerMissing with the reason where it does not import."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, received {backend!r}")
    try:
        return importlib.import_module(backend)
    except (ImportError, OSError) as error:
        raise RunnerMissing(f"{backend}: cannot be imported ({error})") from error


def make_logger(trt: Any) -> Any:
    """Backend logger: forwards warnings, keeps errors for an exception's message."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.ERROR):
                self.errors.append(message)
                _log.debug("%s", message)
            elif severity == trt.ILogger.WARNING:
                _log.debug("%s", message)

        def told(self) -> str:
            return "; ".join(self.errors[-3:]) or "no reason was given"

    return Log()


def build_engine(
    trt: Any, onnx: bytes, shapes: Mapping[str, tuple[int, ...]], progress: Progress | None = None
) -> bytes:
    """Parse and build an engine; TensorRT for RTX needs no GPU. Raises RunnerError with the log."""
    log = make_logger(trt)
    builder = trt.Builder(log)
    if builder is None:
        raise RunnerError(f"no builder: {log.told()}")
    # Required on TensorRT 10; ignored on 11, which has no other mode.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        said = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise RunnerError(f"the ONNX file cannot be parsed: {said or log.told()}")
    found = {network.get_input(i).name for i in range(network.num_inputs)}
    if found != set(shapes):
        raise RunnerError(f"expected inputs {sorted(shapes)}, the ONNX file has {sorted(found)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    config.add_optimization_profile(profile)
    monitor = _make_monitor(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.stopped is not None:
        raise monitor.stopped
    if plan is None:
        raise RunnerError(f"the engine cannot be built: {log.told()}")
    return bytes(plan)


def _make_monitor(trt: Any, progress: Progress | None) -> Any:
    """Progress monitor of the outermost phase; exceptions of `progress` end the build, see `stopped`."""
    if progress is None:
        return None
    tell = progress

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outermost, self._steps = "", 1
            self.stopped: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._outermost, self._steps = phase_name, max(1, num_steps)
                self._tell(0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outermost:
                self._tell(min(1.0, (step + 1) / self._steps))
            return self.stopped is None

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self._outermost:
                self._tell(1.0)

        def _tell(self, share: float) -> None:
            try:
                if self.stopped is None:
                    tell("building engine", share)
            except BaseException as error:  # must not pass through the library
                self.stopped = error

    return Monitor()


def engine_key(backend: str, trt: Any, model: EngineModel) -> EngineKey:
    """All that affects the engine of `model` on the current GPU."""
    import torch

    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    return EngineKey(
        onnx_sha256=hashlib.sha256(model.onnx).hexdigest(),
        backend=backend,
        backend_version=str(trt.__version__),
        gpu=str(gpu.name),
        compute_capability=f"{gpu.major}.{gpu.minor}",
        cuda_version=str(torch.version.cuda),
        driver_version=driver_version(),
        precision=model.precision,
        shapes=repr(sorted(model.shapes.items())),
        options=f"strongly typed, no tf32, workspace {WORKSPACE_BYTES}",
    )


def driver_version() -> str:
    """Version of the NVIDIA driver or the Jetson's system, and its CUDA version."""
    told = []
    try:
        version = ctypes.c_int()
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0:
            told.append(f"cuda {version.value}")
    except (OSError, AttributeError):
        pass
    for file in ("/proc/driver/nvidia/version", "/etc/nv_tegra_release"):
        try:
            first = Path(file).read_text(errors="replace").splitlines()[0]
        except (OSError, IndexError):
            continue
        number = re.search(r"\d+\.\d+(\.\d+)*", first)
        told.append(number[0] if number and "NVRM" in first else first.strip())
    return ", ".join(told) or "unknown"

"""TensorRT's engines by the real library: building, refusing foreign ones, answering as PyTorch does."""

import sys

import pytest
import torch
from runner_rig import exported, needs_onnx, no_gpu, own_cache

from dfs_ros.config import NetworkConfig
from dfs_ros.network import load_network
from dfs_ros.network.export import INPUTS, Shape, golden_inputs
from dfs_ros.network.runners.base import RunnerError
from dfs_ros.network.runners.choose import engine_model
from dfs_ros.network.runners.tensorrt import (
    TensorRTRunner,
    _Loaded,
    build_engine,
    driver_version,
    execution_context,
    import_backend,
    make_logger,
)
from dfs_ros.network.weights import load_weights, model_file

__all__ = ["own_cache"]  # fixtures


@no_gpu
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_tensorrt_where_it_cannot_run(backend) -> None:
    with pytest.raises(ValueError, match="needs a CUDA GPU, and the device is cpu"):
        load_network(NetworkConfig(runner=backend), "cpu")
    with pytest.raises(ValueError, match=f"network.runner: {backend}: (needs a CUDA GPU|cannot be imported)"):
        load_network(NetworkConfig(runner=backend))


def test_tensorrt_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RunnerError, match="tensorrt: cannot be imported"):
        import_backend("tensorrt")


def test_the_driver_says_something() -> None:
    assert driver_version()


@needs_onnx
def test_foreign_and_truncated_engines_are_refused_by_the_backend() -> None:
    """The real library; without a GPU it refuses whole engines too, so only the reason is told apart."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    plan = build_engine(trt, exported(), Shape(8, 64, 96).of_inputs())
    log = make_logger(trt)
    runtime = trt.Runtime(log)
    for wrong, reason in ((plan[:1000], "plan.header.size"), (b"no engine" * 1000, "cannot be deserialised")):
        with pytest.raises(RunnerError, match=reason):
            _Loaded(trt, runtime, log, wrong, INPUTS)


@needs_onnx
def test_building_can_be_ended() -> None:
    """The real builder: what the listener raises comes out of it."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    told = []

    def stop(what: str, share: float) -> None:
        told.append(share)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(trt, exported(), Shape(8, 64, 96).of_inputs(), stop)
    assert told == [0.0]


class RtxEngine:
    """The part of TensorRT for RTX's engine that keeps compiled kernels, which runs on a GPU alone."""

    def __init__(self, compiles: bytes) -> None:
        self.blob, self.compiles, self.set = b"", compiles, None

    def create_runtime_config(self):
        return self

    def create_runtime_cache(self):
        return self

    def deserialize(self, blob: bytes) -> bool:
        self.blob = blob if blob.startswith(b"rtx") else b""
        return bool(self.blob)

    def set_runtime_cache(self, cache) -> bool:
        self.set = cache
        return True

    def create_execution_context(self, config=None):
        return ("context", config)

    def serialize(self) -> bytes:
        return self.blob or self.compiles


def test_kernels_compiled_at_run_time_are_kept() -> None:
    engine = RtxEngine(b"rtx kernels")
    cache, context = execution_context(engine, None)
    assert cache is engine.set and context == ("context", engine)
    loaded = object.__new__(_Loaded)
    loaded._compiling, loaded._compiled_bytes = cache, 0
    assert loaded.newly_compiled() == b"rtx kernels"  # after the first run
    assert loaded.newly_compiled() is None and loaded.newly_compiled() is None
    again = RtxEngine(b"rtx more")
    cache, _ = execution_context(again, b"rtx kernels")
    assert again.blob == b"rtx kernels" and cache.serialize() == b"rtx kernels"
    execution_context(again, b"of another version")  # is refused, and costs compiling
    assert again.blob == b""


def test_engines_without_such_a_cache() -> None:
    class Engine:
        def create_execution_context(self):
            return "context"

    assert execution_context(Engine(), None) == (None, "context")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_engines_answer_as_torch(backend, precision) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    module = load_weights(model_file("light"))

    def model(hypotheses, half_height, half_width):
        return engine_model(module, precision, Shape(hypotheses, 2 * half_height, 2 * half_width))

    for size in ((8, 64, 96), (7, 32, 64)):
        runner = TensorRTRunner(backend, model, precision=precision)
        asked = engine_model(module, precision, Shape(*size))
        assert asked.golden.difference(runner.run(*golden_inputs(Shape(*size)))) <= asked.golden.tolerance
        tensors = [torch.from_numpy(array).cuda() for array in golden_inputs(Shape(*size))]
        answer = runner.run_tensors(*tensors)
        assert answer.is_cuda and asked.golden.difference(answer.cpu().numpy()) <= asked.golden.tolerance

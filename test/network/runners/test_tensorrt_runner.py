"""The TensorRT runner from volume to answer: engines by the real builder of TensorRT for RTX, executed by a stand-in.

Executing takes a GPU. The stand-in reads inputs from the addresses that the runner sets, computes the engine's own ONNX
model in ONNX Runtime and writes the answer to the address of the output, as the library does. On a GPU,
test_tensorrt_engines.py and `python -m benchmarks.gpu_check` execute the engines themselves.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dfs_ros.network import Network, export
from dfs_ros.network.export import Shape, golden_inputs
from dfs_ros.network.light import LightNetwork
from dfs_ros.network.runners import choose, tensorrt
from dfs_ros.network.runners.chain import ChainRunner
from dfs_ros.network.runners.choose import tensorrt_links
from dfs_ros.network.runners.torch import TorchRunner
from dfs_ros.network.weights import load_weights, model_file

pytest.importorskip("onnx", reason="the package onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

SHAPE = Shape(4, 32, 64)


class Machine:
    """A machine with a GPU of which only building is real; `wrong` precisions compute something else."""

    def __init__(self) -> None:
        self.models: dict[str, bytes] = {}  # by the hash of the engine
        self.built: list[str] = []
        self.wrong: set[str] = set()
        self.failing: set[str] = set()
        self.compiled: list[bytes | None] = []  # what was kept of kernels when an engine was loaded
        self.module = SimpleNamespace(
            Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=lambda plan: self.engine(plan, log)),
            **{name: getattr(rtx, name) for name in dir(rtx) if not name.startswith("_") and name != "Runtime"},
            __version__="1.0",
        )

    def build(self, trt: Any, onnx: bytes, shapes: Any, progress: Any = None) -> bytes:
        if progress is not None or onnx not in PLANS:
            PLANS[onnx] = build_engine(rtx, onnx, shapes, progress)
        plan = PLANS[onnx]
        self.models[hashlib.sha256(plan).hexdigest()] = onnx
        self.built.append("fp16" if len(onnx) < 1_400_000 else "fp32")
        return plan

    def engine(self, plan: bytes, log: Any) -> Any:
        if self.models.get(hashlib.sha256(plan).hexdigest()) is None:
            log.log(rtx.ILogger.ERROR, "this engine is not of this machine")
            return None
        return Engine(self, self.models[hashlib.sha256(plan).hexdigest()])


build_engine, onnx_of = tensorrt.build_engine, functools.cache(export.onnx_of)
PLANS: dict[bytes, bytes] = {}  # built once for all tests


class Engine:
    """Engine, runtime configuration, cache of kernels and context in one."""

    def __init__(self, machine: Machine, onnx: bytes) -> None:
        self.machine, self.precision = machine, "fp16" if len(onnx) < 1_400_000 else "fp32"
        self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.names = [*self.inputs, self.session.get_outputs()[0].name]
        self.num_io_tensors = len(self.names)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.kernels: bytes | None = None

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Any:
        return rtx.TensorIOMode.INPUT if name in self.inputs else rtx.TensorIOMode.OUTPUT

    def create_runtime_config(self) -> Engine:
        return self

    def create_runtime_cache(self) -> Engine:
        self.machine.compiled.append(None)
        return self

    def deserialize(self, blob: bytes) -> bool:
        self.machine.compiled[-1] = self.kernels = blob
        return True

    def set_runtime_cache(self, cache: Any) -> bool:
        return cache is self

    def serialize(self) -> bytes:
        return self.kernels or b""

    def create_execution_context(self, config: Any) -> Engine:
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        expected = self.session.get_inputs()[self.inputs.index(name)].shape
        return list(shape) == list(expected)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["energy"]

    def execute_async_v3(self, stream: int) -> bool:
        if self.precision in self.machine.failing:
            return False
        feed = {name: at(self.addresses[name], self.shapes[name]).copy() for name in self.inputs}
        answer = self.session.run(None, feed)[0]
        if self.precision in self.machine.wrong:
            answer = answer[:, ::-1]
        at(self.addresses[self.names[-1]], answer.shape)[:] = answer
        self.kernels = b"kernels of " + self.precision.encode()
        return True


def at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 array of that shape at an address."""
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    made = Machine()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tensorrt, "import_backend", lambda backend: made.module)
    monkeypatch.setattr(tensorrt, "build_engine", made.build)
    monkeypatch.setattr(choose, "onnx_of", onnx_of)
    stream = SimpleNamespace(cuda_stream=0, wait_stream=lambda other: None)
    properties = SimpleNamespace(name="stand-in", major=8, minor=9)
    for name, value in {
        "is_available": lambda: True,
        "init": lambda: None,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "current_device": lambda: 0,
        "get_device_properties": lambda device: properties,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    yield made


def chain(told: list[tuple[str, float]] | None = None, precision: str = "auto") -> ChainRunner:
    """TensorRT for RTX in fp16, fp32, then PyTorch."""
    module = network()
    progress = None if told is None else lambda what, share: told.append((what, share))
    links = tensorrt_links(module, "tensorrt_rtx", precision, progress)
    return ChainRunner([*links, ("torch", lambda: pytorch())])


def pytorch() -> TorchRunner:
    return TorchRunner(copy.deepcopy(network()), "cpu")


@functools.cache
def network() -> LightNetwork:
    return load_weights(model_file("light"))


def test_an_engine_answers_as_pytorch_and_is_kept(machine: Machine) -> None:
    inputs, told = golden_inputs(SHAPE, seed=4), []
    expected = pytorch().run(*inputs)
    runner = chain(told)
    assert runner.description == "tensorrt_rtx 1.0 fp16 on cuda"
    for _ in range(2):
        np.testing.assert_allclose(runner.run(*inputs), expected, atol=0.02)
    assert machine.built == ["fp16"] and runner.faults == []
    assert told[0] == ("preparing the network", 0.0) and told[-1] == ("building engine", 1.0)
    answer = runner.run_tensors(*(torch.from_numpy(array) for array in inputs))
    np.testing.assert_allclose(answer.numpy(), expected, atol=0.02)
    # Another process: loaded, not built, with the kernels that were compiled.
    np.testing.assert_allclose(chain().run(*inputs), expected, atol=0.02)
    assert machine.built == ["fp16"]
    assert machine.compiled == [None, b"kernels of fp16"]


def test_precision_fp32_is_that(machine: Machine) -> None:
    inputs = golden_inputs(SHAPE, seed=4)
    runner = chain(precision="fp32")
    np.testing.assert_allclose(runner.run(*inputs), pytorch().run(*inputs), atol=1e-5)
    assert machine.built == ["fp32"] and " fp32 " in runner.description


def test_a_wrong_engine_is_not_used_fp32_is(machine: Machine, tmp_path: Path) -> None:
    inputs = golden_inputs(SHAPE, seed=4)
    machine.wrong = {"fp16"}
    runner = chain()
    np.testing.assert_allclose(runner.run(*inputs), pytorch().run(*inputs), atol=1e-5)
    assert runner.description == "tensorrt_rtx 1.0 fp32 on cuda" and machine.built == ["fp16", "fp32"]
    (fault,) = Network("light", runner).faults
    assert fault.level == "error" and "tensorrt_rtx 1.0 fp16 on cuda: its depth differs from" in fault.text
    assert len(list(tmp_path.rglob("*.plan"))) == 1  # of fp32


def test_where_both_are_wrong_pytorch_runs(machine: Machine) -> None:
    inputs = golden_inputs(SHAPE, seed=4)
    machine.wrong = {"fp16", "fp32"}
    runner = chain()
    np.testing.assert_array_equal(runner.run(*inputs), pytorch().run(*inputs))
    assert [fault.level for fault in runner.faults] == ["error", "error"]


def test_an_engine_that_fails_when_executed_moves_the_chain_on(machine: Machine) -> None:
    inputs = golden_inputs(SHAPE, seed=4)
    runner = chain()
    runner.run(*inputs)
    machine.failing = {"fp16", "fp32"}
    np.testing.assert_array_equal(runner.run(*inputs), pytorch().run(*inputs))
    assert [fault.level for fault in runner.faults] == ["warning", "warning"]
    assert all("execution failed" in fault.text for fault in runner.faults)


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_or_foreign_engine_is_built_anew(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    inputs = golden_inputs(SHAPE, seed=4)
    chain().run(*inputs)
    (plan,) = tmp_path.rglob("*.plan")
    if damage == "cut":
        plan.write_bytes(plan.read_bytes()[:1000])
    else:
        machine.models.clear()  # the library takes it for another machine's
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(chain().run(*inputs), pytorch().run(*inputs), atol=0.02)
    assert machine.built == ["fp16", "fp16"]
    assert ("is damaged or cut short" if damage == "cut" else "not of this machine") in caplog.text


def test_another_size_is_another_engine_and_the_old_one_is_released(machine: Machine) -> None:
    runner = chain()
    sizes = (SHAPE, Shape(5, 64, 32), SHAPE)
    for shape in sizes:
        inputs = golden_inputs(shape, seed=4)
        np.testing.assert_allclose(runner.run(*inputs), pytorch().run(*inputs), atol=0.02)
    assert machine.built == ["fp16", "fp16"]
    cache = runner._runner._cache  # type: ignore[union-attr]
    assert len(cache._in_use) == 1


def test_a_gpu_that_tensorrt_for_rtx_knows_nothing_of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = SimpleNamespace(name="H200", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: hopper)
    runner = chain()
    assert runner.description == "torch on cpu" and machine.built == []
    assert [fault.level for fault in runner.faults] == ["note", "note"]
    assert "tensorrt_rtx: has no engines for H200 (sm_90)" in runner.faults[0].text


def test_whoever_ends_the_building_gets_the_exception(machine: Machine) -> None:
    class Stop(Exception):
        pass

    def stop(what: str, share: float) -> None:
        if what == "building engine":
            raise Stop

    links = tensorrt_links(network(), "tensorrt_rtx", "auto", stop)
    runner = ChainRunner([*links, ("torch", lambda: pytorch())])
    with pytest.raises(Stop):
        runner.run(*golden_inputs(SHAPE))
    assert machine.built == [] and runner.faults == []

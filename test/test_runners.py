"""Runners behind one interface, and the chain that finds one that works."""

import logging
import sys

import numpy as np
import pytest
import torch

from dfs_ros.config import NetworkConfig
from dfs_ros.network import Network, load_network
from dfs_ros.network.export import INPUTS, Shape, export_onnx, golden_inputs
from dfs_ros.network.running import engine_model
from dfs_ros.network.weights import load_weights, model_file
from dfs_ros.runner.base import Runner, RunnerError
from dfs_ros.runner.chain import ChainRunner
from dfs_ros.runner.onnx import OnnxRunner
from dfs_ros.runner.tensorrt import TensorRTRunner, _Loaded, build_engine, driver_version, import_backend, make_logger
from dfs_ros.runner.torch import TorchRunner

needs_onnx = pytest.mark.skipif(
    any(__import__("importlib.util").util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="onnx or ONNX Runtime is not installed",
)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")


class Fixed(Runner):
    """Answers with a number, or fails at its turn."""

    def __init__(self, value: float, fails_from: int = 10**9) -> None:
        self.value, self.left = value, fails_from

    @property
    def description(self) -> str:
        return f"fixed {self.value}"

    def run(self, *inputs):
        self.left -= 1
        if self.left < 0:
            raise RunnerError("no more")
        return np.full_like(inputs[0], self.value)

    def run_tensors(self, *inputs):
        return torch.from_numpy(self.run(*(tensor.numpy() for tensor in inputs)))


def refused() -> Runner:
    raise RunnerError("not installed")


def images(depths: int, height: int, width: int):
    rng = np.random.default_rng(5)
    energy, smoothed = rng.normal(0, 1, (2, depths, height, width)).astype(np.float32)
    guide = rng.random((height, width), dtype=np.float32)
    return energy, smoothed, guide, rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_first_link_that_works_runs(caplog) -> None:
    with caplog.at_level(logging.INFO):
        chain = ChainRunner([("first", refused), ("second", lambda: Fixed(2.0)), ("third", lambda: Fixed(3.0))])
    assert chain.description == "fixed 2.0" and chain.problems == ["first: not installed"]
    assert "first: not installed" in caplog.text and "network runs in fixed 2.0" in caplog.text
    assert chain.run(np.zeros(3, np.float32)).tolist() == [2.0, 2.0, 2.0]


def test_a_link_that_fails_later_is_reported_and_the_same_inputs_go_to_the_next() -> None:
    chain = ChainRunner([("a", lambda: Fixed(1.0, fails_from=1)), ("b", refused), ("c", lambda: Fixed(3.0))])
    x = np.zeros(2, np.float32)
    assert chain.run(x)[0] == 1.0 and chain.problems == []
    assert chain.run(x)[0] == 3.0
    assert chain.problems == ["fixed 1.0: no more", "b: not installed"]
    assert chain.run_tensors(torch.zeros(2)).tolist() == [3.0, 3.0]
    assert Network("n", chain).problems == chain.problems and "fixed 3.0" in Network("n", chain).description


def test_nothing_left_names_every_reason() -> None:
    with pytest.raises(RunnerError, match=r"(?s)nothing can run.* - a: not installed.* - b: not installed"):
        ChainRunner([("a", refused), ("b", refused)])


def test_tensors_are_answered_as_arrays() -> None:
    runner = TorchRunner(load_weights(model_file("light")), "cpu")
    inputs = golden_inputs(Shape(6, 32, 64))
    answer = runner.run_tensors(*(torch.from_numpy(array) for array in inputs))
    np.testing.assert_allclose(answer.numpy(), runner.run(*inputs), atol=1e-6)


@no_gpu
def test_auto_without_a_gpu_is_torch() -> None:
    network = load_network(NetworkConfig())
    assert network.description == "light, torch on cpu" and network.problems == []


@needs_onnx
def test_onnx_runtime_by_name_answers_as_torch_at_any_size() -> None:
    onnx = load_network(NetworkConfig(runner="onnx"), "cpu")
    reference = load_network(NetworkConfig(runner="torch"), "cpu")
    assert "onnxruntime" in onnx.description and "on cpu" in onnx.description
    for size in ((8, 64, 64), (7, 50, 75), (2, 33, 31), (13, 64, 37)):
        arrays = images(*size)
        p, q = onnx.probability(*arrays), reference.probability(*arrays)
        assert p.shape == size
        np.testing.assert_allclose(p, q, atol=1e-4)
    assert onnx.problems == []


@needs_onnx
def test_onnx_runtime_takes_tensors() -> None:
    module = load_weights(model_file("light"))
    shape = Shape(6, 32, 64)
    runner = OnnxRunner(lambda _: export_onnx(module, shape), INPUTS, "cpu")
    inputs = golden_inputs(shape)
    answer = runner.run_tensors(*(torch.from_numpy(array) for array in inputs))
    np.testing.assert_array_equal(answer.numpy(), runner.run(*inputs))


@needs_onnx
def test_onnx_with_other_inputs_is_refused_and_torch_takes_over() -> None:
    module = load_weights(model_file("light"))
    shape = Shape(4, 32, 32)
    model, inputs = export_onnx(module, shape), golden_inputs(shape)
    wrong = OnnxRunner(lambda _: model, ("cost", "smoothed", "image"), "cpu")
    with pytest.raises(
        RunnerError, match=r"expected inputs \['cost'.* the model has \['energy', 'image', 'smoothed'\]"
    ):
        wrong.run(*inputs)
    with pytest.raises(RunnerError, match="cannot be loaded"):
        OnnxRunner(lambda _: model[:1000], INPUTS, "cpu").run(*inputs)
    with pytest.raises(RunnerError, match="onnxruntime: "):  # a graph for one shape, and another one comes
        OnnxRunner(lambda _: model, INPUTS, "cpu").run(*golden_inputs(Shape(4, 64, 32)))
    chain = ChainRunner([("onnx", lambda: wrong), ("torch", lambda: TorchRunner(module, "cpu"))])
    assert chain.run(*inputs).shape == (4, 32, 32)
    assert chain.description == "torch on cpu" and "expected inputs" in chain.problems[0]


def test_onnx_runtime_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ValueError, match=r"network.runner: ONNX Runtime is not installed; `pip install dfs_ros\[onnx\]`"
    ):
        load_network(NetworkConfig(runner="onnx"), "cpu")


@needs_onnx
@no_gpu
def test_onnx_runtime_without_cuda() -> None:
    with pytest.raises(RunnerError, match="has no CUDA"):
        OnnxRunner(lambda _: b"", INPUTS, "cuda")


def test_a_network_that_cannot_be_exported_runs_in_torch(monkeypatch) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    monkeypatch.setitem(sys.modules, "onnx", None)
    network = load_network(NetworkConfig(runner="onnx"), "cpu")
    assert network.probability(*images(4, 32, 32)).shape == (4, 32, 32)
    assert network.description == "light, torch on cpu"
    assert "onnx" in network.problems[0]


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
    shape = Shape(2, 32, 32)
    plan = build_engine(trt, export_onnx(load_weights(model_file("light")), shape), shape.of_inputs())
    log = make_logger(trt)
    runtime = trt.Runtime(log)
    for wrong, reason in ((plan[:1000], "plan.header.size"), (b"no engine" * 1000, "cannot be deserialised")):
        with pytest.raises(RunnerError, match=reason):
            _Loaded(trt, runtime, log, wrong, INPUTS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_engines_answer_as_torch(backend, precision) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    module = load_weights(model_file("light"))

    def model(*shape):
        return engine_model(module, precision, *shape)

    for size in ((8, 64, 96), (7, 32, 64)):
        runner = TensorRTRunner(backend, model, precision=precision)
        asked = model(*size)
        assert asked.difference(runner.run(*golden_inputs(Shape(*size)))) <= asked.tolerance
        tensors = [torch.from_numpy(array).cuda() for array in golden_inputs(Shape(*size))]
        answer = runner.run_tensors(*tensors)
        assert answer.is_cuda and asked.difference(answer.cpu().numpy()) <= asked.tolerance

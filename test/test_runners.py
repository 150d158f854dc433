"""Runners behind one interface, and the chain that finds one that works."""

import logging
import shutil
import sys

import numpy as np
import pytest
import torch

from dfs_ros.config import NetworkConfig
from dfs_ros.network import Network, load_network
from dfs_ros.network.export import INPUTS, Shape, export_onnx, golden_inputs
from dfs_ros.network.running import engine_model, half_torch_runner
from dfs_ros.network.weights import load_weights, model_file
from dfs_ros.runner.base import Golden, Runner, RunnerError, RunnerMissing, WrongAnswer
from dfs_ros.runner.chain import ChainRunner
from dfs_ros.runner.onnx import OnnxRunner
from dfs_ros.runner.tensorrt import (
    TensorRTRunner,
    _Loaded,
    build_engine,
    driver_version,
    execution_context,
    import_backend,
    make_logger,
)
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
    assert chain.description == "fixed 2.0" and chain.problems == [("warning", "first: not installed")]
    assert "first: not installed" in caplog.text and "network runs in fixed 2.0" in caplog.text
    assert chain.run(np.zeros(3, np.float32)).tolist() == [2.0, 2.0, 2.0]


def test_a_link_that_fails_later_is_reported_and_the_same_inputs_go_to_the_next() -> None:
    chain = ChainRunner([("a", lambda: Fixed(1.0, fails_from=1)), ("b", refused), ("c", lambda: Fixed(3.0))])
    x = np.zeros(2, np.float32)
    assert chain.run(x)[0] == 1.0 and chain.problems == []
    assert chain.run(x)[0] == 3.0
    assert chain.problems == [("warning", "fixed 1.0: no more"), ("warning", "b: not installed")]
    assert chain.run_tensors(torch.zeros(2)).tolist() == [3.0, 3.0]
    assert Network("n", chain).problems == chain.problems and "fixed 3.0" in Network("n", chain).description


class Full(Fixed):
    """Finds no memory."""

    def run(self, *inputs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def full() -> Runner:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


def test_too_little_memory_moves_the_chain_on(caplog) -> None:
    chain = ChainRunner([("a", full), ("b", lambda: Full(1.0)), ("c", lambda: Fixed(3.0))])
    assert chain.description == "fixed 1.0"
    assert chain.run(np.zeros(2, np.float32)).tolist() == [3.0, 3.0]
    assert chain.problems == [
        ("warning", "a: out of device memory (cuDNN error: CUDNN_STATUS_ALLOC_FAILED)"),
        ("warning", "fixed 1.0: out of device memory (CUDA out of memory. Tried to allocate 2.00 GiB)"),
    ]
    assert "out of device memory" in caplog.text


def broken() -> Runner:
    raise RuntimeError("an illegal memory access was encountered")


def test_what_is_no_failure_of_a_runner_is_not_swallowed() -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        ChainRunner([("a", broken), ("c", lambda: Fixed(3.0))])


def test_problems_are_as_grave_as_they_are(caplog) -> None:
    def missing() -> Runner:
        raise RunnerMissing("tensorrt: cannot be imported")

    def wrong() -> Runner:
        golden = Golden(lambda: [], lambda answer: float(np.abs(answer).max()), 0.1)
        assert golden.check("right", np.full(2, 0.1)) == {"difference": 0.1, "tolerance": 0.1}
        golden.check("wrong", np.array([0.2]))
        raise AssertionError

    def nothing() -> Runner:
        raise WrongAnswer(str(Golden(lambda: [], lambda answer: float("nan"), 0.1).check("nan", np.zeros(1))))

    with caplog.at_level(logging.INFO):
        chain = ChainRunner([("tensorrt", missing), ("fp16", wrong), ("fp32", nothing), ("torch", lambda: Fixed(1.0))])
    assert [problem.level for problem in chain.problems] == ["note", "error", "error"]
    assert "wrong: its depth differs from PyTorch's by 0.2 of the range, over 0.1" in chain.problems[1].text
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "ERROR", "INFO"]


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
    runner = OnnxRunner(lambda: export_onnx(module, shape), INPUTS, "cpu")
    inputs = golden_inputs(shape)
    answer = runner.run_tensors(*(torch.from_numpy(array) for array in inputs))
    np.testing.assert_array_equal(answer.numpy(), runner.run(*inputs))


@needs_onnx
def test_onnx_with_other_inputs_is_refused_and_torch_takes_over() -> None:
    module = load_weights(model_file("light"))
    shape = Shape(4, 32, 32)
    model, inputs = export_onnx(module, shape), golden_inputs(shape)
    wrong = OnnxRunner(lambda: model, ("cost", "smoothed", "image"), "cpu")
    with pytest.raises(
        RunnerError, match=r"expected inputs \['cost'.* the model has \['energy', 'image', 'smoothed'\]"
    ):
        wrong.run(*inputs)
    with pytest.raises(RunnerError, match="cannot be loaded"):
        OnnxRunner(lambda: model[:1000], INPUTS, "cpu").run(*inputs)
    with pytest.raises(RunnerError, match="onnxruntime: "):  # a graph for one shape, and another one comes
        OnnxRunner(lambda: model, INPUTS, "cpu").run(*golden_inputs(Shape(4, 64, 32)))
    chain = ChainRunner([("onnx", lambda: wrong), ("torch", lambda: TorchRunner(module, "cpu"))])
    assert chain.run(*inputs).shape == (4, 32, 32)
    assert chain.description == "torch on cpu" and "expected inputs" in chain.problems[0].text


def other_network():
    """Weights that a file is not made of."""
    module = load_weights(model_file("light"))
    with torch.no_grad():
        module.score.bias += torch.tensor([3.0, -3.0, 0.0, 0.0])
    return module


@needs_onnx
def test_a_file_that_answers_wrong_is_not_used(monkeypatch) -> None:
    """The real chain, with the ONNX file of other weights."""
    wrong = export_onnx(other_network(), Shape(9, 64, 96), "fp32", dynamic=True)
    monkeypatch.setattr("dfs_ros.network.running.onnx_of", lambda *_: wrong)
    network = load_network(NetworkConfig(runner="onnx"), "cpu")
    expected = load_network(NetworkConfig(runner="torch"), "cpu").probability(*images(7, 33, 40))
    np.testing.assert_array_equal(network.probability(*images(7, 33, 40)), expected)
    (problem,) = network.problems
    assert problem.level == "error" and "its depth differs from PyTorch's by" in problem.text
    assert network.description == "light, torch on cpu"


@needs_onnx
def test_a_file_that_is_cut_short_is_not_used(monkeypatch) -> None:
    right = export_onnx(load_weights(model_file("light")), Shape(9, 64, 96), "fp32", dynamic=True)
    monkeypatch.setattr("dfs_ros.network.running.onnx_of", lambda *_: right[: len(right) // 2])
    network = load_network(NetworkConfig(runner="onnx"), "cpu")
    assert network.probability(*images(4, 32, 32)).shape == (4, 32, 32)
    (problem,) = network.problems
    assert problem.level == "warning" and "the model cannot be loaded" in problem.text


@needs_onnx
def test_precision_of_onnx_runtime() -> None:
    expected = load_network(NetworkConfig(runner="torch"), "cpu").probability(*images(8, 64, 64))
    network = load_network(NetworkConfig(runner="onnx", precision="fp16"), "cpu")
    half = network.probability(*images(8, 64, 64))
    assert " fp16 on cpu" in network.description and network.problems == []
    assert 1e-7 < np.abs(half - expected).max() < 0.05  # another precision, and not another answer


@no_gpu
def test_precision_without_a_gpu() -> None:
    for runner in ("auto", "torch"):
        with pytest.raises(ValueError, match=r"network.precision: fp16 needs a CUDA GPU, or the runner onnx"):
            load_network(NetworkConfig(runner=runner, precision="fp16"))
        assert load_network(NetworkConfig(runner=runner, precision="fp32")).description == "light, torch on cpu"


def test_half_precision_in_torch_is_held_to_the_golden_inputs(monkeypatch) -> None:
    module = load_weights(model_file("light"))
    runner = half_torch_runner(module, "cpu", graphs=False)
    assert runner.description == "torch fp16 on cpu"
    inputs = golden_inputs(Shape(6, 32, 64))
    expected = TorchRunner(module, "cpu").run(*inputs)
    answer = runner.run(*inputs)
    assert answer.dtype == np.float32 and 1e-7 < np.abs(answer - expected).max() < 0.05
    monkeypatch.setattr("dfs_ros.network.running.TOLERANCE", {"fp16": 1e-9})
    with pytest.raises(WrongAnswer, match="torch fp16 on cpu: its depth differs"):
        half_torch_runner(module, "cpu", graphs=False)


def test_recorded_networks_follow_their_inputs() -> None:
    from test_on_device import record_by_hand

    from dfs_ros.cuda_graphs import CudaGraphs

    module = load_weights(model_file("light"))
    plain, recorded = TorchRunner(module, "cpu", graphs=False), TorchRunner(module, "cpu")
    recorded._graphs = CudaGraphs(record=record_by_hand)
    for seed in range(4):
        for shape in (Shape(4, 32, 32), Shape(5, 32, 64)):
            inputs = golden_inputs(shape, seed)
            np.testing.assert_array_equal(recorded.run(*inputs), plain.run(*inputs))


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
        OnnxRunner(lambda: b"", INPUTS, "cuda")


def test_a_network_that_cannot_be_exported_runs_in_torch(monkeypatch, tmp_path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    monkeypatch.setitem(sys.modules, "onnx", None)
    file = shutil.copy(model_file("light"), tmp_path / "mine.safetensors")  # without ONNX files beside it
    network = load_network(NetworkConfig(name=str(file), runner="onnx"), "cpu")
    assert network.probability(*images(4, 32, 32)).shape == (4, 32, 32)
    assert network.description.endswith("torch on cpu")
    assert "needs the package onnx" in network.problems[0].text and network.problems[0].level == "warning"


def test_shipped_files_serve_where_the_package_onnx_is_missing(monkeypatch) -> None:
    """As on a robot: also for engines, which are then built of the file for all shapes."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setitem(sys.modules, "onnx", None)
    network = load_network(NetworkConfig(runner="onnx"), "cpu")
    expected = load_network(NetworkConfig(runner="torch"), "cpu").probability(*images(7, 50, 75))
    np.testing.assert_allclose(network.probability(*images(7, 50, 75)), expected, atol=1e-4)
    assert "onnxruntime" in network.description and network.problems == []
    module = load_weights(model_file("light"))
    for precision in ("fp32", "fp16"):
        model = engine_model(module, precision, 7, 32, 64, file=model_file("light"))
        assert len(build_engine(trt, model.onnx, model.shapes)) > 500_000


def test_a_file_of_other_weights_beside_them_is_not_used(monkeypatch, tmp_path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    wrong = export_onnx(other_network(), Shape(9, 64, 96), "fp32", dynamic=True)
    monkeypatch.setitem(sys.modules, "onnx", None)
    file = shutil.copy(model_file("light"), tmp_path / "mine.safetensors")
    (tmp_path / "mine-dynamic-fp32.onnx").write_bytes(wrong)
    network = load_network(NetworkConfig(name=str(file), runner="onnx"), "cpu")
    expected = load_network(NetworkConfig(runner="torch"), "cpu").probability(*images(4, 32, 32))
    np.testing.assert_array_equal(network.probability(*images(4, 32, 32)), expected)
    assert [problem.level for problem in network.problems] == ["error"]


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


# --- what is told while an engine is built --------------------------------------------------------------------------


def test_preparing_is_told_and_over_with_the_answer() -> None:
    """By a runner that builds as TensorRT's do, at the first volume."""
    told: list[str] = []

    class Building(Fixed):
        def run(self, *inputs):
            network.note_progress("building engine", 0.25)
            told.append(network.preparing)
            return super().run(*inputs)

    network = Network("n", Building(1.0))
    heard: list[tuple[str, float]] = []
    network.listener = lambda what, share: heard.append((what, share))
    assert network.preparing == ""
    network.probability(*images(2, 32, 32))
    assert told == ["building engine, 25 %"] and heard == [("building engine", 0.25)] and network.preparing == ""


@needs_onnx
def test_building_can_be_ended() -> None:
    """The real builder: what the listener raises comes out of it."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    shape, told = Shape(2, 32, 32), []

    def stop(what: str, share: float) -> None:
        told.append(share)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(trt, export_onnx(load_weights(model_file("light")), shape), shape.of_inputs(), stop)
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

    def model(*shape):
        return engine_model(module, precision, *shape)

    for size in ((8, 64, 96), (7, 32, 64)):
        runner = TensorRTRunner(backend, model, precision=precision)
        asked = model(*size)
        assert asked.golden.difference(runner.run(*golden_inputs(Shape(*size)))) <= asked.golden.tolerance
        tensors = [torch.from_numpy(array).cuda() for array in golden_inputs(Shape(*size))]
        answer = runner.run_tensors(*tensors)
        assert answer.is_cuda and asked.golden.difference(answer.cpu().numpy()) <= asked.golden.tolerance

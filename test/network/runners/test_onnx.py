"""ONNX Runtime: it answers as PyTorch does, and wrong or foreign files are not used."""

import shutil
import sys

import numpy as np
import pytest
import torch
from runner_rig import exported, exported_of_other_weights, images, light, needs_onnx, no_gpu, own_cache

from dfs_ros.config import NetworkConfig
from dfs_ros.cost_volume.halving import half_size
from dfs_ros.network import load_network
from dfs_ros.network.export import INPUTS, Shape, golden_inputs
from dfs_ros.network.runners.base import RunnerError
from dfs_ros.network.runners.chain import ChainRunner
from dfs_ros.network.runners.choose import engine_model
from dfs_ros.network.runners.onnx import OnnxRunner
from dfs_ros.network.runners.tensorrt import (
    build_engine,
)
from dfs_ros.network.runners.torch import TorchRunner
from dfs_ros.network.weights import model_file

__all__ = ["own_cache"]  # fixtures


@needs_onnx
def test_onnx_runtime_by_name_answers_as_torch_at_any_size() -> None:
    onnx = load_network(NetworkConfig(runner="onnx", precision="fp32"), "cpu")
    reference = load_network(NetworkConfig(runner="torch", precision="fp32"), "cpu")
    assert "onnxruntime" in onnx.description and "on cpu" in onnx.description
    for size in ((8, 64, 64), (7, 50, 75), (2, 33, 31), (13, 64, 37)):
        arrays = images(*size)
        p, q = onnx.probability(*arrays), reference.probability(*arrays)
        assert p.shape == (size[0], *half_size(size[1:]))
        np.testing.assert_allclose(p, q, atol=1e-4)
    assert onnx.faults == []


@needs_onnx
def test_onnx_runtime_takes_tensors() -> None:
    runner = OnnxRunner(exported, INPUTS, "cpu")
    inputs = golden_inputs(Shape(8, 64, 96))
    answer = runner.run_tensors(*(torch.from_numpy(array) for array in inputs))
    np.testing.assert_array_equal(answer.numpy(), runner.run(*inputs))


@needs_onnx
def test_onnx_with_other_inputs_is_refused_and_torch_takes_over() -> None:
    model, inputs = exported(), golden_inputs(Shape(8, 64, 96))
    wrong = OnnxRunner(lambda: model, ("cost", "smoothed", "image"), "cpu")
    with pytest.raises(
        RunnerError, match=r"expected inputs \['cost'.* the model has \['energy', 'image', 'smoothed'\]"
    ):
        wrong.run(*inputs)
    with pytest.raises(RunnerError, match="cannot be loaded"):
        OnnxRunner(lambda: model[:1000], INPUTS, "cpu").run(*inputs)
    with pytest.raises(RunnerError, match="onnxruntime: "):  # a graph for one shape, and another one comes
        OnnxRunner(lambda: model, INPUTS, "cpu").run(*golden_inputs(Shape(8, 96, 64)))
    chain = ChainRunner([("onnx", lambda: wrong), ("torch", lambda: TorchRunner(light(), "cpu"))])
    assert chain.run(*inputs).shape == (8, 32, 48)
    assert chain.description == "torch on cpu" and "expected inputs" in chain.faults[0].text


@needs_onnx
def test_a_file_that_answers_wrong_is_not_used(monkeypatch) -> None:
    """The real chain, with the ONNX file of other weights."""
    monkeypatch.setattr("dfs_ros.network.runners.choose.onnx_of", lambda *_: exported_of_other_weights())
    network = load_network(NetworkConfig(runner="onnx", precision="fp32"), "cpu")
    expected = load_network(NetworkConfig(runner="torch", precision="fp32"), "cpu").probability(*images(7, 33, 40))
    np.testing.assert_array_equal(network.probability(*images(7, 33, 40)), expected)
    (fault,) = network.faults
    assert fault.level == "error" and "its depth differs from PyTorch's by" in fault.text
    assert network.description == "light, torch on cpu"


@needs_onnx
def test_a_file_that_is_cut_short_is_not_used(monkeypatch) -> None:
    right = exported(9, "fp32", dynamic=True)
    monkeypatch.setattr("dfs_ros.network.runners.choose.onnx_of", lambda *_: right[: len(right) // 2])
    network = load_network(NetworkConfig(runner="onnx", precision="fp32"), "cpu")
    assert network.probability(*images(4, 32, 32)).shape == (4, 16, 16)
    (fault,) = network.faults
    assert fault.level == "warning" and "the model cannot be loaded" in fault.text


@needs_onnx
def test_precision_of_onnx_runtime() -> None:
    expected = load_network(NetworkConfig(runner="torch", precision="fp32"), "cpu").probability(*images(8, 64, 64))
    network = load_network(NetworkConfig(runner="onnx", precision="fp16"), "cpu")
    half = network.probability(*images(8, 64, 64))
    assert " fp16 on cpu" in network.description and network.faults == []
    assert 1e-7 < np.abs(half - expected).max() < 0.05  # another precision, and not another answer


def test_onnx_runtime_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ValueError, match=r"network.runner: ONNX Runtime is not installed; `pip install dfs_ros\[onnx\]`"
    ):
        load_network(NetworkConfig(runner="onnx", precision="fp32"), "cpu")


@needs_onnx
@no_gpu
def test_onnx_runtime_without_cuda() -> None:
    with pytest.raises(RunnerError, match="has no CUDA"):
        OnnxRunner(lambda: b"", INPUTS, "cuda")


def test_a_network_that_cannot_be_exported_runs_in_torch(monkeypatch, tmp_path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    monkeypatch.setitem(sys.modules, "onnx", None)
    file = shutil.copy(model_file("light"), tmp_path / "mine.safetensors")  # without ONNX files beside it
    network = load_network(NetworkConfig(name=str(file), runner="onnx", precision="fp32"), "cpu")
    assert network.probability(*images(4, 32, 32)).shape == (4, 16, 16)
    assert network.description.endswith("torch on cpu")
    assert "needs the package onnx" in network.faults[0].text and network.faults[0].level == "warning"


def test_shipped_files_serve_where_the_package_onnx_is_missing(monkeypatch) -> None:
    """As on a robot: also for engines, which are then built of the file for all shapes."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setitem(sys.modules, "onnx", None)
    network = load_network(NetworkConfig(runner="onnx", precision="fp32"), "cpu")
    expected = load_network(NetworkConfig(runner="torch", precision="fp32"), "cpu").probability(*images(7, 50, 75))
    np.testing.assert_allclose(network.probability(*images(7, 50, 75)), expected, atol=1e-4)
    assert "onnxruntime" in network.description and network.faults == []
    for precision in ("fp32", "fp16"):
        model = engine_model(light(), precision, Shape(7, 32, 64), file=model_file("light"))
        assert model.onnx == model_file("light").with_name(f"light-dynamic-{precision}.onnx").read_bytes()
    assert len(build_engine(trt, model.onnx, model.shapes)) > 500_000


def test_a_file_of_other_weights_beside_them_is_not_used(monkeypatch, tmp_path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    wrong = exported_of_other_weights()
    monkeypatch.setitem(sys.modules, "onnx", None)
    file = shutil.copy(model_file("light"), tmp_path / "mine.safetensors")
    (tmp_path / "mine-dynamic-fp32.onnx").write_bytes(wrong)
    network = load_network(NetworkConfig(name=str(file), runner="onnx", precision="fp32"), "cpu")
    expected = load_network(NetworkConfig(runner="torch", precision="fp32"), "cpu").probability(*images(4, 32, 32))
    np.testing.assert_array_equal(network.probability(*images(4, 32, 32)), expected)
    assert [fault.level for fault in network.faults] == ["error"]


def test_a_file_of_large_tensors_beside_the_weights_is_not_loaded(monkeypatch, tmp_path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    model = onnx.ModelProto(ir_version=8)
    model.graph.initializer.add(name="w", dims=[1 << 34], data_type=onnx.TensorProto.FLOAT)
    monkeypatch.setitem(sys.modules, "onnx", None)
    file = shutil.copy(model_file("light"), tmp_path / "mine.safetensors")
    (tmp_path / "mine-dynamic-fp32.onnx").write_bytes(model.SerializeToString())
    network = load_network(NetworkConfig(name=str(file), runner="onnx", precision="fp32"), "cpu")
    assert network.probability(*images(4, 32, 32)).shape == (4, 16, 16)
    assert "expected a tensor of at most 0 numbers" in network.faults[0].text

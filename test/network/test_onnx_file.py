"""ONNX files beside weights: what they declare is bounded before an engine allocates it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfs_ros.network.onnx_file import read_onnx
from dfs_ros.network.weights import load_weights, model_file

HUGE = 1 << 40


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_files_of_this_package(precision: str) -> None:
    file = model_file("light").with_name(f"light-dynamic-{precision}.onnx")
    weights = sum(tensor.numel() for tensor in load_weights(model_file("light")).state_dict().values())
    assert read_onnx(file, weights) == file.read_bytes()


def _initializer(onnx: Any, graph: Any) -> None:
    graph.initializer.add(name="w", dims=[HUGE], data_type=onnx.TensorProto.FLOAT, raw_data=b"\0" * 8)


def _product(onnx: Any, graph: Any) -> None:
    graph.initializer.add(name="w", dims=[1 << 20, 1 << 20], data_type=onnx.TensorProto.INT8, float_data=[0.0] * 9)


def _negative(onnx: Any, graph: Any) -> None:
    graph.initializer.add(name="w", dims=[-1, 0], data_type=onnx.TensorProto.FLOAT)


def _constant(onnx: Any, graph: Any) -> None:
    tensor = onnx.TensorProto(dims=[HUGE], data_type=onnx.TensorProto.FLOAT)
    graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))


def _branch(onnx: Any, graph: Any) -> None:
    inner = onnx.GraphProto(name="inner")
    _initializer(onnx, inner)
    graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner))


def _deep(onnx: Any, graph: Any) -> None:
    inner = onnx.GraphProto(name="inner")
    for _ in range(10):
        outer = onnx.GraphProto(name="outer")
        outer.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner))
        inner = outer
    graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner))


def _sparse(onnx: Any, graph: Any) -> None:
    graph.sparse_initializer.add(dims=[HUGE])


def _sparse_constant(onnx: Any, graph: Any) -> None:
    graph.node.append(onnx.helper.make_node("Constant", [], ["c"], sparse_value=onnx.SparseTensorProto(dims=[HUGE])))


def _external(onnx: Any, graph: Any) -> None:
    tensor = graph.initializer.add(name="w", dims=[4], data_type=onnx.TensorProto.FLOAT, data_location=1)
    tensor.external_data.add(key="location", value="/etc/passwd")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_initializer, r"at most 8 numbers, as its data has bytes, received shape \[1099511627776\]"),
        (_product, r"at most 36 numbers.* received shape \[1048576, 1048576\]"),
        (_negative, r"received shape \[18446744073709551615, 0\]"),
        (_constant, "at most 0 numbers"),
        (_branch, "at most 8 numbers"),
        (_deep, "at most 8 graphs within each other"),
        (_sparse, "no sparse tensors"),
        (_sparse_constant, "no sparse tensors"),
        (_external, "no tensors in other files"),
    ],
)
def test_a_small_file_of_large_tensors(tmp_path: Path, spoil: Callable[[Any, Any], None], message: str) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = onnx.ModelProto(ir_version=8)
    model.graph.initializer.add(name="good", dims=[2, 3], data_type=onnx.TensorProto.FLOAT, raw_data=b"\0" * 24)
    file = tmp_path / "small.onnx"
    file.write_bytes(model.SerializeToString())
    assert read_onnx(file, 10) == file.read_bytes()
    spoil(onnx, model.graph)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=rf"small\.onnx: not an ONNX file of `dfs export`: .*{message}"):
        read_onnx(file, 10)


def test_functions(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = onnx.ModelProto(ir_version=8)
    model.functions.add(name="twice")
    (tmp_path / "small.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="expected no functions"):
        read_onnx(tmp_path / "small.onnx", 10)


def test_a_file_larger_than_its_network(tmp_path: Path) -> None:
    file = tmp_path / "large.onnx"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ValueError, match="expected at most 1048616 bytes, for a network of 10 weights, received 10995"):
        read_onnx(file, 10)


def test_damaged_files(tmp_path: Path) -> None:
    """Cut and overwritten files are taken or refused, and raise nothing else."""
    content = model_file("light").with_name("light-dynamic-fp16.onnx").read_bytes()
    file, random_, refused = tmp_path / "damaged.onnx", random.Random(7), 0
    for case in range(60):
        at = random_.randrange(4000) if case % 2 else len(content) - 1 - random_.randrange(4000)
        file.write_bytes(content[:at] if case % 3 else content[:at] + random_.randbytes(9) + content[at + 9 :])
        try:
            read_onnx(file, len(content))
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{file}: ")
    assert refused > 40

"""Networks as ONNX: what is in the graph, ONNX Runtime against PyTorch, and engines built without a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from runner_rig import exported, light

from dfs_ros.cli.main import main
from dfs_ros.config import NetworkConfig
from dfs_ros.network.export import (
    INPUTS,
    OUTPUT,
    TOLERANCE,
    Shape,
    difference,
    export_onnx,
    golden_inputs,
    onnx_of,
)
from dfs_ros.network.light import LightNetwork
from dfs_ros.network.runners.base import RunnerError
from dfs_ros.network.runners.onnx import OnnxRunner
from dfs_ros.network.runners.tensorrt import build_engine, import_backend
from dfs_ros.network.runners.torch import TorchRunner
from dfs_ros.network.weights import load_weights, model_file
from dfs_ros.system.folders import share_folder

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

VARIANTS = [("fp32", False, 0), ("fp32", True, 1), ("fp16", False, 1), ("fp16", True, 0)]
"""Precision, dynamic, rest of the number of hypotheses, which the network works on in groups: all pairs of values."""


@pytest.fixture
def module() -> LightNetwork:
    return light()


def runner_of(model: bytes) -> OnnxRunner:
    return OnnxRunner(lambda: model, INPUTS, "cpu")


def nodes_of(model: bytes) -> list[onnx.NodeProto]:
    return list(onnx.load_from_string(model).graph.node)


@pytest.mark.parametrize(("precision", "dynamic", "rest"), VARIANTS)
def test_onnx_runtime_answers_as_torch(module: LightNetwork, precision: str, dynamic: bool, rest: int) -> None:
    runner, reference = runner_of(exported(8 + rest, precision, dynamic)), TorchRunner(module, "cpu")
    others = [Shape(2, 32, 32), Shape(3, 32, 64), Shape(20, 96, 64), Shape(21, 64, 96)] if dynamic else []
    for shape in [Shape(8 + rest, 64, 96), *others]:
        inputs = golden_inputs(shape, seed=3)
        answer = runner.run(*inputs)
        assert answer.dtype == np.float32
        assert difference(answer, reference.run(*inputs)) < 1e-3, shape


@pytest.mark.parametrize("precision", TOLERANCE)
def test_types_are_strong_and_the_ends_float32(precision: str) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(exported(8, precision)))
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in [*graph.input, *graph.output, *graph.value_info]}
    assert [i.name for i in graph.input] == list(INPUTS) and [o.name for o in graph.output] == [OUTPUT]
    assert {kinds[v.name] for v in [*graph.input, *graph.output]} == {onnx.TensorProto.FLOAT}
    softmax = next(node for node in graph.node if node.op_type == "Softmax")
    assert softmax.output[0] == OUTPUT and kinds[softmax.input[0]] == onnx.TensorProto.FLOAT
    expected = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 20 and {kinds[node.output[0]] for node in convolutions} == {expected}
    weights = {w.name: w.data_type for w in graph.initializer}
    assert {weights[node.input[1]] for node in convolutions} == {expected}


def test_no_operation_that_engines_lack() -> None:
    for precision, dynamic, rest in VARIANTS:
        names = {node.op_type for node in nodes_of(exported(8 + rest, precision, dynamic))}
        assert not names & {"GridSample", "DFT", "DeformConv", "Loop", "If", "NonZero"}
        assert {"Conv", "Softmax"} <= names


def test_exports_are_reproducible_and_leave_the_network_alone(module: LightNetwork) -> None:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert export_onnx(module, Shape(8, 64, 96), "fp16") == exported(8, "fp16")
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, before[name])


def test_kept_files_follow_the_weights_and_damage_is_mended(module, tmp_path) -> None:
    shape = Shape(4, 32, 32)
    first = onnx_of(module, shape, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    assert onnx_of(module, shape, folder=tmp_path) == first and file.stat().st_mtime_ns == stamp
    file.write_bytes(file.read_bytes()[:-100])
    assert onnx_of(module, shape, folder=tmp_path) == first
    other = load_weights(model_file("light"))
    with torch.no_grad():
        other.stem.weight[0, 0, 0, 0] += 0.1
    assert onnx_of(other, shape, folder=tmp_path) != first
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "a file").write_text("")
    assert onnx_of(module, shape, folder=tmp_path / "a file" / "folder") == first  # cannot be kept


def test_the_comparison_can_tell(module: LightNetwork) -> None:
    shape = Shape(8, 32, 32)
    right = TorchRunner(module, "cpu").run(*golden_inputs(shape))
    assert difference(right, right) == 0.0
    assert difference(np.roll(right, 1, axis=0), right) > 0.1
    wrong = right.copy()
    wrong[:, 3, 4] = wrong[::-1, 3, 4]
    assert difference(wrong, right) > 0.01
    wrong[0, 5, 5] = np.nan
    assert difference(wrong, right) == float("inf")
    assert difference(np.zeros_like(right), right) == float("inf")
    assert difference(right[1:], right) == float("inf")


def test_shapes_and_precisions_that_cannot_be(module: LightNetwork) -> None:
    for wrong in ((1, 64, 64), (8, 0, 64)):
        with pytest.raises(ValueError, match="2 or more hypotheses"):
            Shape(*wrong)
    with pytest.raises(ValueError, match="multiples of 32, received 64 x 70"):
        Shape(8, 64, 70)
    with pytest.raises(ValueError, match="precision: expected one of fp32, fp16"):
        export_onnx(module, Shape(8, 64, 64), "int8")


@pytest.fixture(scope="module")
def rtx():
    """TensorRT for RTX, which parses and builds without a GPU."""
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.mark.parametrize(("precision", "dynamic", "rest"), VARIANTS)
def test_every_variant_builds_to_an_engine(rtx, precision, dynamic, rest) -> None:
    shape, told = Shape(8 + rest, 64, 96), []
    model = exported(8 + rest, precision, dynamic)
    plan = build_engine(rtx, model, shape.of_inputs(), lambda step, share: told.append(share))
    assert len(plan) > 500_000  # more than its weights
    assert told[0] == 0.0 and told[-1] == 1.0 and all(0.0 <= share <= 1.0 for share in told)


def test_wrong_files_and_names_do_not_build(rtx) -> None:
    shape, model = Shape(8, 64, 96), exported()
    with pytest.raises(RunnerError, match="cannot be parsed"):
        build_engine(rtx, b"no ONNX", shape.of_inputs())
    with pytest.raises(RunnerError, match="cannot be parsed"):
        build_engine(rtx, model[: len(model) // 2], shape.of_inputs())
    with pytest.raises(RunnerError, match=r"expected inputs \['costs', .* has \['energy', 'image', 'smoothed'\]"):
        build_engine(rtx, model, {"costs": (1, 4, 32, 32), "smoothed": (1, 4, 32, 32), "image": (1, 4, 32, 32)})


def test_backends_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="backend: expected one of tensorrt, tensorrt_rtx"):
        import_backend("openvino")


def test_the_command_writes_and_verifies(tmp_path, capsys) -> None:
    size = ["--hypotheses", "6", "--height", "32", "--width", "64"]
    assert main(["export", "--output", str(tmp_path), *size, "--verify"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["light-6x32x64-fp16.onnx", "light-6x32x64-fp32.onnx"]
    said = capsys.readouterr().out
    assert said.count("onnxruntime") == 2 and said.count("good") >= 2 and "WRONG" not in said
    assert main(["export", "--output", str(tmp_path), *size, "--dynamic", "--precision", "fp16"]) == 0
    assert (tmp_path / "light-dynamic-fp16.onnx").is_file()
    assert main(["export", "--output", str(tmp_path), "--height", "100"]) == 2
    assert "multiples of 32" in capsys.readouterr().err


# --- the files that come with the package ---------------------------------------------------------------------------

SHIPPED = sorted(share_folder("models").glob("*.onnx"))
EXPORT = "`dfs export --output models --dynamic` makes the files of models/ anew"


def shipped_parts(file: Path) -> tuple[LightNetwork, str]:
    """The weights that a shipped file is of, and its precision: NETWORK-dynamic-PRECISION.onnx."""
    name, dynamic, precision = file.stem.rsplit("-", 2)
    assert dynamic == "dynamic" and precision in TOLERANCE
    return load_weights(model_file(name)).eval(), precision


def test_the_default_network_is_shipped_in_both_precisions() -> None:
    expected = {f"{NetworkConfig.name}-dynamic-{precision}.onnx" for precision in TOLERANCE}
    assert expected <= {file.name for file in SHIPPED}, EXPORT


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_files_answer_as_the_weights_beside_them(file: Path) -> None:
    network, precision = shipped_parts(file)
    runner, reference = runner_of(file.read_bytes()), TorchRunner(network, "cpu")
    for shape in (Shape(8, 64, 96), Shape(21, 32, 64), Shape(64, 64, 64)):
        inputs = golden_inputs(shape, seed=5)
        far = difference(runner.run(*inputs), reference.run(*inputs))
        # Other weights are farther away, however alike: fp32 comes to 1e-6, fp16 to 1e-4.
        assert far < (1e-5 if precision == "fp32" else 1e-3), f"{file.name} is of other weights? {EXPORT}"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_files_build_to_engines(rtx, file: Path) -> None:
    for shape in (Shape(64, 256, 256), Shape(33, 96, 64)):
        assert len(build_engine(rtx, file.read_bytes(), shape.of_inputs())) > 500_000


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_files_are_strongly_typed(file: Path) -> None:
    _, precision = shipped_parts(file)
    model = onnx.load_from_string(file.read_bytes())
    onnx.checker.check_model(model, full_check=True)
    weights = {w.name: w.data_type for w in model.graph.initializer}
    kinds = {weights[node.input[1]] for node in model.graph.node if node.op_type == "Conv"}
    assert kinds == {onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT}
    ends = {v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]}
    assert ends == {onnx.TensorProto.FLOAT}

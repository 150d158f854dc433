"""Runners behind one interface, and the chain that finds one that works."""

import logging

import numpy as np
import pytest
import torch
from runner_rig import Fixed, images, no_gpu, own_cache

from dfs_ros.config import NetworkConfig
from dfs_ros.network import Network, load_network
from dfs_ros.network.export import Shape, golden_inputs
from dfs_ros.network.runners.base import Golden, Runner, RunnerError, RunnerMissing, WrongAnswer
from dfs_ros.network.runners.chain import ChainRunner
from dfs_ros.network.runners.choose import half_torch_runner
from dfs_ros.network.runners.torch import TorchRunner
from dfs_ros.network.weights import load_weights, model_file

__all__ = ["own_cache"]  # fixtures


def refused() -> Runner:
    raise RunnerError("not installed")


def test_the_first_link_that_works_runs(caplog) -> None:
    with caplog.at_level(logging.INFO):
        chain = ChainRunner([("first", refused), ("second", lambda: Fixed(2.0)), ("third", lambda: Fixed(3.0))])
    assert chain.description == "fixed 2.0" and chain.faults == [("warning", "first: not installed")]
    assert "first: not installed" in caplog.text and "network runs in fixed 2.0" in caplog.text
    assert chain.run(np.zeros(3, np.float32)).tolist() == [2.0, 2.0, 2.0]


def test_a_link_that_fails_later_is_reported_and_the_same_inputs_go_to_the_next() -> None:
    chain = ChainRunner([("a", lambda: Fixed(1.0, fails_from=1)), ("b", refused), ("c", lambda: Fixed(3.0))])
    x = np.zeros(2, np.float32)
    assert chain.run(x)[0] == 1.0 and chain.faults == []
    assert chain.run(x)[0] == 3.0
    assert chain.faults == [("warning", "fixed 1.0: no more"), ("warning", "b: not installed")]
    assert chain.run_tensors(torch.zeros(2)).tolist() == [3.0, 3.0]
    assert Network("n", chain).faults == chain.faults and "fixed 3.0" in Network("n", chain).description


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
    assert chain.faults == [
        ("warning", "a: out of device memory (cuDNN error: CUDNN_STATUS_ALLOC_FAILED)"),
        ("warning", "fixed 1.0: out of device memory (CUDA out of memory. Tried to allocate 2.00 GiB)"),
    ]
    assert "out of device memory" in caplog.text


def test_memory_that_lacks_for_a_moment_costs_some_calls_alone(caplog) -> None:
    short = [1, 2, 3, 6]  # times that the better runner is asked and finds no memory
    asked = 0

    class Sometimes(Fixed):
        def run(self, *inputs):
            nonlocal asked
            asked += 1
            if asked in short:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().run(*inputs)

    chain = ChainRunner([("a", lambda: Sometimes(1.0)), ("b", lambda: Fixed(3.0))])
    x = np.zeros(2, np.float32)
    answers = [float(chain.run(x)[0]) for _ in range(80)]
    # Once at 0; again after 8, 16 and 32 calls; it works, twice; then it lacks memory again, for 8 calls.
    expected = [3.0] * (1 + 8) + [3.0] * (1 + 16) + [3.0] * (1 + 32) + [1.0] * 2 + [3.0] * (1 + 8) + [1.0] * 10
    assert answers == expected and len(expected) == 80
    assert chain.description == "fixed 1.0" and chain.faults == []
    assert caplog.text.count("out of device memory") == len(short)
    asked = 0
    chain.run(x)
    assert chain.description == "fixed 3.0"
    assert [fault.text[:35] for fault in chain.faults] == ["fixed 1.0: out of device memory (CU"]


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
    assert [fault.level for fault in chain.faults] == ["note", "error", "error"]
    assert "wrong: its depth differs from PyTorch's by 0.2 of the range, over 0.1" in chain.faults[1].text
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
    assert network.description == "light, torch on cpu" and network.faults == []


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
    monkeypatch.setattr("dfs_ros.network.runners.choose.TOLERANCE", {"fp16": 1e-9})
    with pytest.raises(WrongAnswer, match="torch fp16 on cpu: its depth differs"):
        half_torch_runner(module, "cpu", graphs=False)


def test_recorded_networks_follow_their_inputs() -> None:
    from cuda_rig import record_by_hand

    from dfs_ros.cost_volume.cuda.graphs import CudaGraphs

    module = load_weights(model_file("light"))
    plain, recorded = TorchRunner(module, "cpu", graphs=False), TorchRunner(module, "cpu")
    recorded._graphs = CudaGraphs(record=record_by_hand)
    for seed in range(4):
        for shape in (Shape(4, 32, 32), Shape(5, 32, 64)):
            inputs = golden_inputs(shape, seed)
            np.testing.assert_array_equal(recorded.run(*inputs), plain.run(*inputs))


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

"""What the depth node says while an engine is built, and of a runner that answered wrong: nothing wrong comes out."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from node_rig import ERROR, OK, PLANE_M, WARN, Rig, make_rig, plane  # noqa: F401

from dfs_ros.estimator import estimator
from dfs_ros.messages.convert import depth_from_message
from dfs_ros.network import Network
from dfs_ros.network.export import Shape, export_onnx
from dfs_ros.network.runners.base import Runner, RunnerError, RunnerMissing, WrongAnswer
from dfs_ros.network.runners.chain import ChainRunner
from dfs_ros.network.runners.torch import TorchRunner
from dfs_ros.network.weights import load_weights, model_file

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="onnx or ONNX Runtime is not installed",
)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def assert_depth_is_right(rig: Rig) -> None:
    depth_m = depth_from_message(rig.depths()[-1])
    assert np.isfinite(depth_m).mean() > 0.5
    assert np.nanmedian(depth_m) == pytest.approx(PLANE_M, rel=0.05)


@needs_onnx
def test_a_model_that_answers_wrong_is_an_error_and_its_depth_is_not_published(
    make_rig: Callable[..., Rig],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real chain: ONNX Runtime with the file of other weights, held to the golden inputs, then PyTorch."""
    other = load_weights(model_file("light"))
    with torch.no_grad():
        other.score.bias += torch.tensor([3.0, -3.0] + 6 * [0.0])
    wrong = export_onnx(other, Shape(9, 64, 96), "fp32", dynamic=True)
    monkeypatch.setattr("dfs_ros.network.runners.choose.onnx_of", lambda *_: wrong)
    rig = make_rig({"network": {"name": "light", "runner": "onnx"}})
    rig.listen("depth/image")
    assert "onnxruntime" in rig.status()[2]["network"]
    rig.send_sweep()
    assert_depth_is_right(rig)
    for _ in range(2):  # it stays said
        level, text, values = rig.status()
        assert level == ERROR
        assert "network: onnxruntime" in text and "its depth differs from PyTorch's by" in text
        assert "its depth differs" in values["network_problems"]
        assert values["network"] == "light, torch on cpu"


@needs_onnx
def test_a_model_that_is_cut_short_is_a_warning(
    make_rig: Callable[..., Rig],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dfs_ros.network.runners.choose.onnx_of", lambda *_: b"cut short")
    rig = make_rig({"network": {"name": "light", "runner": "onnx"}})
    rig.listen("depth/image")
    rig.send_sweep()
    assert_depth_is_right(rig)
    level, text, _ = rig.status()
    assert level == WARN and "the model cannot be loaded" in text


class BuiltAtFirst(Runner):
    """A runner that builds at its first volume, until it is let go; then answers as PyTorch, or fails."""

    def __init__(self, network: list[Network], fails: RunnerError | None = None) -> None:
        self._runner = TorchRunner(load_weights(model_file("light")), "cpu")
        self._network, self._fails = network, fails
        self.building, self.go = threading.Event(), threading.Event()

    @property
    def description(self) -> str:
        return "built"

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        if not self.go.is_set():
            self._network[0].note_progress("building engine", 0.4)
            self.building.set()
            assert self.go.wait(240)
        if self._fails is not None:
            raise self._fails
        return self._runner.run(*inputs)

    def run_tensors(self, *inputs: torch.Tensor) -> torch.Tensor:
        raise AssertionError


@pytest.mark.parametrize("fails", [None, WrongAnswer("its depth differs from PyTorch's by 0.2 of the range")])
def test_no_depth_while_an_engine_is_built(
    make_rig: Callable[..., Rig],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    fails: RunnerError | None,
) -> None:
    networks: list[Network] = []
    building = BuiltAtFirst(networks, fails)

    def not_here() -> Runner:
        raise RunnerMissing("tensorrt: cannot be imported")

    links = [("tensorrt", not_here), ("built", lambda: building), ("torch", lambda: building._runner)]
    networks.append(Network("light", ChainRunner(links)))
    monkeypatch.setattr(estimator, "network_for", lambda config: networks[0])
    rig = make_rig({"network": {"name": "light"}}, inline=False)
    rig.listen("depth/image")
    deadline = time.monotonic() + 240
    while rig.status()[2]["state"] != "computing depth":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    rig.send_sweep()
    assert building.building.wait(240)
    for _ in range(2):
        level, text, values = rig.status()
        assert level == WARN and "no depth until the network is ready: building engine, 40 %" in text
        assert values["state"] == "preparing the network"
        assert rig.depths() == []
    building.go.set()
    while not rig.depths():
        assert time.monotonic() < deadline
        time.sleep(0.01)
        rig.spin()
    assert_depth_is_right(rig)
    rig.send_sweep()  # the clock went on, and silence would be another fault
    level, text, values = rig.status()
    assert values["state"] == "computing depth"
    if fails is None:  # a runner that is not installed is no fault
        assert level == OK and values["network_problems"] == "tensorrt: cannot be imported"
    else:
        assert level == ERROR and "its depth differs from PyTorch's by 0.2" in text


def test_the_estimator_reports_what_is_built() -> None:
    """To whoever shows progress; and what that raises ends the building."""
    networks: list[Network] = []
    building = BuiltAtFirst(networks)
    networks.append(Network("light", building))
    from node_rig import FAST, plane_stack

    from dfs_ros.config import Config

    made = estimator.DepthEstimator(Config.from_dict(FAST))
    made._network = made._cpu.network = networks[0]
    told: list[tuple[str, float]] = []
    building.go.set()
    made.estimate(plane_stack(), progress=lambda step, share: told.append((step, share)))
    assert "building engine, 40 %" not in [step for step, _ in told]
    building.go.clear()

    class Stop(Exception):
        pass

    def stop(step: str, share: float) -> None:
        if step.startswith("building"):
            raise Stop(f"{step} {share}")

    with pytest.raises(Stop, match=r"building engine, 40 % 0\.65"):
        made.estimate(plane_stack(), progress=stop)
    assert made.preparing == ""

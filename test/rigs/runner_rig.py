"""What tests of runners share: a runner that answers a number, inputs, and other weights than the shipped ones."""

import functools

import numpy as np
import pytest
import torch

from dfs_ros.cost_volume.halving import half_size
from dfs_ros.network.export import Shape, export_onnx
from dfs_ros.network.light import LightNetwork
from dfs_ros.network.runners.base import Runner, RunnerError
from dfs_ros.network.weights import load_weights, model_file

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


def images(depths: int, height: int, width: int):
    rng = np.random.default_rng(5)
    energy, smoothed = rng.normal(0, 1, (2, depths, *half_size((height, width)))).astype(np.float32)
    guide = rng.random((height, width), dtype=np.float32)
    return energy, smoothed, guide, rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@functools.cache
def light() -> LightNetwork:
    """The shipped network, for tests that leave it as it is."""
    return load_weights(model_file("light")).eval()


@functools.cache
def exported(hypotheses: int = 8, precision: str = "fp32", dynamic: bool = False) -> bytes:
    """The shipped network as ONNX, of so many hypotheses for images of 64 x 96 pixels; made once for all tests."""
    return export_onnx(light(), Shape(hypotheses, 64, 96), precision, dynamic)


@functools.cache
def exported_of_other_weights() -> bytes:
    """A graph for any shape, as :func:`exported` makes it, of weights that no file is made of."""
    module = load_weights(model_file("light"))
    with torch.no_grad():
        module.score.bias += torch.tensor([3.0, -3.0] + 6 * [0.0])
    return export_onnx(module, Shape(9, 64, 96), "fp32", dynamic=True)

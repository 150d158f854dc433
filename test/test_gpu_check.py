"""What gpu_check does on a GPU, as far as it can be held to account without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_host import HostKernels, compiler
from numpy.typing import NDArray

from dfs_ros import regularization
from dfs_ros.cli import gpu_check
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cuda
from dfs_ros.cost_volume.cuda.volume import VolumeEngine
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.evaluation.gpu import check_parity, compare, depth_on_device, floor_of, guided_filter, textured_problem


def test_without_a_device_it_says_so_and_claims_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if cuda.why_not() is None:
        pytest.skip("there is a CUDA device here")
    assert gpu_check.main(["--output", str(tmp_path / "gpu.json")]) == gpu_check.NO_DEVICE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gpu_check: no CUDA device: ")
    assert "Nothing was checked" in said.err
    assert not (tmp_path / "gpu.json").exists()


def test_parity_passes_for_the_kernels_and_fails_for_wrong_ones(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("no C++ compiler (g++ or clang++) for the host build of the kernels")
    kernels = HostKernels(tmp_path)

    def compute(problem: Problem, **settings: Any) -> NDArray[Any]:
        engine = VolumeEngine(problem, kernels, torch.device("cpu"), **settings)
        return engine.volume(engine.spectra(problem.stack.images), problem.coc_px).numpy()

    results = check_parity(compute)
    assert len(results) == 3 * (2 * 5 + 4)
    assert [r.to_dict() for r in results if not r.passed] == []
    wrong = check_parity(lambda problem, **settings: compute(problem, **settings)[:, :, ::-1], methods=("residual",))
    assert len(wrong) == 14
    assert [r.to_dict() for r in wrong if r.passed] == []


def test_comparison_rejects_other_shapes_and_nan() -> None:
    expected = np.linspace(1, 2, 24).reshape(2, 3, 4)
    assert compare("", expected * (1 + 1e-5), expected, 1e-4).passed
    assert not compare("", expected * (1 + 1e-3), expected, 1e-4).passed
    assert not compare("", expected[:1], expected, 1e-4).passed
    assert not compare("", np.where(expected < 1.5, expected, np.nan), expected, 1e-4).passed


def test_floor_grows_as_it_must() -> None:
    problem = textured_problem(CostConfig(channels="rgb"), (64, 64), 5, 8)
    (height, width), floor = problem.padded_size, floor_of(problem)
    plane = height * width
    # 8 pairs of images (15, one left over): written, transformed in two passes, read where the image is.
    spectra = 8 * 5 * 3 * height * (width // 2 + 1)
    assert floor.bytes == spectra + 8 * (8 * 40 * plane + (8 * 8 + 12) * 64 * 64)
    twice = floor_of(textured_problem(CostConfig(channels="rgb"), (64, 64), 5, 16))
    assert twice.operations == 2 * floor.operations
    assert twice.bytes - spectra == 2 * (floor.bytes - spectra)
    luma = floor_of(textured_problem(CostConfig(channels="luma"), (64, 64), 5, 8))
    assert 0.3 < luma.bytes / floor.bytes < 0.4


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_guided_filter_of_tensors_is_that_of_arrays(radius: int) -> None:
    rng = np.random.default_rng(0)
    volume, guide = rng.random((3, 20, 27), np.float32), rng.random((20, 27), np.float32)
    expected = regularization.guided_filter(volume, guide, radius, 1e-3) if radius else volume
    filtered = guided_filter(torch.from_numpy(volume), torch.from_numpy(guide), radius, 1e-3).numpy()
    np.testing.assert_allclose(filtered, expected, atol=1e-5)
    assert radius == 0 or np.abs(filtered - volume).max() > 0.1


def test_depth_lies_where_the_probability_does() -> None:
    problem = textured_problem(CostConfig(), (32, 64), 3, 12)
    energy = torch.zeros(12, 32, 64)

    class Certain(torch.nn.Module):
        def forward(self, energy: torch.Tensor, smoothed: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            assert image.shape == (1, 4, 32, 64)
            assert 0.0 <= float(image.min()) < float(image.max()) <= 1.0
            probability = torch.zeros_like(energy)
            probability[:, 3, :16], probability[:, 11, 16:] = 1.0, 1.0
            return probability

    depth = depth_on_device(problem, Certain(), torch.from_numpy(problem.stack.images), energy).numpy()
    np.testing.assert_allclose(depth[:16], problem.depths_m[3], rtol=1e-5)
    np.testing.assert_allclose(depth[16:], problem.depths_m[11], rtol=1e-5)

"""What gpu_check does on a GPU, as far as it can be held to account without one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_host import HostKernels
from cuda_rig import host_build_steps, record_by_hand
from numpy.typing import NDArray

from benchmarks import gpu_check, gpu_speed
from benchmarks.gpu import check_aggregation, check_depth, check_parity, compare, floor_of, textured_problem
from benchmarks.memory_plan import MemoryCount, planned_depth_bytes, planned_volume_bytes
from dfs_ros.calibration.aperture import ApertureTracker
from dfs_ros.config import Config, CostConfig
from dfs_ros.cost_volume import cuda
from dfs_ros.cost_volume.cuda.graphs import CudaGraphs
from dfs_ros.cost_volume.cuda.volume import VolumeEngine
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.depth.cuda import Aggregation
from dfs_ros.estimator import estimator
from dfs_ros.estimator.cpu import CpuSteps
from dfs_ros.estimator.gpu import GpuSteps
from dfs_ros.network.export import Shape

CPU = torch.device("cpu")


def test_without_a_device_it_says_so_and_claims_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if cuda.why_not() is None:
        pytest.skip("there is a CUDA device here")
    assert gpu_check.main(["--output", str(tmp_path / "gpu")]) == gpu_check.NO_DEVICE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gpu_check: no CUDA device: ")
    assert "Nothing was checked" in said.err
    assert not (tmp_path / "gpu").exists()


def test_parity_passes_for_the_kernels_and_fails_for_wrong_ones(kernels: HostKernels) -> None:
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


def test_aggregation_passes_and_a_wrong_one_fails(kernels: HostKernels) -> None:
    results = check_aggregation(Aggregation(kernels), CPU)
    assert len(results) == 12
    assert [r.to_dict() for r in results if not r.passed] == []

    class Wrong(Aggregation):
        def semi_global(self, costs: torch.Tensor, *settings: Any) -> torch.Tensor:
            return super().semi_global(costs, *settings).flip(0)

    wrong = check_aggregation(Wrong(kernels), CPU)
    assert {r.case.split()[0] for r in wrong if not r.passed} == {"optimised"}


def test_depth_is_compared_by_share_of_pixels() -> None:
    depth = np.linspace(0.5, 2.0, 2000).reshape(40, 50)
    assert check_depth(depth * 1.001, depth).error == 0.0
    off = depth.copy()
    off[0, :3] *= 1.02
    off[1, 0] = np.nan
    assert check_depth(off, depth).error == 4 / 2000 and check_depth(off, depth).passed
    off[2] = np.nan
    assert not check_depth(off, depth).passed
    assert not check_depth(np.full_like(depth, np.nan), depth).passed


def test_the_estimator_is_compared_with_itself_on_the_cpu(
    kernels: HostKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = itertools.count()

    def every_other(config: Config, cpu: CpuSteps, lens: ApertureTracker | None) -> GpuSteps | None:
        graphs = CudaGraphs(record=record_by_hand)
        return host_build_steps(cpu, kernels, graphs) if next(made) % 2 == 0 else None

    monkeypatch.setattr(estimator, "gpu_for", every_other)
    results = gpu_check.check_estimator(("none", "light"), "cpu", (62, 83))
    assert len(results) == 8
    assert [r.to_dict() for r in results if not r.passed] == []
    assert next(made) == 4


def test_measuring_on_the_cpu_makes_the_same_report(
    kernels: HostKernels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every line of measuring runs, with small sizes; the figures mean nothing here."""
    monkeypatch.setattr(gpu_check, "VOLUMES", (("residual", (32, 48)), ("released", (32, 32))))
    monkeypatch.setattr(gpu_check, "END_TO_END", ((32, 48),))
    monkeypatch.setattr(gpu_check, "TARGETS_MS", {"residual 48x32x5x64": 1e-6, "end to end 48x32": 1e6})
    monkeypatch.setattr(gpu_speed, "RUNNERS", (("torch", "fp32"), ("tensorrt", "fp16"), ("onnx", "fp32")))
    monkeypatch.setattr(gpu_speed, "_COPY_BYTES", 1 << 16)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measure_network = gpu_speed.measure_network

    def small(module: Any, runner: str, precision: str, shape: Shape, *rest: Any) -> dict[str, Any]:
        return measure_network(module, runner, precision, Shape(6, 32, 64), *rest)

    monkeypatch.setattr(gpu_speed, "measure_network", small)
    report: dict[str, Any] = {}
    missed = gpu_check.measure(report, kernels, CPU, "light", repeats=2)
    assert [line.split(":")[0] for line in missed] == ["time"] and "residual 48x32x5x64" in missed[0]
    volume = report["volumes"]["residual 48x32x5x64"]
    assert 0 < volume["eager"]["min_ms"] <= volume["eager"]["median_ms"] <= volume["eager"]["max_ms"]
    assert volume["planned_mb"] > 64 * 32 * 48 * 4e-6 and volume["floor"]["bytes"] > 0
    networks = report["networks"]
    assert networks["network 256x256x64, torch fp32"]["difference"] < 1e-4
    assert networks["network 256x256x64, onnx fp32"]["difference"] < 1e-3
    assert "needs a CUDA GPU" in networks["network 256x256x64, tensorrt fp16"]["absent"]
    end = report["end_to_end"]["end to end 48x32"]
    assert (
        end["depth_finite"]
        and set(end["steps_ms"]) == {"cost volume", "aggregate", "optimize", "decide", "read out", "transfer"}
        and "torch" in end["network"]
    )
    machine = {"card": "none", "driver": "-", "cuda": "-", "torch": "-", "kernels": "-", "commit": "-"}
    report |= {"machine": machine, "parity": [{"passed": True}], "missed": missed, "passed": False}
    json.dumps(report)
    page = gpu_check.markdown(report)
    assert "| residual 48x32x5x64 |" in page and "1e-06 ms" in page and missed[0] in page
    assert "Parity: 1 of 1" in page and "| end to end 48x32, no network |" in page


def test_sanitizer_reports_what_each_tool_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a program in its place that objects in one tool, if the parity checks are run within it."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(
        '#!/bin/sh\necho "========= $2"\n[ "$7 $8" = "benchmarks.gpu_check --quick" ] || exit 1\n'
        'if [ "$2" = racecheck ]; then echo "========= ERROR SUMMARY: 1 error"; exit "$4"; fi\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    report: dict[str, Any] = {}
    missed = gpu_check.sanitize(report)
    assert missed == ["compute-sanitizer racecheck: status 9: ========= ERROR SUMMARY: 1 error"]
    statuses = {name: result["status"] for name, result in report["compute_sanitizer"].items()}
    assert statuses == {"memcheck": 0, "racecheck": 9, "initcheck": 0, "synccheck": 0}


def test_the_plan_says_that_nothing_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--plan"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["measured"].startswith("nothing")
    assert set(plan["volumes"]) >= {"residual 256x256x5x64", "residual 640x480x5x64"}


# --- memory, counted ------------------------------------------------------------------------------------------------


def test_640x480_fits_into_400_mb() -> None:
    """5 images, 64 hypotheses: the volume of all colours, and all that leads to depth but the network."""
    problem = textured_problem(CostConfig(channels="rgb"), (480, 640), 5, 64)
    volume_mb = 640 * 480 * 64 * 4e-6
    assert volume_mb < planned_volume_bytes(problem) * 1e-6 < 200
    config = Config.from_dict({"cost": {"channels": "rgb"}})
    assert 3 * volume_mb < planned_depth_bytes(problem, config) * 1e-6 < 400


def test_memory_is_counted_while_it_lives() -> None:
    meta = torch.device("meta")
    with MemoryCount(meta) as count:
        a = torch.empty(1000, device=meta)
        b = a + 1
        c = b[10:20]
        assert (count.now, count.most) == (8000, 8000)
        del a
        assert (count.now, count.most) == (4000, 8000)
        del b
        assert count.now == 4000  # c is a part of it
        c.add_(1)
        del c
        assert (count.now, count.most) == (0, 8000)
        torch.zeros(10)  # elsewhere
        signal = torch.empty((8, 16), device=meta)
        spectrum = torch.fft.rfft2(signal)
    assert count.now == 8 * 16 * 4 + 8 * 9 * 8 == signal.nbytes + spectrum.nbytes
    with MemoryCount(meta) as count:
        torch.fft.rfft2(torch.empty((256, 256), device=meta))
    assert count.most == 256 * 256 * 4 + 256 * 129 * 8 + 256 * 256 * 4


def test_the_count_is_what_the_same_code_takes_with_data(kernels: HostKernels) -> None:
    problem = textured_problem(CostConfig(channels="rgb"), (40, 60), 4, 10)
    with torch.inference_mode(), MemoryCount(CPU) as count:
        images = torch.from_numpy(problem.stack.images).clone()
        engine = VolumeEngine(problem, kernels, CPU)
        volume = engine.volume(engine.spectra(images), problem.coc_px)
    assert volume.shape == (10, 40, 60)
    assert count.most == pytest.approx(planned_volume_bytes(problem), rel=0.02)

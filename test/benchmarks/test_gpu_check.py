"""What gpu_check does on a GPU, as far as it can be held to account without one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from cuda_host import HostKernels
from cuda_rig import host_build_steps, record_by_hand
from numpy.typing import NDArray
from places import ROOT

from benchmarks import gpu_check, gpu_checks, gpu_speed
from benchmarks.gpu import check_aggregation, check_depth, check_parity, compare, floor_of, textured_problem
from benchmarks.gpu_checks import Bench
from benchmarks.gpu_order import Check, Cut, outcome_of, run_in_order
from benchmarks.memory_plan import MemoryCount, planned_depth_bytes, planned_volume_bytes
from dfs_ros.config import Config, CostConfig
from dfs_ros.cost_volume import SpectraCache, cuda
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.cuda.graphs import CudaGraphs
from dfs_ros.cost_volume.cuda.volume import VolumeEngine
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.depth.cuda import Aggregation
from dfs_ros.estimator import estimator
from dfs_ros.estimator.cpu import CpuSteps
from dfs_ros.estimator.gpu import GpuSteps

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


def test_parity_fails_for_wrong_kernels(kernels: HostKernels) -> None:
    def mirrored(problem: Problem, **settings: Any) -> NDArray[Any]:
        engine = VolumeEngine(problem, kernels, CPU, **settings)
        return engine.volume(engine.spectra(problem.stack.images), problem.coc_px).numpy()[:, :, ::-1]

    wrong = check_parity(mirrored, methods=("residual",))
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


def test_depth_is_compared_by_share_of_pixels_and_median() -> None:
    depth = np.linspace(0.5, 2.0, 2000).reshape(40, 50)
    share, median = check_depth(depth * 1.0008, depth)
    assert share.error == 0.0 and share.passed
    assert median.error == pytest.approx(8e-4) and median.passed
    share, median = check_depth(depth * 1.002, depth)
    assert share.passed and not median.passed
    off = depth.copy()
    off[0, :3] *= 1.02
    off[1, 0] = np.nan
    share, median = check_depth(off, depth)
    assert share.error == 4 / 2000 and share.passed and median.error == 0.0
    off[2] = np.nan
    assert not check_depth(off, depth)[0].passed
    assert [c.passed for c in check_depth(np.full_like(depth, np.nan), depth)] == [False, False]


# --- all checks, in their order -------------------------------------------------------------------------------------


def bench_on_the_host(kernels: HostKernels) -> Bench:
    """The CPU with the host build in place of a GPU, small sizes."""
    graphs = CudaGraphs(record=record_by_hand)
    engines = Engines(kernels, CPU)

    def volume(
        problem: Problem,
        *,
        images: torch.Tensor | None = None,
        graph: bool = False,
        spectra_cache: SpectraCache | None = None,
        frame_keys: Any = None,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> torch.Tensor:
        engine = engines.of(problem, dtype=dtype, **settings)
        spectra = engine.spectra(problem.stack.images if images is None else images, spectra_cache, frame_keys)
        return engine.volume(spectra, problem.coc_px, graphs if graph else None)

    return Bench(kernels, CPU, volume, repeats=2, sizes=((40, 48), (32, 32)), shape=(16, 64, 96), compared=(62, 83))


def test_all_checks_run_on_the_host_build_in_order_of_worth(
    kernels: HostKernels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every line of the checks runs, with small sizes; the times mean nothing here."""
    monkeypatch.setattr(gpu_speed, "_COPY_BYTES", 1 << 16)
    monkeypatch.setattr(gpu_speed, "_WARM_UP", 1)  # with two repeats: computed, recorded, replayed
    monkeypatch.setitem(gpu_checks.TARGETS_MS, "residual 48x40x5x64", 1e-6)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    on_gpu = iter(
        [True, False, True, False, True, True]
    )  # whether an estimator asks for the GPU, in the order of the checks

    def gpu_for(config: Config, cpu: CpuSteps) -> GpuSteps | None:
        graphs = CudaGraphs(record=record_by_hand)
        return host_build_steps(cpu, kernels, graphs) if next(on_gpu) else None

    monkeypatch.setattr(estimator, "gpu_for", gpu_for)
    bench = bench_on_the_host(kernels)
    checks = gpu_check.checks_of(bench)
    names = [check.name for check in checks]
    assert names[:6] == [
        "volumes",
        "aggregation",
        "depth, network none",
        "depth, network light",
        "alignment and motion",
        "volumes by other ways",
    ]
    assert names[6] == "time, residual 48x40x5x64" and names[-1] == "compute-sanitizer initcheck"
    worth = ["volumes", "time, residual 48x40x5x64", "network 96x64x16, tensorrt fp16", "compute-sanitizer memcheck"]
    assert [names.index(name) for name in worth] == sorted(names.index(name) for name in worth)
    here = [check for check in checks if "tensorrt" not in check.name and "onnx" not in check.name]
    report: dict[str, Any] = {"machine": dict.fromkeys(("card", "driver", "torch", "cuda", "kernels", "commit"), "-")}
    status = gpu_check.run(here, report, 1e6, str(tmp_path / "gpu"))
    assert next(on_gpu, "used up") == "used up"
    assert report.get("errors", {}) == {}
    assert [line for line in report["missed"] if not line.startswith(("time: live", "time: residual 48x40"))] == []
    assert status == 1 and report["missed"][0].startswith("time: residual 48x40x5x64: ")
    assert len(report["parity"]) == 3 * (2 * 5 + 4) + 12 + 2 * 2 * 4 + (3 * 5 + 3) + 2 * 2 * 7
    assert all(row["passed"] for row in report["parity"])
    assert set(report["not_run"]) == {f"compute-sanitizer {tool}" for tool in gpu_checks.SANITIZERS} | {
        "network 96x64x16, torch fp16"
    }
    assert "needs a CUDA GPU" in report["not_run"]["network 96x64x16, torch fp16"]
    volume = report["volumes"]["residual 48x40x5x64"]
    assert 0 < volume["eager"]["min_ms"] <= volume["eager"]["median_ms"] <= volume["eager"]["max_ms"]
    assert volume["planned_mb"] > 64 * 40 * 48 * 4e-6 and volume["floor"]["bytes"] > 0
    assert report["networks"]["network 96x64x16, torch fp32"]["difference"] < 1e-4
    steps = {"cost volume", "aggregate", "optimize", "decide", "read out", "transfer"}
    assert set(report["estimates"]["end to end 48x40"]["steps_ms"]) == steps
    assert report["volumes"]["moving 48x40x5x64"]["eager"]["median_ms"] > 0
    for name in ("live 48x40", "live 48x40, by hand"):
        live = report["estimates"][name]
        assert steps | {"align", "aperture", "sharpen"} <= set(live["steps_ms"]) and live["coverage"] > 0.3
    assert json.loads((tmp_path / "gpu" / "gpu.json").read_text()) == report
    page = (tmp_path / "gpu" / "gpu.md").read_text()
    assert "| residual 48x40x5x64 |" in page and "1e-06 ms" in page and report["missed"][0] in page
    assert "Parity: 116 of 116" in page and "| end to end 48x40, no network |" in page
    assert "- compute-sanitizer memcheck: compute-sanitizer is not installed" in page


def test_a_check_without_time_or_with_an_error_leaves_the_others() -> None:
    def found(report: dict[str, Any], left_s: float) -> list[str]:
        report["found"] = left_s
        return ["short missed"]

    def raises(report: dict[str, Any], left_s: float) -> list[str]:
        raise RuntimeError("an illegal memory access")

    def cut(report: dict[str, Any], left_s: float) -> list[str]:
        raise Cut(left_s)

    checks = [
        Check("long", 1e9, raises),
        Check("broken", 1.0, raises),
        Check("cut", 1.0, cut),
        Check("short", 1.0, found),
    ]
    report: dict[str, Any] = {}
    kept: list[str] = []
    run_in_order(checks, report, 100.0, lambda r: kept.append(json.dumps(r)))
    assert report["not_run"] == {"long": "100 s of 100 s left, 1e+09 s needed", "cut": "cut after 100 s"}
    assert report["short_of_time"] == ["long", "cut"]
    assert report["missed"] == ["broken: RuntimeError: an illegal memory access", "short missed"]
    assert "illegal memory access" in report["errors"]["broken"] and 0 < report["found"] <= 100.0
    assert json.loads(kept[1])["running"] == "broken" and json.loads(kept[-1]) == report
    assert [gpu_check.run(some, {"machine": {}}, 100.0, None) for some in (checks[:1], checks[3:], [])] == [4, 1, 0]


_CUT = """
import sys, time
from benchmarks import gpu_check
from benchmarks.gpu_order import Check
def first(report, left_s):
    report["parity"] = [{"passed": True}]
    return ["first missed"]
machine = dict.fromkeys(("card", "driver", "torch", "cuda", "kernels", "commit"), "-")
second = Check("second", 1, lambda report, left_s: time.sleep(1000))
checks = [Check("first", 1, first), second, Check("third", 1, first)]
gpu_check.run(checks, {"machine": machine}, 540, sys.argv[1])
"""


def test_a_killed_run_keeps_what_it_had(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _CUT, str(tmp_path)], cwd=ROOT) as process:
        file = tmp_path / "gpu.json"
        while not (file.exists() and '"running": "second"' in file.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    report = json.loads(file.read_text())
    assert report["running"] == "second" and report["missed"] == ["first missed"]
    assert set(report["not_run"]) == {"second", "third"}
    page = (tmp_path / "gpu.md").read_text()
    assert "**Cut during: second.**" in page and "- third: not reached" in page and "Parity: 1 of 1" in page


def has_ended(pid: int) -> bool:
    """True for a process that is gone, or that nobody has asked for its exit status."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(condition: Callable[[], bool], timeout_s: float = 240.0) -> None:
    """Wait: a signal takes effect when the process runs next."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_program_out_of_time_ends_with_all_it_started() -> None:
    said, limit_s = "", 0.25
    while not said:  # a busy machine may end it before it has begun
        limit_s *= 2
        status, said = outcome_of(["sh", "-c", "sleep 1000 & echo $!; wait"], limit_s)
        assert status is None
    until(lambda: has_ended(int(said)))
    assert outcome_of(["sh", "-c", "echo done; exit 3"], 240.0) == (3, "done\n")


_BARE = """
import sys
ros = ("cyclonedds", "rosbags", "mcap", "viser", "rclpy")
runners = ("tensorrt", "tensorrt_rtx", "onnx", "onnxruntime")
for name in (*ros, *runners, "h5py", "matplotlib", "skimage", "linuxpy", "pytest"):
    sys.modules[name] = None
import torch
from benchmarks import gpu_check
from benchmarks.gpu_checks import check_estimator
compared = check_estimator("light", torch.device("cpu"), (32, 48))
sys.exit(gpu_check.main(["--plan"]) or any(not comparison.passed for comparison in compared))
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The plan, with the packages that a machine with PyTorch has; the folder of the project's data is not there."""
    folder = tmp_path_factory.mktemp("bare") / "repository"
    folder.mkdir()
    for name in ("dfs_ros", "benchmarks", "models"):
        (folder / name).symlink_to(ROOT / name)
    done = subprocess.run([sys.executable, "-c", _BARE], cwd=folder, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nothing_is_needed_beside_the_repository_and_torch(plan: dict[str, Any]) -> None:
    """Nor is anything measured without a device."""
    assert plan["measured"].startswith("nothing")
    assert set(plan["volumes"]) >= {"residual 256x256x5x64", "residual 640x480x5x64"}


@pytest.mark.parametrize(
    ("tool", "missed", "not_run"),
    [
        ("memcheck", [], {}),
        ("racecheck", ["compute-sanitizer racecheck: status 9: ========= ERROR SUMMARY: 1 error"], {}),
        ("synccheck", [], {"compute-sanitizer synccheck": "========= synccheck ========= Error: Device not supported"}),
    ],
)
def test_sanitizer_reports_what_a_tool_finds(
    tool: str, missed: list[str], not_run: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a program in its place that objects in one tool, if the parity checks are run within it."""
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        '#!/bin/sh\necho "========= $2"\n[ "$7 $8" = "benchmarks.gpu_check --quick" ] || exit 1\n'
        'if [ "$2" = racecheck ]; then echo "========= ERROR SUMMARY: 1 error"; exit "$4"; fi\n'
        'if [ "$2" = synccheck ]; then echo "========= Error: Device not supported"; exit 1; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    report: dict[str, Any] = {}
    check = next(c for c in gpu_checks.sanitizer_checks() if c.name.endswith(tool))
    run_in_order([check], report, 100.0, lambda report: None)
    assert (report["missed"], report["not_run"]) == (missed, not_run)


# --- memory, counted ------------------------------------------------------------------------------------------------


def test_640x480_fits_into_200_mb(plan: dict[str, Any]) -> None:
    """5 images, 64 hypotheses: the volume of all colours, and all that leads to depth but the network."""
    volume_mb = 640 * 480 * 64 * 4e-6
    assert volume_mb < plan["volumes"]["residual 640x480x5x64"]["planned_mb"] < 200
    problem = textured_problem(CostConfig(channels="rgb"), (480, 640), 5, 64)
    config = Config.from_dict({"cost": {"channels": "rgb"}})
    assert 2 * volume_mb < planned_depth_bytes(problem, config) * 1e-6 < 200


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

"""Checks of gpu_check, by worth: correctness, speed with memory, other runners, compute-sanitizer.

Every check adds to the report and returns what it missed. Those whose time is another program's (engine builds,
compute-sanitizer) run in processes of their own, which end with the time left.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import gpu, gpu_alignment, gpu_speed
from benchmarks.gpu import Comparison, compare, textured_problem
from benchmarks.gpu_order import Check, Cut, NotRun, Report, outcome_of
from benchmarks.gpu_report import TARGETS_MB, TARGETS_MS
from dfs_ros.config import Config, CostConfig
from dfs_ros.cost_volume import SpectraCache, cuda, reference
from dfs_ros.cost_volume.cuda.driver import Kernels
from dfs_ros.depth.cuda import Aggregation

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((480, 640), (256, 256))
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
NETWORK = (64, 256, 256)
"""Hypotheses, height and width of a measured network."""


@dataclass(frozen=True)
class Bench:
    """Device under test; `volume` as :func:`dfs_ros.cost_volume.cuda.cost_volume`."""

    kernels: Kernels
    device: torch.device
    volume: Callable[..., torch.Tensor] = cuda.cost_volume
    network: str = "light"
    repeats: int = 50
    sizes: tuple[Size, ...] = SIZES
    shape: tuple[int, int, int] = NETWORK
    compared: Size = (122, 165)


def parity_checks(bench: Bench, networks: Sequence[str]) -> list[Check]:
    """Checks of correctness."""

    def compared(compare_all: Callable[[], list[Comparison]]) -> Callable[[Report, float], list[str]]:
        def run(report: Report, left_s: float) -> list[str]:
            found = compare_all()
            report.setdefault("parity", []).extend(comparison.to_dict() for comparison in found)
            return [f"parity: {c.case}: {c.error:.3g}, tolerance {c.tolerance:.3g}" for c in found if not c.passed]

        return run

    def volume(problem: Any, **settings: Any) -> Any:
        return bench.volume(problem, **settings).cpu().numpy()

    def depth(name: str) -> Check:
        run = compared(lambda: check_estimator(name, bench.device, bench.compared))
        return Check(f"depth, network {name}", 20, run)

    return [
        Check("volumes", 10, compared(lambda: gpu.check_parity(volume))),
        Check("aggregation", 5, compared(lambda: gpu.check_aggregation(Aggregation(bench.kernels), bench.device))),
        *(depth(name) for name in networks),
        Check(
            "alignment and motion",
            15,
            compared(lambda: gpu_alignment.check_alignment(bench.kernels, bench.device, bench.compared)),
        ),
        Check("volumes by other ways", 10, compared(lambda: same_by_other_ways(bench))),
    ]


def speed_checks(bench: Bench) -> list[Check]:
    """Checks of time and memory."""

    def bandwidth(report: Report) -> float:
        if "copy_bandwidth_gb_per_s" not in report:
            report["copy_bandwidth_gb_per_s"] = gpu_speed.copy_bandwidth(bench.device) / 1e9
        return float(report["copy_bandwidth_gb_per_s"]) * 1e9

    def volume(method: str, size: Size) -> Check:
        name = volume_name(method, size)

        def run(report: Report, left_s: float) -> list[str]:
            problem = textured_problem(CostConfig(method=method, channels="rgb"), size, 5, 64)
            rate = bandwidth(report)
            result = gpu_speed.measure_volume(problem, bench.kernels, bench.device, rate, bench.repeats)
            report.setdefault("volumes", {})[name] = result
            ms = min(result["eager"]["median_ms"], result["graph"]["median_ms"])
            return too_much(name, ms, result["peak_tensor_mb"])

        return Check(f"time, {name}", 15, run)

    def end_to_end(size: Size, network: str) -> Check:
        name = end_name(size, network)

        def run(report: Report, left_s: float) -> list[str]:
            loaded = gpu_speed.loaded(network, "torch", bench.device)
            result = gpu_speed.measure_end_to_end(loaded, bench.kernels, bench.device, size, bench.repeats)
            report.setdefault("estimates", {})[name] = result
            missed = too_much(name, result["median_ms"], result["peak_tensor_mb"])
            return missed if result["depth_finite"] else [*missed, f"{name}: depth is not finite"]

        return Check(f"time, {name}", 20, run)

    def moving(size: Size) -> Check:
        name = volume_name("moving", size)

        def run(report: Report, left_s: float) -> list[str]:
            result = gpu_speed.measure_moving(bench.kernels, bench.device, size, bench.repeats)
            report.setdefault("volumes", {})[name] = result
            return too_much(name, result["eager"]["median_ms"], result["peak_tensor_mb"])

        return Check(f"time, {name}", 15, run)

    def live(size: Size, shaken: bool) -> Check:
        name = f"live {size[1]}x{size[0]}" + (", by hand" if shaken else "")

        def run(report: Report, left_s: float) -> list[str]:
            result = gpu_speed.measure_live(bench.device, size, bench.network, bench.repeats, shaken=shaken)
            report.setdefault("estimates", {})[name] = result
            return too_much(name, result["median_ms"], result["peak_tensor_mb"])

        return Check(f"time, {name}", 30, run)

    def in_torch(precision: str) -> Check:
        name = f"{network_name(bench)}, torch {precision}"

        def run(report: Report, left_s: float) -> list[str]:
            result = gpu_speed.measure_network(
                bench.network, "torch", precision, bench.shape, bench.device, bench.repeats
            )
            return network_missed(report, name, result)

        return Check(name, 15, run)

    largest = bench.sizes[0]
    return [
        *(volume("residual", size) for size in bench.sizes),
        *(end_to_end(size, "none") for size in bench.sizes),
        live(largest, shaken=False),
        live(largest, shaken=True),
        *(end_to_end(size, bench.network) for size in bench.sizes),
        *(in_torch(precision) for precision in ("auto", "fp16", "fp32")),
        moving(largest),
        *(volume(method, bench.sizes[-1]) for method in ("released", "paper")),
    ]


def runner_checks(bench: Bench) -> list[Check]:
    """Other runners of the network, whose engines take minutes to build."""

    def other(runner: str, precision: str) -> Check:
        name = f"{network_name(bench)}, {runner} {precision}"
        command = [sys.executable, "-m", "benchmarks.gpu_check", "--runner", runner, precision]
        command += ["--network", bench.network, "--repeats", str(bench.repeats)]

        def run(report: Report, left_s: float) -> list[str]:
            status, said = outcome_of(command, left_s)
            if status is None:
                raise Cut(left_s)
            if status != 0:
                return [f"{name}: exit status {status}: {' '.join(said.splitlines()[-1:])}"]
            return network_missed(report, name, json.loads([line for line in said.splitlines() if line[:1] == "{"][-1]))

        return Check(name, 20, run)

    return [other(*which) for which in gpu_speed.OTHER_RUNNERS]


def sanitizer_checks() -> list[Check]:
    """Correctness within compute-sanitizer, one tool a check."""

    def tool_check(tool: str) -> Check:
        def run(report: Report, left_s: float) -> list[str]:
            command = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
            if command is None:
                raise NotRun("compute-sanitizer is not installed")
            # No leak check: torch keeps memory. Only errors give the other exit status.
            check = [command, "--tool", tool, "--error-exitcode", "9"]
            status, text = outcome_of([*check, sys.executable, "-m", "benchmarks.gpu_check", "--quick"], left_s)
            said = [line for line in text.splitlines() if line.startswith("=========")][-8:]
            if status is None:
                raise Cut(left_s)
            if status != 9 and any("not supported" in line for line in said):  # as on some virtual machines
                raise NotRun(" ".join(said))
            report.setdefault("compute_sanitizer", {})[tool] = {"status": status, "said": said}
            return [] if status == 0 else [f"compute-sanitizer {tool}: status {status}: {' '.join(said[-1:])}"]

        return Check(f"compute-sanitizer {tool}", 30, run)

    return [tool_check(tool) for tool in SANITIZERS]


def same_by_other_ways(bench: Bench) -> list[Comparison]:
    """Compare other ways to the same volume with the reference.

    Replayed CUDA graph, small blocks, kept spectra, images on the device.
    """
    results = []
    for method in ("residual", "released"):
        for shape in ((61, 83), (64, 96)):
            problem = textured_problem(CostConfig(method=method), shape, 4, 7)
            expected = reference.cost_volume(problem)
            mirrored = np.ascontiguousarray(problem.stack.images[:, ::-1])
            cache, keys = SpectraCache(), list(range(4))
            ways: dict[str, dict[str, Any]] = {
                "small blocks": {"block_bytes": 1},
                "computed before recording": {"graph": True},
                "recorded": {"graph": True},
                "replayed": {"graph": True},
                "spectra": {"spectra_cache": cache, "frame_keys": keys},
                "kept spectra": {"spectra_cache": cache, "frame_keys": keys},
                "images on the device": {"images": torch.from_numpy(problem.stack.images).to(bench.device)},
            }
            for way, settings in ways.items():
                if way == "replayed":  # so that replaying must bring in the images again
                    bench.volume(problem, images=torch.from_numpy(mirrored).to(bench.device), graph=True)
                volume = bench.volume(problem, **settings).cpu().numpy()
                results.append(compare(f"{method} {shape} {way}", volume, expected, 1e-4))
    return results


def check_estimator(network: str, device: torch.device, size: Size) -> list[Comparison]:
    """Compare the whole estimator on a device with the CPU, four times, on images (H, W) of two planes.

    The device computes, records a CUDA graph, and replays it twice.
    """
    from dfs_ros.estimator.estimator import DepthEstimator

    stack = gpu.rendered_planes(size)
    results = []
    settings = {"network": {"name": network, "runner": "torch", "precision": "fp32"}, "hypotheses": {"count": 24}}
    base = Config.from_dict({**settings, "lens": {"aperture": "given"}})  # it is fitted on the CPU by both
    on_gpu, on_cpu = (DepthEstimator(base.updated({"processing": {"device": d}})) for d in (device.type, "cpu"))
    for turn in range(4):
        turned = dataclasses.replace(stack, images=np.ascontiguousarray(np.roll(stack.images, turn, axis=1)))
        found, expected = (estimator.estimate(turned, sharpen=False) for estimator in (on_gpu, on_cpu))
        for comparison in gpu.check_depth(found.depth_m, expected.depth_m):
            case = f"{comparison.case}, network {network}, turn {turn}"
            results.append(dataclasses.replace(comparison, case=case))
    return results


def network_missed(report: Report, name: str, result: Report) -> list[str]:
    """Add a network's measurement to the report; return what it missed. Raises NotRun for an absent runner."""
    report.setdefault("networks", {})[name] = result
    if "absent" in result:
        raise NotRun(" ".join(str(result["absent"]).split()))
    missed = [f"{name}: {text}" for text in result["faults"]]
    if not result["difference"] <= result["tolerance"]:
        difference, tolerance = result["difference"], result["tolerance"]
        missed.append(f"{name}: {difference:.2g} of the range from the reference, tolerance {tolerance:g}")
    return missed


def too_much(name: str, ms: float, megabytes: float | None) -> list[str]:
    """Missed targets of a case."""
    missed = []
    if not ms <= TARGETS_MS.get(name, np.inf):
        missed.append(f"time: {name}: {ms:.3f} ms, target {TARGETS_MS[name]} ms")
    if megabytes is not None and not megabytes <= TARGETS_MB.get(name, np.inf):
        missed.append(f"memory: {name}: {megabytes:.0f} MB, target {TARGETS_MB[name]:.0f} MB")
    return missed


def volume_name(method: str, size: Size) -> str:
    """Name of a volume in the tables: method, width, height, images, hypotheses."""
    return f"{method} {size[1]}x{size[0]}x5x64"


def end_name(size: Size, network: str) -> str:
    """Name of an end-to-end case in the tables."""
    return f"end to end {size[1]}x{size[0]}" + (", no network" if network == "none" else "")


def network_name(bench: Bench) -> str:
    """Name of a measured network in the tables."""
    hypotheses, height, width = bench.shape
    return f"network {width}x{height}x{hypotheses}"

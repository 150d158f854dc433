"""Check, time and profile the CUDA path on a machine with a GPU.

    python -m benchmarks.gpu_check --output gpu

Output: gpu/gpu.json and gpu/gpu.md with parity against the reference, compute-sanitizer (where installed), times
against a counted floor, every runner of the network, frames to depth, and memory against a counted plan. Engine builds
take minutes. Without a GPU, --plan prints the checks and the counted figures; it measures nothing.

Exit status: 0 all good, 1 a check failed or a target was missed, 3 no CUDA device.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dfs_ros
from dfs_ros.config import Config, CostConfig
from dfs_ros.cost_volume import cuda
from dfs_ros.io.markdown import markdown_table

if TYPE_CHECKING:
    from benchmarks.gpu import Comparison

NO_DEVICE = 3
TARGETS_MS = {  # on a data-centre card of 2024
    "residual 256x256x5x64": 1.0,
    "residual 640x480x5x64": 5.0,
    "network 256x256x64, torch": 1.0,
    "end to end 256x256": 4.0,
}
TARGETS_MB = {"residual 640x480x5x64": 400.0, "end to end 640x480": 400.0}
VOLUMES = (("residual", (256, 256)), ("residual", (480, 640)), ("released", (256, 256)), ("paper", (256, 256)))
END_TO_END = ((256, 256), (480, 640))
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
_SANITIZER_TIMEOUT_S = 1800


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output", metavar="DIR", help="folder for gpu.json and gpu.md")
    parser.add_argument("--quick", action="store_true", help="check parity only, as under compute-sanitizer")
    parser.add_argument("--plan", action="store_true", help="print checks and counted figures, without a GPU")
    parser.add_argument("--no-sanitizer", action="store_true", help="skip compute-sanitizer, which takes minutes")
    parser.add_argument("--repeats", type=int, default=50, metavar="N", help="timed calls of each case (default: 50)")
    parser.add_argument("--network", default="light", metavar="NAME", help="model of models/ (default: light)")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats: expected 1 or more, received {args.repeats}")
    if args.plan:
        print(json.dumps(plan(), indent=2))
        return 0
    cause = cuda.why_not()
    if cause is not None:
        print(f"gpu_check: no CUDA device: {cause}. Nothing was checked; --plan tells what would be.", file=sys.stderr)
        return NO_DEVICE
    report = run_checks(args)
    print(json.dumps(report, indent=2))
    if args.output:
        folder = Path(args.output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
        (folder / "gpu.md").write_text(markdown(report))
    return 0 if report["passed"] else 1


def plan() -> dict[str, Any]:
    """Plan without a device: counted floors and memory, and targets; nothing is measured."""
    from dataclasses import asdict

    from benchmarks import gpu, memory_plan

    volumes: dict[str, Any] = {}
    for method, size in VOLUMES:
        problem = gpu.textured_problem(CostConfig(method=method, channels="rgb"), size, 5, 64)
        volumes[volume_name(method, size)] = {
            "planned_mb": memory_plan.planned_volume_bytes(problem) / 1e6,
            **({"floor": asdict(gpu.floor_of(problem))} if method == "residual" else {}),
        }
    ends = {
        end_name(size): {
            "planned_mb": memory_plan.planned_depth_bytes(gpu.textured_problem(CostConfig(), size, 5, 64)) / 1e6
        }
        for size in END_TO_END
    }
    return {
        "measured": "nothing: this is the plan",
        "checks": ["parity of volumes, aggregation, depth", *(f"compute-sanitizer {tool}" for tool in SANITIZERS)],
        "volumes": volumes,
        "end_to_end": ends,
        "targets_ms": TARGETS_MS,
        "targets_mb": TARGETS_MB,
    }


def run_checks(args: argparse.Namespace) -> dict[str, Any]:
    """Run the requested checks on the current CUDA device; return the report."""
    import torch

    from benchmarks import gpu
    from dfs_ros.depth.cuda import Aggregation

    device = torch.device("cuda", torch.cuda.current_device())
    kernels = cuda.cuda_kernels(device.index)
    report: dict[str, Any] = {"machine": machine()}

    def on_device(problem: Any, **settings: Any) -> Any:
        return cuda.cost_volume(problem, **settings).cpu().numpy()

    parity = gpu.check_parity(on_device) + _same_by_other_ways()
    parity += gpu.check_aggregation(Aggregation(kernels), device)
    # Under compute-sanitizer without the network, whose kernels belong to other libraries.
    parity += check_estimator(("none",) if args.quick else ("none", args.network))
    report["parity"] = [comparison.to_dict() for comparison in parity]
    missed = [f"parity: {c.case}: {c.error:.3g}, tolerance {c.tolerance:.3g}" for c in parity if not c.passed]
    if not args.quick:
        missed += measure(report, kernels, device, args.network, args.repeats)
        if not args.no_sanitizer:
            missed += sanitize(report)
    report["missed"] = missed
    report["passed"] = not missed
    return report


def _same_by_other_ways() -> list[Comparison]:
    """Compare other ways to the same volume with the reference.

    Replayed CUDA graph, small blocks, kept spectra, images on the device.
    """
    import torch

    from benchmarks.gpu import compare, textured_problem
    from dfs_ros.cost_volume import SpectraCache, reference

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
                "images on the device": {"images": torch.from_numpy(problem.stack.images).cuda()},
            }
            for way, settings in ways.items():
                if way == "replayed":  # so that replaying must bring in the images again
                    cuda.cost_volume(problem, images=torch.from_numpy(mirrored).cuda(), graph=True)
                volume = cuda.cost_volume(problem, **settings).cpu().numpy()
                results.append(compare(f"{method} {shape} {way}", volume, expected, 1e-4))
    return results


def check_estimator(
    networks: Sequence[str], device: str = "cuda", size: tuple[int, int] = (122, 165)
) -> list[Comparison]:
    """Compare the whole estimator on a device with the CPU, four times, on images (H, W) of two planes.

    The device computes, records a CUDA graph, and replays it twice.
    """
    import dataclasses

    from benchmarks.gpu import check_depth
    from dfs_ros.estimator.estimator import DepthEstimator
    from dfs_ros.simulation.render import render_stack
    from dfs_ros.simulation.scenes import plane_scene
    from dfs_ros.types import Camera

    height, width = size
    scene = plane_scene(1.0, width, height)
    depth = np.where(np.arange(width) < width // 2, 0.6, 1.3) * np.ones((height, 1))
    stack = render_stack(scene.rgb, depth, Camera(0.008, 1.4, 6e-6), (2.2, 1.7, 1.3, 0.9, 0.5), rng=1)
    results = []
    for name in networks:
        settings = {"network": {"name": name, "runner": "torch", "precision": "fp32"}, "hypotheses": {"count": 24}}
        base = Config.from_dict({**settings, "lens": {"aperture": "given"}})  # it is fitted on the CPU by both
        on_gpu, on_cpu = (DepthEstimator(base.updated({"processing": {"device": d}})) for d in (device, "cpu"))
        for turn in range(4):
            turned = dataclasses.replace(stack, images=np.ascontiguousarray(np.roll(stack.images, turn, axis=1)))
            found, expected = (estimator.estimate(turned, sharpen=False) for estimator in (on_gpu, on_cpu))
            comparison = check_depth(found.depth_m, expected.depth_m)
            results.append(dataclasses.replace(comparison, case=f"{comparison.case}, network {name}, turn {turn}"))
    return results


def measure(report: dict[str, Any], kernels: Any, device: Any, network: str, repeats: int) -> list[str]:
    """Fill in times and memory; return the missed targets."""
    from benchmarks import gpu, gpu_speed
    from dfs_ros.network import Network
    from dfs_ros.network.export import Shape
    from dfs_ros.network.runners.choose import make_runner
    from dfs_ros.network.weights import load_weights, model_file

    times: dict[str, float] = {}
    megabytes: dict[str, float | None] = {}
    bandwidth = gpu_speed.copy_bandwidth(device)
    report["copy_bandwidth_gb_per_s"] = bandwidth / 1e9
    report["volumes"], report["networks"], report["end_to_end"] = {}, {}, {}
    for method, size in VOLUMES:
        problem = gpu.textured_problem(CostConfig(method=method, channels="rgb"), size, 5, 64)
        name = volume_name(method, size)
        result = gpu_speed.measure_volume(problem, kernels, device, bandwidth, repeats)
        result["profile_us"] = gpu_speed.profile(lambda p=problem: cuda.cost_volume(p))  # type: ignore[misc]
        report["volumes"][name] = result
        times[name] = min(result["eager"]["median_ms"], result["graph"]["median_ms"])
        megabytes[name] = result["peak_tensor_mb"]
    module = load_weights(model_file(network))
    for runner, precision in gpu_speed.RUNNERS:
        name = f"network 256x256x64, {runner} {precision}"
        result = gpu_speed.measure_network(module, runner, precision, Shape(64, 256, 256), device.type, repeats)
        report["networks"][name] = result
    in_torch = [r["median_ms"] for n, r in report["networks"].items() if ", torch " in n and "median_ms" in r]
    times["network 256x256x64, torch"] = min(in_torch, default=float("inf"))
    chosen = Network(network, make_runner(module, "auto", device.type))
    for size in END_TO_END:
        name = end_name(size)
        result = gpu_speed.measure_end_to_end(chosen, kernels, device, size, repeats)
        without = gpu_speed.measure_end_to_end(None, kernels, device, size, repeats)
        report["end_to_end"] |= {name: result, f"{name}, no network": without}
        times[name], megabytes[name] = result["median_ms"], without["peak_tensor_mb"]
    return [
        *(f"time: {n}: {t:.3f} ms, target {TARGETS_MS[n]} ms" for n, t in times.items() if not t <= limit_ms(n)),
        *(
            f"memory: {n}: {m:.0f} MB, target {TARGETS_MB[n]:.0f} MB"
            for n, m in megabytes.items()
            if m is not None and not m <= TARGETS_MB.get(n, np.inf)
        ),
        *(
            f"{n}: {r['difference']:.2g} of the range from the reference, tolerance {r['tolerance']:g}"
            for n, r in report["networks"].items()
            if "difference" in r and not r["difference"] <= r["tolerance"]
        ),
        *(f"{n}: {text}" for n, r in report["networks"].items() for text in r.get("faults", [])),
        *(f"{n}: depth is not finite" for n, r in report["end_to_end"].items() if not r["depth_finite"]),
    ]


def sanitize(report: dict[str, Any]) -> list[str]:
    """Run the parity checks in every tool of compute-sanitizer; return its findings."""
    command = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if command is None:
        report["compute_sanitizer"] = "not run: compute-sanitizer is not installed"
        return []
    report["compute_sanitizer"], missed = {}, []
    for tool in SANITIZERS:
        # No leak check: torch keeps memory. Only errors give the other exit status.
        check = [command, "--tool", tool, "--error-exitcode", "9"]
        check += [sys.executable, "-m", "benchmarks.gpu_check", "--quick"]
        try:
            done = subprocess.run(check, capture_output=True, text=True, timeout=_SANITIZER_TIMEOUT_S, check=False)
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("=========")][-8:]
            status: int | str = done.returncode
        except subprocess.TimeoutExpired:
            said, status = [], f"not done after {_SANITIZER_TIMEOUT_S} s"
        report["compute_sanitizer"][tool] = {"status": status, "said": said}
        if status != 0:
            missed.append(f"compute-sanitizer {tool}: status {status}: {' '.join(said[-1:])}")
    return missed


def markdown(report: dict[str, Any]) -> str:
    """Report in Markdown: times, targets and floors, networks, missed targets."""
    where = report["machine"]
    good = sum(row["passed"] for row in report["parity"])
    lines = [
        f"# CUDA check: {where['card']}",
        "",
        f"Driver {where['driver']}, CUDA {where['cuda']}, PyTorch {where['torch']}, kernels {where['kernels']}, commit "
        f"{where['commit']}.",
        "",
        f"Parity: {good} of {len(report['parity'])} comparisons within their tolerance.",
    ]
    if "volumes" in report:
        lines += ["", f"Copy: {report['copy_bandwidth_gb_per_s']:.0f} GB/s.", ""]
        volumes, networks, estimates = [], [], []
        for name, row in report["volumes"].items():
            floor = f"{row['floor']['at_copy_bandwidth_ms']:.3f} ms" if "floor" in row else ""
            target = f"{TARGETS_MS[name]} ms" if name in TARGETS_MS else ""
            ms = [f"{row[way]['median_ms']:.3f} ms" for way in ("eager", "graph")]
            volumes.append([name, *ms, floor, target, _mb(row["peak_tensor_mb"]), _mb(row["planned_mb"])])
        for name, row in report["networks"].items():
            if "absent" in row:
                networks.append([name, "", "", " ".join(row["absent"].split())])
            else:
                networks.append([name, f"{row['median_ms']:.3f} ms", f"{row['difference']:.1e}", row["ran"]])
        for name, row in report["end_to_end"].items():
            steps = ", ".join(f"{step} {ms:.2f} ms" for step, ms in row["steps_ms"].items())
            memory = [_mb(row["peak_tensor_mb"]), _mb(row["planned_mb"])]
            estimates.append([name, f"{row['median_ms']:.2f} ms", steps, row["network"], *memory])
        heads = ["volume", "launched", "graph", "floor of memory", "target", "memory", "planned"]
        lines += [markdown_table(heads, volumes), ""]
        lines += [markdown_table(["network", "time", "difference, share of the range", "ran in"], networks), ""]
        lines.append(markdown_table(["frames to depth", "time", "steps", "network", "memory", "planned"], estimates))
    if "compute_sanitizer" in report:
        tools = report["compute_sanitizer"]
        text = tools if isinstance(tools, str) else ", ".join(f"{t} {r['status']}" for t, r in tools.items())
        lines += ["", f"compute-sanitizer (0 = clean): {text}."]
    lines += ["", "All checks passed." if report["passed"] else "Missed:", *(f"- {line}" for line in report["missed"])]
    return "\n".join(lines) + "\n"


def volume_name(method: str, size: tuple[int, int]) -> str:
    """Name of a volume in the tables: method, width, height, images, hypotheses."""
    return f"{method} {size[1]}x{size[0]}x5x64"


def end_name(size: tuple[int, int]) -> str:
    """Name of an end-to-end case in the tables."""
    return f"end to end {size[1]}x{size[0]}"


def limit_ms(name: str) -> float:
    """Target of a case in ms; inf if it has none."""
    return TARGETS_MS.get(name, float("inf"))


def _mb(megabytes: float | None) -> str:
    return "" if megabytes is None else f"{megabytes:.0f} MB"


def machine() -> dict[str, Any]:
    """Graphics card and versions."""
    import torch

    from dfs_ros.cost_volume.cuda.driver import cuda_kernels

    properties = torch.cuda.get_device_properties(0)
    return {
        "dfs_ros": dfs_ros.__version__,
        "commit": _said_by("git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"),
        "card": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_mb": properties.total_memory / 1e6,
        "driver": _said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "kernels": cuda_kernels(0).origin,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def _said_by(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

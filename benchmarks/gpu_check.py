"""Check, time and profile the CUDA path on a machine with a GPU, within minutes.

    python -m benchmarks.gpu_check --output gpu

Checks by worth: parity with the reference, then times against a counted floor and memory against a counted plan, then
other runners of the network (engine builds take minutes), then compute-sanitizer, where they are installed.
gpu/gpu.json and gpu/gpu.md are written before and after each check, so a run cut short keeps what it had; they name
the checks not run. Beside this repository a CUDA build of PyTorch and cuda-bindings suffice. Without a GPU, --plan
prints the checks and the counted figures; it measures nothing.

Exit status: 0 all good, 1 a check failed or a target was missed, 3 no CUDA device, 4 checks lacked time, others passed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dfs_ros
from benchmarks.gpu_order import Check, run_in_order
from benchmarks.gpu_report import TARGETS_MB, TARGETS_MS, markdown
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cuda
from dfs_ros.system.atomic import write_atomically

if TYPE_CHECKING:
    from benchmarks.gpu_checks import Bench

NO_DEVICE, CUT = 3, 4
TIME_LIMIT_S = 540.0  # a machine lent for ten minutes starts and hands back within them


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output", metavar="DIR", help="folder for gpu.json and gpu.md")
    parser.add_argument(
        "--time-limit",
        type=float,
        default=TIME_LIMIT_S,
        metavar="S",
        help="seconds for all checks (default: %(default)g)",
    )
    parser.add_argument("--quick", action="store_true", help="check parity only, as within compute-sanitizer")
    parser.add_argument("--plan", action="store_true", help="print checks and counted figures, without a GPU")
    parser.add_argument("--runner", nargs=2, metavar=("RUNNER", "PRECISION"), help="measure one runner of the network")
    parser.add_argument("--repeats", type=int, default=50, metavar="N", help="timed calls of each case (default: 50)")
    parser.add_argument("--network", default="light", metavar="NAME", help="model of models/ (default: light)")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats: expected 1 or more, received {args.repeats}")
    if not (args.time_limit > 0 and math.isfinite(args.time_limit)):
        parser.error(f"--time-limit: expected seconds over 0, received {args.time_limit:g}")
    if args.plan:
        print(json.dumps(plan(), indent=2))
        return 0
    cause = cuda.why_not()
    if cause is not None:
        print(f"gpu_check: no CUDA device: {cause}. Nothing was checked; --plan tells what would be.", file=sys.stderr)
        return NO_DEVICE
    bench = bench_here(args)
    if args.runner:
        from benchmarks.gpu_speed import measure_network

        runner, precision = args.runner
        print(json.dumps(measure_network(args.network, runner, precision, bench.shape, bench.device, args.repeats)))
        return 0
    return run(checks_of(bench, quick=args.quick), {"machine": machine()}, args.time_limit, args.output)


def run(checks: Sequence[Check], report: dict[str, Any], limit_s: float, output: str | None) -> int:
    """Run checks, keep the report in the folder `output` after each; returns the exit status."""

    def keep(report: dict[str, Any]) -> None:
        if output is not None:
            folder = Path(output)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "gpu.md", markdown(report).encode())
            write_atomically(folder / "gpu.json", (json.dumps(report, indent=2) + "\n").encode())

    run_in_order(checks, report, limit_s, keep)
    print(json.dumps(report, indent=2))
    if report["missed"]:
        return 1
    return CUT if report["short_of_time"] else 0


def bench_here(args: argparse.Namespace) -> Bench:
    """The current CUDA device with its kernels."""
    import torch

    from benchmarks.gpu_checks import Bench

    device = torch.device("cuda", torch.cuda.current_device())
    return Bench(cuda.cuda_kernels(device.index), device, network=args.network, repeats=args.repeats)


def checks_of(bench: Bench, quick: bool = False) -> list[Check]:
    """All checks in their order; `quick`: those for compute-sanitizer."""
    from benchmarks import gpu_checks

    if quick:  # without the network, whose kernels belong to other libraries
        return gpu_checks.parity_checks(bench, ("none",))
    parity = gpu_checks.parity_checks(bench, ("none", bench.network))
    return [
        *parity,
        *gpu_checks.speed_checks(bench),
        *gpu_checks.runner_checks(bench),
        *gpu_checks.sanitizer_checks(),
    ]


def plan() -> dict[str, Any]:
    """Plan without a device: checks, counted floors and memory, and targets; nothing is measured."""
    from dataclasses import asdict

    import torch

    from benchmarks import gpu, gpu_checks, memory_plan

    volumes: dict[str, Any] = {}
    sizes = gpu_checks.SIZES
    for method, size in (*(("residual", size) for size in sizes), ("released", sizes[-1]), ("paper", sizes[-1])):
        problem = gpu.textured_problem(CostConfig(method=method, channels="rgb"), size, 5, 64)
        volumes[gpu_checks.volume_name(method, size)] = {
            "planned_mb": memory_plan.planned_volume_bytes(problem) / 1e6,
            **({"floor": asdict(gpu.floor_of(problem))} if method == "residual" else {}),
        }
    ends = {
        gpu_checks.end_name(size, "none"): {
            "planned_mb": memory_plan.planned_depth_bytes(gpu.textured_problem(CostConfig(), size, 5, 64)) / 1e6
        }
        for size in sizes
    }
    bench = gpu_checks.Bench(memory_plan.NoKernels(), torch.device("meta"))
    return {
        "measured": "nothing: this is the plan",
        "checks": [check.name for check in checks_of(bench)],
        "volumes": volumes,
        "end_to_end": ends,
        "targets_ms": TARGETS_MS,
        "targets_mb": TARGETS_MB,
    }


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

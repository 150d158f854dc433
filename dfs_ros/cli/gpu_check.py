"""Check, time and profile the CUDA path on a machine with a GPU. Prints, and with --output writes, JSON.

    python -m dfs_ros.cli.gpu_check --output gpu.json
    compute-sanitizer --tool memcheck python -m dfs_ros.cli.gpu_check --quick        (also racecheck, initcheck)

Exit status: 0 all good, 1 a check failed or a target was missed, 3 no CUDA device.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dfs_ros
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cuda

if TYPE_CHECKING:
    from dfs_ros.evaluation.gpu import Comparison

NO_DEVICE = 3
_TARGET_MS = {"residual 256x256x5x64": 1.0, "residual 640x480x5x64": 5.0}  # on a data-centre card of 2024
_TARGET_MB = {"residual 640x480x5x64": 400.0}
_TARGET_NETWORK_MS = 1.0
_TARGET_END_TO_END_MS = 4.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dfs_ros.cli.gpu_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output", metavar="FILE", help="also write the JSON there")
    parser.add_argument("--quick", action="store_true", help="only parity, for compute-sanitizer")
    parser.add_argument("--repeats", type=int, default=50, metavar="N", help="timed calls of each case (default: 50)")
    parser.add_argument("--network", default="light", metavar="NAME", help="network of models/ (default: light)")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats: expected 1 or more, received {args.repeats}")
    cause = cuda.why_not()
    if cause is not None:
        print(f"gpu_check: no CUDA device: {cause}. Nothing was checked.", file=sys.stderr)
        return NO_DEVICE
    report = _report(args)
    text = json.dumps(report, indent=2)
    print(text)
    if args.output:
        Path(args.output).write_text(text + "\n")
    return 0 if report["passed"] else 1


def _report(args: argparse.Namespace) -> dict[str, Any]:
    from dfs_ros.evaluation import gpu

    report: dict[str, Any] = {"machine": _machine()}

    def on_device(problem: Any, **settings: Any) -> Any:
        return cuda.cost_volume(problem, **settings).cpu().numpy()

    parity = gpu.check_parity(on_device) + _same_by_other_ways()
    report["parity"] = [comparison.to_dict() for comparison in parity]
    missed = [f"parity: {c.case}: {c.error:.3g}" for c in parity if not c.passed]
    if not args.quick:
        missed += _measure(args, report)
    report["missed"] = missed
    report["passed"] = not missed
    return report


def _same_by_other_ways() -> list[Comparison]:
    """A CUDA graph replayed with other images, small blocks, kept spectra and images on the device give the same."""
    import torch

    from dfs_ros.cost_volume import SpectraCache, reference
    from dfs_ros.evaluation.gpu import compare, textured_problem

    results = []
    for method in ("residual", "released"):
        for shape in ((61, 83), (64, 96)):
            problem = textured_problem(CostConfig(method=method), shape, 4, 7)
            expected = reference.cost_volume(problem)
            mirrored = np.ascontiguousarray(problem.stack.images[:, ::-1])
            cache, keys = SpectraCache(), list(range(4))
            ways: dict[str, dict[str, Any]] = {
                "small blocks": {"block_bytes": 1},
                "graph": {"graph": True},
                "graph again": {"graph": True},
                "spectra": {"spectra_cache": cache, "frame_keys": keys},
                "kept spectra": {"spectra_cache": cache, "frame_keys": keys},
                "images on the device": {"images": torch.from_numpy(problem.stack.images).cuda()},
            }
            for way, settings in ways.items():
                volume = cuda.cost_volume(problem, **settings).cpu().numpy()
                results.append(compare(f"{method} {shape} {way}", volume, expected, 1e-4))
                if way == "graph":  # so that replaying must bring in the images again
                    cuda.cost_volume(problem, images=torch.from_numpy(mirrored).cuda(), graph=True)
    return results


def _measure(args: argparse.Namespace, report: dict[str, Any]) -> list[str]:
    """Fill in times and memory; what missed its target."""
    from dfs_ros.evaluation import gpu

    missed = []
    bandwidth = gpu.copy_bandwidth()
    report["copy_bandwidth_gb_per_s"] = bandwidth / 1e9
    report["volumes"] = {}
    for method, size in (
        ("residual", (256, 256)),
        ("residual", (480, 640)),
        ("released", (256, 256)),
        ("paper", (256, 256)),
    ):
        name = f"{method} {size[1]}x{size[0]}x5x64"
        problem = gpu.textured_problem(CostConfig(method=method, channels="rgb"), size, 5, 64)
        result = gpu.measure_volume(problem, bandwidth, args.repeats)
        result["profile_us"] = gpu.profile_volume(problem)
        report["volumes"][name] = result
        best = min(result["eager"]["median_ms"], result["graph"]["median_ms"])
        if best > _TARGET_MS.get(name, np.inf):
            missed.append(f"time: {name}: {best:.3f} ms, target {_TARGET_MS[name]} ms")
        if result["peak_tensor_mb"] > _TARGET_MB.get(name, np.inf):
            missed.append(f"memory: {name}: {result['peak_tensor_mb']:.0f} MB, target {_TARGET_MB[name]:.0f} MB")
    missed += _measure_end_to_end(args, report)
    return missed


def _measure_end_to_end(args: argparse.Namespace, report: dict[str, Any]) -> list[str]:
    """The network alone in a CUDA graph, and frames on the host to depth on the host with all else on the device."""
    import torch

    from dfs_ros.evaluation import gpu
    from dfs_ros.network.weights import load_weights, model_file

    problem = gpu.textured_problem(CostConfig(), (256, 256), 5, 64)  # as the network has been trained
    module = load_weights(model_file(args.network)).cuda().eval()
    with torch.inference_mode():
        images = torch.from_numpy(problem.stack.images).cuda()
        energy = cuda.cost_volume(problem, images=images, output="log_energy").clone()
        inputs = (energy[None], energy[None], energy[None, :4].clone())
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                module(*inputs)
                gpu.depth_on_device(problem, module, images, energy)
        torch.cuda.current_stream().wait_stream(side)
        network, rest = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(network):
            module(*inputs)
        with torch.cuda.graph(rest):
            depth = gpu.depth_on_device(problem, module, images, energy)
        report["network_graph"] = gpu.time_ms(network.replay, args.repeats)

        def frames_to_depth() -> Any:
            images.copy_(torch.from_numpy(problem.stack.images))
            energy.copy_(cuda.cost_volume(problem, images=images, output="log_energy", graph=True))
            rest.replay()
            return depth.cpu()

        for _ in range(5):
            frames_to_depth()
        seconds = []
        for _ in range(args.repeats):
            begin = time.perf_counter()
            frames_to_depth()
            seconds.append(time.perf_counter() - begin)
    end_to_end_ms = 1e3 * float(np.median(seconds))
    report["end_to_end"] = {
        "what": "256x256x5x64, default settings, uint8 on the host to depth on the host: volume, guided filter, "
        "network, median; no alignment, no all-in-focus image",
        "median_ms": end_to_end_ms,
        "max_ms": 1e3 * max(seconds),
        "depth_finite": bool(torch.isfinite(depth).all()),
    }
    missed = []
    if report["network_graph"]["median_ms"] > _TARGET_NETWORK_MS:
        missed.append(f"time: network: {report['network_graph']['median_ms']:.3f} ms, target {_TARGET_NETWORK_MS} ms")
    if end_to_end_ms > _TARGET_END_TO_END_MS:
        missed.append(f"time: end to end: {end_to_end_ms:.3f} ms, target {_TARGET_END_TO_END_MS} ms")
    if not report["end_to_end"]["depth_finite"]:
        missed.append("end to end: depth is not finite everywhere")
    return missed


def _machine() -> dict[str, Any]:
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

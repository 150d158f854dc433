"""Measure speed and memory of cost volumes and estimator on this machine.

1. Cost volumes of one problem, by default 256 x 256, 5 images, 64 hypotheses; `released` also through scikit-image's
   `restoration.wiener`, on one thread and on as many as ours.
2. Outputs of one depth image: points, packed cloud, colours.
3. Time of a volume against image size, number of images and number of hypotheses, with a fitted line each.
4. The estimator behind a camera, for each runner and device present and at several frame rates: rate of depth, jitter,
   latency, missed images, memory, share of each step.

--output writes bench.json and bench.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

import dfs_ros
from benchmarks import live_cli

SIZES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # times --size
IMAGES = (2, 3, 4, 5, 6, 8, 10)
HYPOTHESES = (8, 16, 32, 48, 64, 96)
METHODS = ("released", "residual")
UNITS = {"megapixels": "megapixel", "images": "image", "hypotheses": "hypothesis"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="DIR", help="folder for bench.json and bench.png")
    parser.add_argument("--size", metavar="PX", type=int, default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--images", metavar="N", type=int, default=5, help="images in the stack (default: 5)")
    parser.add_argument(
        "--hypotheses", metavar="N", type=int, default=64, help="number of depth hypotheses (default: 64)"
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, default=0, help="number of CPU threads; 0: all cores (default: 0)"
    )
    parser.add_argument(
        "--repeats",
        metavar="N",
        type=int,
        default=4,
        help="calls of each case per round, of which the fastest counts (default: 4)",
    )
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="rounds over all cases (default: 3)")
    parser.add_argument(
        "--growth-hypotheses",
        metavar="N",
        type=int,
        default=16,
        help="depth hypotheses in part 3 where not varied (default: 16)",
    )
    parser.add_argument("--no-growth", action="store_true", help="skip part 3")
    live_cli.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    for name, low in (
        ("size", 16),
        ("images", 2),
        ("hypotheses", 2),
        ("threads", 0),
        ("repeats", 1),
        ("rounds", 1),
        ("growth_hypotheses", 2),
    ):
        if getattr(args, name) < low:
            raise ValueError(f"--{name.replace('_', '-')}: expected {low} or more, received {getattr(args, name)}")
    if not args.live_seconds > 0:
        raise ValueError(f"--live-seconds: expected more than 0, received {args.live_seconds:g}")
    live_cli.rates_of(args.rates)
    live_cli.runners_of(args.runners)
    from benchmarks import judging, outputs
    from dfs_ros.system.atomic import prepare_output, staged

    if args.output:
        prepare_output(args.output)
    report: dict[str, Any] = {"versions": _versions(), "arguments": vars(args).copy()}
    if not args.only_live:
        report |= _side_by_side(args)
        _print_side_by_side(report)
        report["outputs_s"] = outputs.measure(args.repeats)
        times = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in report["outputs_s"].items())
        print(f"outputs of 640 x 480 depth: {times}")
        report["judge_s"] = judging.measure(args.repeats)
        times = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in report["judge_s"].items())
        print(f"judge of 5 images of 320 x 240: {times}")
    if not args.no_growth and not args.only_live:
        report["growth"] = _growth(args)
        _print_growth(report["growth"], args.size)
    if args.only_live or not args.no_live:
        report["live"] = live_cli.run(args)
        print(live_cli.describe(report["live"], args))
    if args.output:
        with staged(args.output, last="bench.json") as folder:
            if "growth" in report:
                draw(report["growth"], args.size, folder / "bench.png")
            (folder / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {args.output}")
    return 0


def _side_by_side(args: argparse.Namespace) -> dict[str, Any]:
    from tqdm import tqdm

    from benchmarks.speed import SpeedCase, SpeedResult, best_of, measure

    case = SpeedCase(
        "released",
        height=args.size,
        width=args.size,
        images=args.images,
        hypotheses=args.hypotheses,
        threads=args.threads,
        repeats=args.repeats,
    )
    cases = {name: dataclasses.replace(case, method=name) for name in ("released", "paper", "residual")}
    cases["residual, luma"] = dataclasses.replace(case, method="residual", channels="luma")
    if importlib.util.find_spec("skimage") is not None:
        theirs = dataclasses.replace(case, method="skimage", repeats=1)
        cases["scikit-image, 1 thread"] = dataclasses.replace(theirs, threads=1)
        cases["scikit-image, threads"] = theirs
    # Rounds over all cases, so that other load affects all alike; the best time of each counts.
    results: dict[str, list[SpeedResult]] = {name: [] for name in cases}
    for name in tqdm([*cases] * args.rounds, desc="side by side", unit="case", leave=False, disable=None):
        results[name].append(measure(cases[name]))
    best = {name: dataclasses.asdict(best_of(rounds)) for name, rounds in results.items()}
    return {"case": dataclasses.asdict(case), "side_by_side": best}


def _print_side_by_side(report: dict[str, Any]) -> None:
    case, results = report["case"], report["side_by_side"]
    print(f"{case['width']} x {case['height']} RGB, {case['images']} images, {case['hypotheses']} hypotheses")
    print(f"{'cost volume':<26}{'best':>9}{'first':>9}{'extra memory':>15}")
    for name, result in results.items():
        times = f"{result['best_s']:>7.3f} s{result['first_s']:>7.3f} s"
        print(f"{name:<26}{times}{result['peak_extra_mb']:>12.0f} MB")
    ours = results["released"]["best_s"]
    print(f"residual takes {results['residual']['best_s'] / ours:.2f} times as long as released")
    single, threaded = results.get("scikit-image, 1 thread"), results.get("scikit-image, threads")
    if single is None or threaded is None:
        print("scikit-image is not installed: nothing to compare released with (pip install scikit-image)")
        return
    difference = abs(results["released"]["checksum"] / single["checksum"] - 1)
    print(
        f"released is {single['best_s'] / ours:.1f} times as fast as through scikit-image's wiener, "
        f"{threaded['best_s'] / ours:.1f} times with as many threads; mean cost equal to {difference:.0e}"
    )


def _growth(args: argparse.Namespace) -> dict[str, Any]:
    """Time against pixels, images and hypotheses, each varied alone, with a fitted line."""
    from tqdm import tqdm

    from benchmarks.speed import SpeedCase, measure_here

    base = SpeedCase(
        "released",
        height=args.size,
        width=args.size,
        hypotheses=args.growth_hypotheses,
        threads=args.threads,
        repeats=1,
    )
    sizes_px = [max(16, round(share * args.size)) for share in SIZES]
    axes: dict[str, list[tuple[float, SpeedCase]]] = {
        "megapixels": [(n * n / 1e6, dataclasses.replace(base, height=n, width=n)) for n in sizes_px],
        "images": [(n, dataclasses.replace(base, images=n)) for n in IMAGES],
        "hypotheses": [(n, dataclasses.replace(base, hypotheses=n)) for n in HYPOTHESES],
    }
    jobs = [(axis, m, i) for axis, points in axes.items() for m in METHODS for i in range(len(points))]
    best = dict.fromkeys(jobs, np.inf)
    for job in tqdm(jobs * (args.repeats * args.rounds), desc="growth", unit="call", leave=False, disable=None):
        axis, method, i = job
        best[job] = min(best[job], measure_here(dataclasses.replace(axes[axis][i][1], method=method)).best_s)
    growth: dict[str, Any] = {}
    for axis, points in axes.items():
        x = [value for value, _ in points]
        growth[axis] = {m: fitted_line(x, [best[axis, m, i] for i in range(len(x))]) for m in METHODS}
    return growth


def fitted_line(x: list[float], seconds: list[float]) -> dict[str, Any]:
    """Points with slope, offset and R^2 of their least-squares line."""
    slope, offset = np.polyfit(x, seconds, 1)
    y = np.asarray(seconds)
    unexplained = float(((y - (slope * np.asarray(x) + offset)) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    return {
        "x": x,
        "seconds": seconds,
        "slope_s": float(slope),
        "offset_s": float(offset),
        "r_squared": 1.0 - unexplained / total if total > 0 else 1.0,
    }


def _print_growth(growth: dict[str, Any], size_px: int) -> None:
    print(f"growth of the time, all else as it was (5 images, {size_px} x {size_px} RGB)")
    for axis, methods in growth.items():
        for method, line in methods.items():
            slope = f"{1000 * line['slope_s']:8.2f} ms per {UNITS[axis]}"
            print(f"  {method:<10}{slope:<27} + {1000 * line['offset_s']:6.1f} ms, R^2 {line['r_squared']:.4f}")


def draw(growth: dict[str, Any], size_px: int, path: Path) -> None:
    """Plot measured times and fitted lines, one panel for each axis of growth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(growth), figsize=(13, 4), constrained_layout=True)
    for panel, (axis, methods) in zip(panels, growth.items(), strict=True):
        for method, line in methods.items():
            (points,) = panel.plot(line["x"], line["seconds"], "o")
            ends = np.array([0.0, max(line["x"])])
            label = f"{method}, R² = {line['r_squared']:.3f}"
            panel.plot(ends, line["slope_s"] * ends + line["offset_s"], color=points.get_color(), label=label)
        panel.set_xlabel(axis)
        panel.set_ylabel("seconds")
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle(f"Time of a cost volume; {size_px} x {size_px} RGB and 5 images where not varied")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _versions() -> dict[str, Any]:
    import os

    import cv2
    import scipy

    return {
        "dfs_ros": dfs_ros.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "opencv": cv2.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }

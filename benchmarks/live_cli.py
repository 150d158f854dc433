"""Part of `dfs bench` behind a camera: each runner and device at several frame rates."""

from __future__ import annotations

import argparse
from typing import Any

RUNNERS = ("none", "torch", "onnx", "tensorrt", "tensorrt_rtx")
RATES_HZ = "0,5,10,30"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    group = parser.add_argument_group("estimator behind a camera")
    group.add_argument("--no-live", action="store_true", help="skip part 4")
    group.add_argument("--only-live", action="store_true", help="run part 4 alone")
    group.add_argument(
        "--live-seconds",
        metavar="S",
        type=float,
        default=5.0,
        help="duration for each runner and rate [s] (default: %(default)g)",
    )
    group.add_argument(
        "--rates", metavar="HZ,HZ", default=RATES_HZ, help="frame rates; 0: as fast as possible (default: %(default)s)"
    )
    group.add_argument(
        "--runners",
        metavar="NAME,NAME",
        default=",".join(RUNNERS),
        help="runners to measure where installed; none: no network (default: %(default)s)",
    )


def rates_of(text: str) -> tuple[float, ...]:
    """Parse rates in Hz. Raises ValueError for anything else."""
    try:
        rates = tuple(float(rate) for rate in text.split(","))
    except ValueError:
        rates = ()
    if not rates or not all(0 <= rate < 1e6 for rate in rates):
        raise ValueError(
            f"--rates: expected numbers of 0 or more with commas between, as {RATES_HZ}, received {text!r}"
        )
    return rates


def runners_of(text: str) -> list[str]:
    """Parse names of runners. Raises ValueError for unknown ones."""
    names = text.split(",")
    unknown = [name for name in names if name not in RUNNERS]
    if unknown:
        raise ValueError(f"--runners: expected some of {', '.join(RUNNERS)}, received {', '.join(unknown)!r}")
    return names


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every case; return records by device and runner."""
    from tqdm import tqdm

    from benchmarks.live import LiveCase, cases_here, measure

    base = LiveCase(
        height=args.size,
        width=args.size,
        images=args.images,
        hypotheses=args.hypotheses,
        threads=args.threads,
        rates_hz=rates_of(args.rates),
        seconds=args.live_seconds,
    )
    cases = cases_here(base, runners_of(args.runners))
    return {case.name: measure(case) for case in tqdm(cases, desc="live", unit="case", leave=False, disable=None)}


def describe(live: dict[str, Any], args: argparse.Namespace) -> str:
    """Text table of rates, and the share of each step at the highest rate."""
    lines = [
        f"following a camera: {args.size} x {args.size} RGB, sliding stacks of {args.images} images, "
        f"{args.hypotheses} hypotheses, no all-in-focus image",
        f"{'device, runner':<20}{'images':>10}{'depth':>10}{'jitter':>10}{'latency':>10}{'first':>10}{'last':>10}"
        f"{'missed':>12}",
    ]
    for name, record in live.items():
        if "absent" in record:
            lines.append(f"{name:<20}  not measured: {record['absent']}")
            continue
        for row in record["rates"]:
            latency, hz = row["latency_s"], row["input_hz"]
            lines.append(
                f"{name:<20}{f'{hz:g} Hz' if hz else 'most':>10}{row['depth_hz']:>7.2f} Hz"
                f"{1e3 * row['jitter_s']:>7.0f} ms{1e3 * latency['median']:>7.0f} ms{1e3 * latency['first']:>7.0f} ms"
                f"{1e3 * latency['last']:>7.0f} ms{row['missed']:>6} / {row['offered']}"
            )
        memory = record["memory_mb"]
        gpu = "" if memory["gpu_device"] is None else f", GPU {memory['gpu_device']:.0f} MB in use"
        shares = ", ".join(f"{step} {100 * share:.0f} %" for step, share in record["rates"][0]["shares"].items())
        lines.append(
            f"  ran in {record['ran_on']['network']} on {record['ran_on']['cost volume']}; first depth after "
            f"{record['first_depth_after_s']:.1f} s; {memory['cpu_peak']:.0f} MB at most{gpu}"
        )
        lines.append(f"  {shares}")
        lines += [f"  network: {text}" for text in record["network_faults"]]
    return "\n".join(lines)

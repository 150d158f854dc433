"""Command ``python -m benchmarks.faults``; exit status 1 if anything broke or was not tried."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.parts import NATIVE_PARTS, PARTS, Options, table, told


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description="Try faults and count what breaks.",
        epilog="restart: SIGKILL of the depth node of depth.launch.py, until there is depth again. cycles: configure "
        "and cleanup of the native depth node by its services. Both need native ROS 2 and --native.",
    )
    known = (*PARTS, *NATIVE_PARTS)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"some of {', '.join(known)} (default: all but the last two; with --native these two)",
    )
    parser.add_argument("--count", type=int, metavar="N", help="cases of each part (default: the part's own number)")
    parser.add_argument("--seconds", type=float, default=600.0, metavar="S", help="longest time of a part")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all random choices")
    parser.add_argument("--duration", type=float, metavar="S", help="growth: one run of `dfs run` of this length")
    parser.add_argument(
        "--native", action="store_true", help="restart, cycles; growth: depth.launch.py and `dfs view` instead"
    )
    parser.add_argument("--samples", type=Path, metavar="FILE", help="growth: file of the samples of a run")
    args = parser.parse_args(arguments)
    for part in args.parts:
        if part not in known:
            parser.error(f"expected some of {', '.join(known)}, received {part!r}")
        if part in NATIVE_PARTS and not args.native:
            parser.error(f"{part}: expected --native too, as it needs native ROS 2")
    rows = []
    for part in args.parts or (NATIVE_PARTS if args.native else PARTS):
        module = importlib.import_module(f"benchmarks.faults.{part}")
        rows += module.run(
            Options(
                count=args.count,
                seconds=args.seconds,
                seed=args.seed,
                duration_s=args.duration,
                native=args.native,
                samples=args.samples,
            )
        )
        told(rows[-1])
    print(table(rows))
    return int(any(row.broke or not row.tried for row in rows))


if __name__ == "__main__":
    sys.exit(main())

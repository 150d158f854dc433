"""Accuracy and sigma on real stacks with known depth.

    python -m benchmarks.stacks_truth ../shared/data/stacks_truth

Each folder of DIR is a focal-stack/1 with `reference_depth` or depth.npy, estimated with the default settings. The
standard deviation of its focus is that of its stack.yaml, else of `--focus-sigma NAME=DIOPTERS`, else of
FOCUS_SIGMA_DIOPTERS (from the notes of these stacks), else nominal. Exit status 1 if the share of errors within sigma
is outside 0.5 to 0.85 for any stack.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.io.markdown import markdown_table
from dfs_ros.io.stack_description import DESCRIPTION_FILE, read_description
from dfs_ros.io.stack_folder import read_reference_depth, read_stack
from dfs_ros.scoring import metrics

FOCUS_SIGMA_DIOPTERS = {"canon_penguin": 0.0187, "fuji_leds": 0.08, "syn_pertuz_cone": 0.0}
"""Standard deviation of the focus of known stacks: 1 cm at 0.73 m; contradiction with the truth; a simulation."""
DEPTH_FILE = "depth.npy"
"""Reference depth of a stack whose stack.yaml names none."""
WITHIN_SIGMA = (0.5, 0.85)


def measure(folder: Path, focus_sigma_diopters: Mapping[str, float], config: Config) -> dict[str, float | str]:
    """Scores of the stack in a folder. Raises ValueError without reference depth, or without any depth beside it."""
    description = read_description(folder)
    if not description.reference_depth and description.path(DEPTH_FILE).is_file():
        description = dataclasses.replace(description, reference_depth=DEPTH_FILE)
    truth = read_reference_depth(description)
    if truth is None:
        raise ValueError(f"{folder}: expected a stack with reference_depth or {DEPTH_FILE}, received none")
    stack = read_stack(description)
    stated = stack.focus_sigma_diopters
    unstated = focus_sigma_diopters.get(folder.name, math.nan)
    stack = dataclasses.replace(stack, focus_sigma_diopters=np.where(np.isnan(stated), unstated, stated))
    result = DepthEstimator(config).estimate(stack, sharpen=False)
    sigma = result.report["sigma"]
    known = np.isfinite(result.depth_m) & np.isfinite(truth)
    if not known.any():
        raise ValueError(f"{folder}: no pixel with known depth has depth: {'; '.join(result.report['warnings'])}")
    sigmas = np.abs(result.depth_m - truth)[known] / result.sigma_m[known]
    return {
        "stack": folder.name,
        "median error": metrics.median_abs_rel(result.depth_m, truth),
        "coverage": metrics.coverage(result.depth_m, truth),
        "in 1 sigma": float(np.mean(sigmas <= 1.0)),
        "in 2 sigma": float(np.mean(sigmas <= 2.0)),
        "sigma / depth": float(np.median(result.sigma_m[known] / result.depth_m[known])),
        "local": sigma["local"],
        "aperture": sigma["aperture"],
        "focus": math.hypot(sigma["gain"], sigma["offset"]),
        "warnings": str(len(result.report["warnings"])),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stacks_truth", description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the stacks")
    parser.add_argument(
        "--focus-sigma",
        metavar="NAME=DIOPTERS",
        action="append",
        default=[],
        help="standard deviation of the focus of a stack that states none; may be repeated",
    )
    parser.add_argument("--threads", metavar="N", type=int, default=0, help="CPU threads (default: all)")
    parser.add_argument(
        "--max-megapixels", metavar="M", type=float, help="working size (default: that of the settings)"
    )
    args = parser.parse_args(argv)
    folders = sorted(file.parent for file in args.folder.glob(f"*/{DESCRIPTION_FILE}"))
    if not folders:
        parser.error(f"{args.folder}: expected folders with {DESCRIPTION_FILE}, found none")
    doubts = dict(FOCUS_SIGMA_DIOPTERS)
    for text in args.focus_sigma:
        name, _, value = text.partition("=")
        try:
            doubts[name] = float(value)
        except ValueError:
            parser.error(f"--focus-sigma: expected NAME=DIOPTERS, received {text!r}")
    size = {} if args.max_megapixels is None else {"max_megapixels": args.max_megapixels}
    config = Config.from_dict({"processing": {"threads": args.threads, **size}})
    rows = []
    for folder in folders:
        print(folder.name, file=sys.stderr, flush=True)
        rows.append(measure(folder, doubts, config))
    print(markdown_table(list(rows[0]), [list(row.values()) for row in rows]))
    low, high = WITHIN_SIGMA
    outside = [row["stack"] for row in rows if not low <= float(row["in 1 sigma"]) <= high]
    if outside:
        print(f"share within sigma outside {low:g} to {high:g}: {', '.join(map(str, outside))}", file=sys.stderr)
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())

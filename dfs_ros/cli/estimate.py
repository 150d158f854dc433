"""Estimate the depth of a focal stack on disk.

STACK is a focal-stack/1 folder (stack.yaml with its images; `dfs import` makes one from photos). Output: depth.npy and
sigma.npy (float32 metres, NaN unknown), depth.png (colour scale in metres), depth_mm.png (uint16), points.ply,
all_in_focus.png and report.json. If the stack names a `reference_depth`, the report compares the result with it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_ros.cli.common import add_config_arguments, config_from_arguments

if TYPE_CHECKING:
    from dfs_ros.types import DepthResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stack", metavar="STACK", help="folder of the stack, with stack.yaml and its images")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for the results, created if missing")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = config_from_arguments(args)

    from dfs_ros.io.results import write_result
    from dfs_ros.io.stack_description import read_description
    from dfs_ros.io.stack_folder import read_reference_depth, read_stack
    from dfs_ros.system.atomic import prepare_output

    # Find all faults of the input before the long work.
    folder = _stack_folder(args.stack)
    if prepare_output(args.output).resolve() == folder:
        raise ValueError(
            f"--output {args.output}: is the folder of the stack, whose files stay as they are; name another"
        )
    description = read_description(args.stack, config.lens)
    stack = read_stack(description, config.processing.max_input_megapixels)
    reference_m = read_reference_depth(description)

    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from dfs_ros.estimator.estimator import DepthEstimator
    from dfs_ros.scoring.difference import against_reference

    estimator = DepthEstimator(config)
    layout = "{desc:<14}{bar}{n:3.0f}% {elapsed}"
    with logging_redirect_tqdm(), tqdm(total=100, leave=False, bar_format=layout, disable=None) as bar:

        def show(step: str, share: float) -> None:
            bar.set_description_str(step)
            bar.update(100.0 * share - bar.n)

        result = estimator.estimate(stack, progress=show)
        if reference_m is not None:
            result.report["reference"] = against_reference(result.depth_m, reference_m)
        show("writing", 1.0)
        write_result(result, args.output, dense=config.confidence.dense, title=f"Depth of {folder.name}")
    print(f"{args.output}: {_summary(result, len(stack))}")
    return 0


def _stack_folder(stack: str) -> Path:
    path = Path(stack).resolve()
    return path if path.is_dir() else path.parent


def _summary(result: DepthResult, images: int) -> str:
    import numpy as np

    height, width = result.depth_m.shape
    took = f"{width} x {height} depth from {images} images in {result.report['seconds']['total']:.2f} s"
    if result.coverage == 0:
        return f"{took}, but nowhere do the images tell depth: no texture, or none that is sharper in one than another"
    low, high = np.nanmin(result.depth_m), np.nanmax(result.depth_m)
    found = f"{took}, {100 * result.coverage:.0f} % of pixels with depth, {low:.3g} to {high:.3g} m"
    reference = result.report.get("reference")
    if reference is None:
        return found
    return (
        f"{found}; median difference to the reference {100 * reference['median_abs_rel']:.1f} %, "
        f"{100 * reference['coverage']:.0f} % of it with depth"
    )

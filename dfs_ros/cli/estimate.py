"""Depth of a focal stack on disk.

STACK is a focal-stack/1 folder (`stack.yaml` beside its images; `dfs import` makes one from photos). Writes depth.npy and
sigma.npy (float32 metres, NaN where unknown), depth.png (colours, with scale), depth_mm.png (uint16), points.ply,
all_in_focus.png and report.json.
"""

from __future__ import annotations

import argparse
import sys

from dfs_ros.cli.common import add_config_arguments, config_from_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stack", metavar="STACK", help="folder with stack.yaml and its images")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for the results, made if it is not there")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = config_from_arguments(args)

    from dfs_ros.io.results import prepare_output, write_result
    from dfs_ros.io.stack_folder import load_stack

    # Everything that can be wrong is found before the long work starts.
    prepare_output(args.output)
    stack = load_stack(args.stack, lens=config.lens)

    from tqdm import tqdm

    from dfs_ros.pipeline import DepthEstimator

    estimator = DepthEstimator(config)
    with tqdm(total=100, unit="%", leave=False, bar_format="{desc:<14}{bar}{n:3.0f}% {elapsed}", disable=None) as bar:

        def show(step: str, share: float) -> None:
            bar.set_description_str(step)
            bar.update(100.0 * share - bar.n)

        result = estimator.estimate(stack, progress=show)
        show("writing", 1.0)
        write_result(result, args.output)
    for warning in result.report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    height, width = result.depth_m.shape
    print(
        f"{args.output}: {width} x {height} depth from {len(stack)} images in {result.report['seconds']['total']:.2f} s, "
        f"{100 * result.coverage:.0f} % of pixels with depth, {result.report['depth_range_m']['text']}"
    )
    return 0

"""Estimate the depth of focal stacks on disk.

STACK is a focal-stack/1 folder (stack.yaml with its images; `dfs import` makes one from photos), or a bag of a camera,
of which the first whole sweep is taken (`dfs replay` takes all). Output: depth.npy and sigma.npy (float32 metres, NaN
unknown), depth.png and sigma.png (colour scales in metres), depth_mm.png (uint16),
points.ply, all_in_focus.png and report.json. If the stack names a `reference_depth`, the report compares the result
with it.

    dfs estimate --sample --output DIR      a rendered scene of known depth, without a stack

Several stacks: each has the folder of its name below --output; a stack that fails does not stop the others, and makes
the exit status 1.

--json prints {"stacks": [{"stack": ..., "output": ..., "error": null or text, "report": report.json or null}]}.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dfs_ros.cli.common import add_config_arguments, config_from_arguments

if TYPE_CHECKING:
    from dfs_ros.config import Config
    from dfs_ros.estimator.estimator import DepthEstimator
    from dfs_ros.types import DepthResult

_FAULTS = (ValueError, TypeError, OSError, MemoryError)
_BAR = "{desc:<14}{bar}{n:3.0f}% {elapsed}"


class _Job(NamedTuple):
    stack: str
    output: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stacks", metavar="STACK", nargs="*", help="folder of a stack, or bag of a camera")
    parser.add_argument(
        "--sample", action="store_true", help="instead of STACK: a rendered scene, whose true depth the report compares"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        help="folder for the results, created if missing; of several stacks, for a folder each",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON, and nothing else")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.sample == bool(args.stacks):
        raise ValueError("expected one STACK or more, or --sample alone; see `dfs estimate --help`")
    if args.sample:
        from dfs_ros.cli.simulate import write_sample

        with tempfile.TemporaryDirectory(prefix="dfs_sample_") as folder:
            sample = str(Path(folder) / "sample")
            write_sample(sample)
            return run(argparse.Namespace(**{**vars(args), "sample": False, "stacks": [sample]}))
    config = config_from_arguments(args)
    jobs = _jobs(args.stacks, args.output)

    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from dfs_ros.system.tracebacks import keep_traceback

    records: list[dict[str, Any]] = []
    first_fault: Exception | None = None
    estimators: list[DepthEstimator] = []
    with logging_redirect_tqdm(), tqdm(total=100, leave=False, bar_format=_BAR, disable=None) as bar:
        for number, job in enumerate(jobs):
            place = f"{number + 1}/{len(jobs)} " if len(jobs) > 1 else ""

            def show(step: str, share: float, number: int = number, place: str = place) -> None:
                bar.set_description_str(place + step)
                bar.update(100.0 * (number + share) / len(jobs) - bar.n)

            try:
                said, report = _estimate(job, config, estimators, show)
                records.append({"stack": job.stack, "output": job.output, "error": None, "report": report})
                for finding in report["findings"]:
                    tqdm.write(f"dfs estimate: warning: {job.stack}: {finding['text']}", file=sys.stderr)
            except _FAULTS as error:
                first_fault = first_fault or error
                text = str(error) or type(error).__name__
                records.append({"stack": job.stack, "output": job.output, "error": text, "report": None})
                if len(jobs) == 1:
                    break
                keep_traceback(error)
                tqdm.write(f"dfs estimate: error: {job.stack}: {text}", file=sys.stderr)
                continue
            if not args.json:
                tqdm.write(said, file=sys.stdout)
    if args.json:
        print(json.dumps({"stacks": records}, indent=2))
    if len(jobs) == 1 and first_fault is not None:
        raise first_fault
    failed = [record["stack"] for record in records if record["error"] is not None]
    if len(jobs) > 1:
        summary = f"{args.output}: {len(jobs) - len(failed)} of {len(jobs)} stacks estimated"
        text = f"{summary}; failed: {', '.join(failed)}" if failed else summary
        print(text, file=sys.stderr if args.json else sys.stdout)
    return 1 if failed else 0


def _jobs(stacks: list[str], output: str) -> list[_Job]:
    """Output folder of each stack: `output` itself, or one of the stack's name below it."""
    if len(stacks) == 1:
        return [_Job(stacks[0], output)]
    jobs = [_Job(stack, str(Path(output) / _stack_folder(stack).name)) for stack in stacks]
    twice = [name for name, times in Counter(job.output for job in jobs).items() if times > 1]
    if twice:
        of_one = ", ".join(job.stack for job in jobs if job.output == twice[0])
        raise ValueError(f"stacks: expected folders of different names, received {of_one}; estimate them one by one")
    return jobs


def _estimate(
    job: _Job, config: Config, estimators: list[DepthEstimator], show: Callable[[str, float], None]
) -> tuple[str, dict[str, Any]]:
    """Estimate one stack and write its files; return a line of text and the report.

    `estimators`: the estimator of earlier stacks, made when the first stack is read.
    """
    if not _is_bag(Path(job.stack)):
        return _estimate_stack(job, job.stack, config, estimators, show)

    from dfs_ros.node.taking import take_from_bag

    show("reading", 0.0)
    with tempfile.TemporaryDirectory(prefix="dfs_estimate_") as folder:
        taken = take_from_bag(Path(job.stack), Path(folder) / _stack_folder(job.stack).name, config)
        return _estimate_stack(job, str(taken), config, estimators, show)


def _is_bag(path: Path) -> bool:
    return path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").is_file()


def _estimate_stack(
    job: _Job, stack_folder: str, config: Config, estimators: list[DepthEstimator], show: Callable[[str, float], None]
) -> tuple[str, dict[str, Any]]:
    """Estimate a stack of a folder; otherwise as :func:`_estimate`."""
    from dfs_ros.io.results import REPORT_FILE, write_result
    from dfs_ros.io.stack_description import read_description
    from dfs_ros.io.stack_folder import read_reference_depth, read_stack
    from dfs_ros.system.atomic import prepare_output

    # Find all faults of the input before the long work.
    show("reading", 0.0)
    folder = _stack_folder(job.stack)
    if prepare_output(job.output).resolve() == folder:
        raise ValueError(
            f"--output {job.output}: is the folder of the stack, whose files stay as they are; name another"
        )
    description = read_description(stack_folder, config.lens)
    stack = read_stack(description, config.limits.image_megapixels, config.processing.max_megapixels)
    reference_m = read_reference_depth(description)

    from dfs_ros.estimator.estimator import DepthEstimator
    from dfs_ros.scoring.difference import against_reference

    if not estimators:
        show("loading", 0.0)
        estimators.append(DepthEstimator(config))
    result = estimators[0].estimate(stack, progress=show)
    if reference_m is not None:
        result.report["reference"] = against_reference(result.depth_m, reference_m)
    show("writing", 1.0)
    written = write_result(result, job.output, dense=config.confidence.dense, title=f"Depth of {folder.name}")
    report = json.loads((written / REPORT_FILE).read_text(encoding="utf-8"))
    return f"{job.output}: {_summary(result, len(stack))}", report


def _stack_folder(stack: str) -> Path:
    path = Path(stack).resolve()
    return path if path.is_dir() else path.parent


def _summary(result: DepthResult, images: int) -> str:
    import numpy as np

    height, width = result.depth_m.shape
    took = f"{width} x {height} depth from {images} images in {result.report['seconds']['total']:.2f} s"
    if any(finding["contradiction"] for finding in result.report["findings"]) and result.coverage == 0:
        return f"{took}, but no pixel has depth: the images contradict the description of the stack"
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

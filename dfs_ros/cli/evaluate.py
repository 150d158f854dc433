"""Score depth on focal stacks rendered from photos with depth, dense, and print the table.

--rgbd names a folder of scenes (rgb.png, depth_mm.png, meta.json each); stacks of cameras A, B and C are rendered from
them once and kept in the cache. Methods: released, paper, residual (argmin of that cost volume), none (the
regularised argmin), or a network by name or file. Means are over stacks; time is that of one estimate on this machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import dfs_ros
from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.config import Config

if TYPE_CHECKING:
    from dfs_ros.evaluation.rendered import RenderedStack


_PROTOCOL = {"hypotheses": {"min_depth_m": 0.31, "max_depth_m": 10.0, "count": 64}}
"""The range is given, not found: the same for every method and scene."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rgbd", metavar="DIR", required=True, help="folder of photos with depth")
    parser.add_argument("--cameras", default="A,B,C", help="cameras, separated by commas (default: A,B,C)")
    parser.add_argument(
        "--methods",
        default="released,residual,none,light",
        help="what to compare, separated by commas (default: released,residual,none,light)",
    )
    parser.add_argument("--width", type=int, default=320, help="width of the rendered images in pixels (default: 320)")
    parser.add_argument(
        "--f-number-error", type=float, default=0.0, metavar="SHARE", help="estimate with a wrong f-number"
    )
    parser.add_argument("--output", metavar="DIR", help="folder for scores.json and table.md")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = config_from_arguments(args, Config.from_dict(_PROTOCOL))
    cameras, names = _names(args.cameras, "--cameras"), _names(args.methods, "--methods")
    if args.width < 32:
        raise ValueError(f"--width: expected 32 or more, received {args.width}")
    if not -0.9 <= args.f_number_error <= 9:
        raise ValueError(f"--f-number-error: expected a share from -0.9 to 9, received {args.f_number_error}")

    from tqdm import tqdm

    from dfs_ros.evaluation.methods import make_method
    from dfs_ros.evaluation.rendered import evaluation_stacks
    from dfs_ros.evaluation.table import evaluate, markdown, summary
    from dfs_ros.io.atomic import prepare_output, staged

    if args.output:
        prepare_output(args.output)
    methods = {name: make_method(name, config) for name in names}
    stacks = evaluation_stacks(args.rgbd, cameras, args.width)
    if args.f_number_error:
        stacks = (_with_f_number_error(rendered, args.f_number_error) for rendered in stacks)
    with tqdm(unit="estimate", disable=None) as bar:

        def show(what: str) -> None:
            bar.set_description_str(what)
            bar.update()

        scores = evaluate(methods, stacks, show)
    rows = summary(scores)
    h = config.hypotheses
    conditions = (
        f"dfs_ros {dfs_ros.__version__}, {args.width} px wide, {h.count} hypotheses from {h.min_depth_m:g} to "
        f"{h.max_depth_m:g} m, dense, f-number error {100 * args.f_number_error:g} %, {platform.machine()}"
    )
    text = f"{conditions}\n\n{markdown(rows)}"
    print(text)
    if args.output:
        with staged(args.output, last="table.md") as folder:
            report = {
                "conditions": conditions,
                "config": config.to_dict(),
                "table": rows,
                "scores": [{"method": s.method, "camera": s.camera, "scene": s.scene, **s.values} for s in scores],
            }
            (folder / "scores.json").write_text(json.dumps(_without_nan(report), indent=1))
            (folder / "table.md").write_text(text)
        print(f"written: {Path(args.output) / 'table.md'} and scores.json")
    return 0


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{option}: expected different names separated by commas, received {text!r}")
    return names


def _with_f_number_error(rendered: RenderedStack, share: float) -> RenderedStack:
    camera = rendered.stack.camera
    wrong = dataclasses.replace(camera, f_number=camera.f_number * (1.0 + share))
    return dataclasses.replace(rendered, stack=dataclasses.replace(rendered.stack, camera=wrong))


def _without_nan(value: object) -> object:
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value

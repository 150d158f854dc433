"""`dfs eval --conditions`: default estimator on a camera in use, also with faults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfs_ros.cli.common import config_from_arguments

if TYPE_CHECKING:
    from dfs_research.evaluation.use_run import UseScore

_DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
_PHOTOS = {"score": "rgbd", "tune": "rgbd_train"}
_TUNE_PROCEDURAL = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "evaluation under conditions of use",
        "Scores of the default estimator on rendered stacks of a camera in use. Renderings (up to 20 s a stack) and "
        "scores are cached, scores together with the code that made them: the same command resumes after an "
        "interruption and estimates anew after a change of the code.",
    )
    group.add_argument(
        "--conditions",
        metavar="NAMES",
        help="comma-separated conditions: ideal, lens, shake, drive, fast, nominal, jpeg, or a fault by name; honest "
        "(the first six), faults, all",
    )
    group.add_argument(
        "--scenes",
        choices=sorted(_PHOTOS),
        default="score",
        help="scenes to evaluate. score: those of the table, never used for tuning; tune: training photos and "
        f"{_TUNE_PROCEDURAL} random scenes (default: score)",
    )
    group.add_argument("--data", metavar="DIR", help="folder with rgbd/ and rgbd_train/ (default: ../shared/data)")
    group.add_argument(
        "--stacks", metavar="N", type=int, help="number of stacks, spread evenly over cameras and scenes (default: all)"
    )
    group.add_argument("--json", metavar="FILE", help="JSON file for the rows and the scores of every stack")
    group.add_argument(
        "--markdown", metavar="FILE", help="Markdown file for the tables and the definition of the conditions"
    )


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dfs_research.evaluation.rendered import check_cameras
    from dfs_research.evaluation.shots import scene_list, shots
    from dfs_research.evaluation.use_run import conditions_of, run_in_use, spread, summary
    from dfs_research.evaluation.use_table import tables

    config = config_from_arguments(args)
    conditions = conditions_of(args.conditions)
    cameras = [name.strip() for name in args.cameras.split(",") if name.strip()]
    check_cameras(cameras)
    if args.width < 32:
        raise ValueError(f"--width: expected 32 or more, received {args.width}")
    if args.stacks is not None and args.stacks < 1:
        raise ValueError(f"--stacks: expected 1 or more, received {args.stacks}")
    if args.procedural is not None:
        scenes = scene_list(None, args.procedural)
    else:
        folder = args.rgbd or Path(args.data or _DATA) / _PHOTOS[args.scenes]
        scenes = scene_list(folder, _TUNE_PROCEDURAL if args.scenes == "tune" and not args.rgbd else 0)
    chosen = spread(list(shots(scenes, cameras, args.width)), args.stacks)
    with tqdm(total=len(chosen) * len(conditions), unit="estimate", disable=None) as bar:

        def show(what: str) -> None:
            bar.set_description_str(what)
            bar.update()

        scores = run_in_use(chosen, conditions, config, show)
    rows = summary(scores)
    print(tables(rows))
    _write(args, rows, scores, [condition.name for condition in conditions], config.to_dict())
    return 0


def _write(
    args: argparse.Namespace,
    rows: Sequence[dict[str, Any]],
    scores: Sequence[UseScore],
    names: Sequence[str],
    config: dict[str, Any],
) -> None:
    from dfs_research.evaluation.provenance import markdown_lines, provenance
    from dfs_research.evaluation.use_table import DEFINITIONS, descriptions, tables
    from dfs_ros.io.strict_json import json_text

    if not (args.output or args.json or args.markdown):
        return
    facts = provenance()
    scenes = f"{args.procedural} random ones" if args.procedural is not None else args.rgbd or args.scenes
    facts["scenes"] = f"{scenes}, cameras {args.cameras}, {args.width} px wide" + (
        f", {args.stacks} stacks of them" if args.stacks else ""
    )
    text = "\n\n".join(
        ["# Accuracy as it is used", DEFINITIONS, "\n".join(markdown_lines(facts)), tables(rows), descriptions(names)]
    )
    report = {
        "made_by": facts,
        "config": config,
        "table": rows,
        "scores": [{"condition": s.condition, "camera": s.camera, "scene": s.scene, **s.values} for s in scores],
    }
    files = {args.json: json_text(report, indent=1), args.markdown: text + "\n"}
    if args.output:
        files |= {
            str(Path(args.output) / "conditions.json"): json_text(report, indent=1),
            str(Path(args.output) / "conditions.md"): text + "\n",
        }
    for name, content in files.items():
        if name:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(content)
            print(f"written: {name}")

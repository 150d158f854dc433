"""Score depth on rendered focal stacks, or compare methods on real stacks.

--rgbd names a folder of scenes (rgb.png, depth_mm.png, meta.json each); stacks of cameras A, B and C are rendered from
them once and cached. Scores are dense: every pixel with true depth counts; means are over stacks; time is that of one
estimate on this machine. Methods: released, paper, residual (argmin of that cost volume), laplacian, ring (peak of that
focus measure), none (regularised argmin), or a network by name or file.

Every method writes its predictions before they are scored from the files. --predictions DIR keeps them: the same
command resumes, and --score-only scores what is there.

    dfs eval --rgbd photos                                    # table
    dfs eval --rgbd photos --predictions p --report report    # report with pictures, plots and wrong lenses
    dfs eval --stack my_stack other_stack --output look       # methods side by side on real stacks
    dfs eval --conditions honest                              # default estimator, stacks as from a camera in use
    dfs eval --conditions lens,stuck --stacks 6 --scenes tune # quick look on scenes that are not scored
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dfs_ros
from dfs_research.commands import evaluate_in_use
from dfs_research.evaluation.protocol import SETTINGS
from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.config import Config
from dfs_ros.io.strict_json import json_text

if TYPE_CHECKING:
    from dfs_research.evaluation.conditions import Condition
    from dfs_research.evaluation.predictions import PredictionFolder
    from dfs_research.evaluation.rendered import RenderedStack
    from dfs_research.evaluation.table import Score


_METHODS = "released,residual,none,light"
_REPORT_METHODS = "laplacian,ring,released,paper,residual,direct,ddfs,dualfocus,none,light"
_STACK_METHODS = "none,light,laplacian"
_PICTURES = 2  # a camera


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--rgbd", metavar="DIR", help="folder of photos with depth")
    source.add_argument("--procedural", metavar="N", type=int, help="number of random scenes, in place of photos")
    source.add_argument("--stack", metavar="STACK", nargs="+", help="real focal stacks")
    parser.add_argument("--cameras", default="A,B,C", help="comma-separated cameras (default: A,B,C)")
    parser.add_argument(
        "--methods",
        help=f"comma-separated methods (default: {_METHODS}; in a report {_REPORT_METHODS}; "
        f"of real stacks {_STACK_METHODS})",
    )
    parser.add_argument("--width", type=int, default=320, help="width of the rendered images in pixels (default: 320)")
    parser.add_argument(
        "--f-number-error",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="relative error of the f-number given to the estimator (default: 0)",
    )
    parser.add_argument(
        "--predictions", metavar="DIR", help="folder that keeps predictions and from which the command resumes"
    )
    parser.add_argument("--score-only", action="store_true", help="score existing predictions; make none")
    parser.add_argument(
        "--output", metavar="DIR", help="folder for scores.json and table.md, or for pictures of real stacks"
    )
    parser.add_argument("--report", metavar="DIR", help="folder for report.md with plots and pictures")
    parser.add_argument(
        "--model-card",
        metavar="FILE",
        help="model card NAME.md, such as models/light.md, whose section Measured gets the scores of network NAME",
    )
    parser.add_argument(
        "--robustness",
        default="none,light",
        help="methods that the report also scores with wrong lenses and other hypotheses (default: none,light)",
    )
    parser.add_argument(
        "--robustness-every",
        metavar="N",
        type=int,
        default=1,
        help="use every N-th stack only for these (default: 1, all)",
    )
    parser.add_argument(
        "--pictures",
        choices=("scenes", "procedural", "no"),
        default="scenes",
        help="pictures in the report: the scored scenes, procedural scenes (no photos), or none (default: scenes)",
    )
    evaluate_in_use.add_arguments(parser)
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.conditions is not None and args.stack is None:
        return evaluate_in_use.run(args)
    if not (args.rgbd or args.stack) and args.procedural is None:
        raise ValueError(
            "eval: expected --rgbd DIR, --procedural N, --stack STACK or --conditions NAMES, received none"
        )
    if args.stack:
        return _run_stacks(args)
    config = config_from_arguments(args, Config.from_dict(SETTINGS))
    names = _names(args.methods or (_REPORT_METHODS if args.report else _METHODS), "--methods")
    cameras, robust = _names(args.cameras, "--cameras"), _robust_names(args.robustness, names, bool(args.report))
    if args.width < 32:
        raise ValueError(f"--width: expected 32 or more, received {args.width}")
    if not -0.9 <= args.f_number_error <= 9:
        raise ValueError(f"--f-number-error: expected a share from -0.9 to 9, received {args.f_number_error}")
    if args.procedural is not None and args.procedural < 1:
        raise ValueError(f"--procedural: expected 1 scene or more, received {args.procedural}")
    if args.robustness_every < 1:
        raise ValueError(f"--robustness-every: expected 1 or more, received {args.robustness_every}")
    if args.model_card and not Path(args.model_card).is_file():
        raise FileNotFoundError(f"--model-card {args.model_card}: no such file; `dfs train` writes it")
    if args.model_card and Path(args.model_card).stem not in names:
        raise ValueError(f"--model-card {args.model_card}: {Path(args.model_card).stem} is not among --methods")
    if args.score_only and not args.predictions:
        raise ValueError("--score-only: which predictions? name their folder with --predictions DIR")

    from dfs_research.evaluation.conditions import ROBUSTNESS, STANDARD, Condition
    from dfs_research.evaluation.rendered import evaluation_stacks, procedural_stacks
    from dfs_research.evaluation.table import markdown, summary
    from dfs_ros.system.atomic import prepare_output

    for folder in filter(None, (args.output, args.report, args.predictions)):
        prepare_output(folder)
    stacks: list[RenderedStack] = []
    if args.procedural is None:
        stacks += evaluation_stacks(args.rgbd, cameras, args.width)
    else:
        stacks += procedural_stacks(args.procedural, cameras, args.width)
    condition = STANDARD
    if args.f_number_error:
        condition = Condition(f"f-number error {args.f_number_error:g}", f_number_error=args.f_number_error)
    h = config.hypotheses
    conditions = (
        f"dfs_ros {dfs_ros.__version__}, {args.width} px wide, {h.count} hypotheses from {h.min_depth_m:g} to "
        f"{h.max_depth_m:g} m, dense, f-number error {100 * args.f_number_error:g} %"
    )
    with _prediction_folder(args.predictions) as root:
        folders, scores = _evaluated(names, config, condition, stacks, root, predict=not args.score_only)
        rows = summary(scores)
        text = f"{conditions}\n\n{markdown(rows)}"
        print(text)
        if args.output:
            _write_table(args.output, conditions, config, rows, scores, text)
        some = stacks[:: args.robustness_every]
        robustness = {
            other: _evaluated(robust, config, other, some, root, predict=not args.score_only)[1]
            for other in (ROBUSTNESS if robust else ())
        }
        if args.model_card:
            from dfs_research.evaluation.measured import write_measured

            protocol = _protocol(args, conditions, (folders, stacks))
            write_measured(args.model_card, Path(args.model_card).stem, protocol, scores, robustness)
            print(f"written: {args.model_card}")
        if args.report:
            pictured = folders, stacks
            if args.pictures == "procedural":
                shown = list(procedural_stacks(_PICTURES, cameras, args.width))
                pictured = _evaluated(names, config, condition, shown, root, predict=not args.score_only)[0], shown
            _write_report(args, conditions, scores, robustness, (folders, stacks), pictured)
    return 0


def _evaluated(
    names: Sequence[str],
    config: Config,
    condition: Condition,
    stacks: Sequence[RenderedStack],
    root: Path,
    predict: bool,
) -> tuple[list[PredictionFolder], list[Score]]:
    """Predictions of all methods under a condition, made where they are missing, and their scores."""
    from tqdm import tqdm

    from dfs_research.evaluation import predictions
    from dfs_research.evaluation.methods import make_method
    from dfs_research.evaluation.table import score_files

    configured = condition.configured(config)
    folders = {name: predictions.PredictionFolder(root, name, config, condition) for name in names}
    if predict:
        methods = {name: make_method(name, configured) for name in names}
        total = len(names) * sum(condition.suits(rendered) for rendered in stacks)
        with tqdm(total=total, unit="estimate", disable=None) as bar:

            def show(what: str) -> None:
                bar.set_description_str(what if condition.name == "standard" else f"{condition.name}: {what}")
                bar.update()

            predictions.predict(methods, folders, stacks, condition, show)
    return list(folders.values()), score_files(folders.values(), stacks, condition)


def _write_table(
    output: str,
    conditions: str,
    config: Config,
    rows: list[dict[str, object]],
    scores: Sequence[Score],
    text: str,
) -> None:
    from dfs_research.evaluation.provenance import provenance
    from dfs_ros.system.atomic import staged

    with staged(output, last="table.md") as folder:
        report = {
            "conditions": conditions,
            "made_by": provenance(),
            "config": config.to_dict(),
            "table": rows,
            "scores": [{"method": s.method, "camera": s.camera, "scene": s.scene, **s.values} for s in scores],
        }
        (folder / "scores.json").write_text(json_text(report, indent=1))
        (folder / "table.md").write_text(text)
    print(f"written: {Path(output) / 'table.md'} and scores.json")


def _write_report(
    args: argparse.Namespace,
    conditions: str,
    scores: Sequence[Score],
    robustness: dict[Condition, list[Score]],
    scored: tuple[Sequence[PredictionFolder], Sequence[RenderedStack]],
    pictured: tuple[Sequence[PredictionFolder], Sequence[RenderedStack]],
) -> None:
    from dfs_research.evaluation.report import sigma_curves, write_pictures, write_report

    folder = Path(args.report)
    folder.mkdir(parents=True, exist_ok=True)
    protocol = _protocol(args, conditions, scored)
    pictures = [] if args.pictures == "no" else write_pictures(folder / "pictures", *pictured, each=_PICTURES)
    file = write_report(folder, "Accuracy", protocol, scores, robustness, sigma_curves(*scored), pictures)
    print(f"written: {file}")


def _protocol(
    args: argparse.Namespace, conditions: str, scored: tuple[Sequence[PredictionFolder], Sequence[RenderedStack]]
) -> str:
    from dfs_research.evaluation.predictions import commits

    scenes = "random scenes" if args.procedural is not None else "photos with depth that nothing was trained on"
    return (
        f"Focal stacks rendered with occlusion from {scenes}; 0.4 % noise. {conditions}. "
        f"Predictions made by commit {', '.join(commits(*scored))}."
    )


def _run_stacks(args: argparse.Namespace) -> int:
    config = config_from_arguments(args)
    names = _names(args.methods or _STACK_METHODS, "--methods")
    if args.report or args.predictions or args.score_only or args.model_card:
        raise ValueError("--stack: gives a table and pictures (--output DIR), no report; leave out the other options")

    from dfs_research.evaluation.provenance import markdown_lines, provenance
    from dfs_research.evaluation.real import estimate_stack, reference_rows, reference_table, stack_picture
    from dfs_ros.io.stack_description import read_description
    from dfs_ros.io.stack_folder import read_reference_depth, read_stack
    from dfs_ros.system.atomic import prepare_output, staged

    if args.output:
        prepare_output(args.output)
    rows: list[dict[str, object]] = []
    with contextlib.ExitStack() as exits:
        folder = exits.enter_context(staged(args.output, last="table.md")) if args.output else None
        for path in args.stack:
            place = Path(path).resolve()
            name = place.name if place.is_dir() else place.parent.name
            description = read_description(path, config.lens)
            stack = read_stack(description, config.limits.image_megapixels)
            results = estimate_stack(stack, names, config)
            rows += reference_rows(name, results, read_reference_depth(description))
            if folder is not None:
                stack_picture(stack, results, name).savefig(folder / f"{name}.png")
        table = reference_table(rows)
        print(table)
        if folder is not None:
            (folder / "table.md").write_text("\n".join(markdown_lines(provenance())) + f"\n\n{table}")
    if args.output:
        print(f"written: {Path(args.output) / 'table.md'} and a picture of every stack")
    return 0


@contextlib.contextmanager
def _prediction_folder(folder: str | None) -> Iterator[Path]:
    """The folder that keeps predictions; without one, a temporary folder."""
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="dfs_eval_") as temporary:
        yield Path(temporary)


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{option}: expected different names separated by commas, received {text!r}")
    return names


def _robust_names(text: str, names: Sequence[str], wanted: bool) -> list[str]:
    """Those of `text` that are compared at all; each needs its standard condition."""
    return [name for name in _names(text, "--robustness") if name in names] if wanted and text.strip() else []

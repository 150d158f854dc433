"""Run an experiment and write its tables as Markdown, each in minutes on two cores.

    invariance    networks trained for one camera, tested with others (DDFS, tables 3 and 4)
    ablation      steps between cost volume and depth, and number of hypotheses (DDFS, table 2, figure 10)
    learned       the same for the light network, trained anew on each volume and step
    constraints   focal and spatial constraint of DualFocus as losses of the light network
    speed         cost volume to depth on the CPU: the light network and DDFS at full size

Test photos (--rgbd) and training photos (--train-rgbd) must differ. --work keeps weights and predictions, from which
the same command resumes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_ros.system.cores import usable_cores

if TYPE_CHECKING:
    from dfs_research.evaluation.rendered import RenderedStack

_BASELINES = "direct,ddfs,dualfocus"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", choices=sorted(_EXPERIMENTS), help="experiment to run")
    parser.add_argument("--rgbd", metavar="DIR", help="folder of test photos with depth (not for speed)")
    parser.add_argument("--train-rgbd", metavar="DIR", help="folder of training photos with depth")
    parser.add_argument("--work", metavar="DIR", help="folder of weights and predictions (default: OUTPUT/work)")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for EXPERIMENT.md and its plot")
    parser.add_argument(
        "--every", metavar="N", type=int, default=1, help="test on every N-th stack only (default: 1, all)"
    )
    parser.add_argument("--width", type=int, default=320, help="width of the test images in pixels (default: 320)")
    parser.add_argument(
        "--baselines",
        default=_BASELINES,
        help=f"invariance: networks for camera B, names or files (default: those of {_BASELINES} found)",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="number of CPU threads for training; 0: all cores (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    from dfs_research.evaluation.provenance import markdown_lines, provenance
    from dfs_research.evaluation.rendered import rgbd_folders
    from dfs_ros.system.atomic import prepare_output

    if args.every < 1:
        raise ValueError(f"--every: expected 1 or more, received {args.every}")
    if args.width < 32:
        raise ValueError(f"--width: expected 32 or more, received {args.width}")
    if args.experiment != "speed" and not args.rgbd:
        raise ValueError(f"{args.experiment}: name photos with depth to test on with --rgbd DIR")
    args.work = args.work or str(Path(args.output) / "work")
    if args.rgbd and args.train_rgbd:
        tested = {folder.name for folder in rgbd_folders(args.rgbd)}
        both = tested & {folder.name for folder in rgbd_folders(args.train_rgbd)}
        if both:
            raise ValueError(
                f"--train-rgbd {args.train_rgbd}: {', '.join(sorted(both))} are tested on too; train on other photos"
            )
    output = prepare_output(args.output)
    started = time.monotonic()
    body = _EXPERIMENTS[args.experiment](args)
    facts = provenance()
    facts["took"] = f"{(time.monotonic() - started) / 60:.1f} minutes (less where weights or predictions were there)"
    output.mkdir(parents=True, exist_ok=True)
    file = output / f"{args.experiment}.md"
    file.write_text(f"{body.strip()}\n\n" + "\n".join(markdown_lines(facts)) + "\n")
    print(f"written: {file}")
    return 0


def _invariance(args: argparse.Namespace) -> str:
    from dfs_research.experiments import invariance
    from dfs_research.experiments.settings import INVARIANCE
    from dfs_research.experiments.training import trained

    parts = ["# Invariance to the camera", _CPU_SIZED, _GROWTH]
    for case in INVARIANCE:
        networks = {"none": "none", "light, as shipped": "light"}
        if case.training:
            rgbd = _training_photos(args)
            for name, settings in case.training.items():
                file = trained(f"{case.name}_{name}", settings, rgbd, args.work, _cores(args), _say)
                networks[f"{name}, trained for this camera"] = str(file)
        else:
            found = _known(args.baselines)
            networks |= {f"{Path(name).stem}, trained for this camera": name for name in found}
        stacks_of = partial(invariance.test_stacks, args.rgbd, width=args.width, every=args.every)
        table = invariance.measure(case, networks, stacks_of, Path(args.work) / "predictions", _say)
        parts += [f"## {case.name}", f"{case.about}. Mean Abs Rel, dense.", invariance.markdown(case, table)]
    return "\n\n".join(parts)


def _ablation(args: argparse.Namespace) -> str:
    from dfs_research.evaluation.figures import new_figure
    from dfs_research.evaluation.protocol import FARTHEST_M, NEAREST_M
    from dfs_research.experiments import ablation

    stacks = _stacks(args)
    steps = ablation.steps_table(stacks, _say)
    errors = ablation.hypotheses_errors(stacks, _say) | ablation.network_errors(stacks, _say)
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    for way, by_count in errors.items():
        axes.plot(list(by_count), list(by_count.values()), "o-", label=way)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(ablation.HYPOTHESES), [str(count) for count in ablation.HYPOTHESES])
    axes.set(xlabel="hypotheses", ylabel="mean Abs Rel", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    Path(args.output).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(args.output) / "ablation.png")
    about = f"{_tested(args, stacks)}, hypotheses from {NEAREST_M:g} to {FARTHEST_M:g} m, dense; mean Abs Rel."
    return "\n\n".join(
        [
            "# Ablations of the cost volume",
            about,
            "## What is made of the volume before the regularisation (DDFS, table 2)",
            "A raw argmin only sees what changes the order of a pixel's costs: nothing but the division by what noise "
            "leaves. All are brought to the same mean contrast, so that one smoothness suits all.",
            steps,
            "## Number of hypotheses (DDFS, figure 10)",
            "`paper` normalised, `residual` as logarithm, both without interpolated costs. light: as shipped, one set "
            "of weights for all, whose estimator interpolates costs between few hypotheses; and without that.",
            ablation.hypotheses_table(errors),
            "![Mean Abs Rel against the number of hypotheses](ablation.png)",
        ]
    )


def _learned(args: argparse.Namespace) -> str:
    import dataclasses

    from dfs_research.evaluation import protocol
    from dfs_research.experiments import learned
    from dfs_research.experiments.settings import LEARNED, LEARNED_CHANCE_SEED
    from dfs_research.experiments.training import trained

    rgbd, stacks = _training_photos(args), _stacks(args)
    ours = learned.VARIANTS[0]
    other_seed = dataclasses.replace(LEARNED, seed=LEARNED_CHANCE_SEED)
    trainings = [*((step, LEARNED) for step in learned.VARIANTS), (ours, other_seed)]
    found = []
    for number, (step, settings) in enumerate(trainings):
        name = f"learned_{number}_{step.volume}"
        file = trained(name, settings, rgbd, args.work, _cores(args), _say, learned.energies_of(step))
        found.append(learned.error(file, step, stacks, _say))
    about = (
        f"The light network, {LEARNED.steps} steps of {LEARNED.hypotheses_per_step} hypotheses on {LEARNED.stacks} "
        f"stacks, crops of {LEARNED.crop_px} px, with the same seed and samples for all but the second, which shows "
        f"what chance does. Tested on {_tested(args, stacks)}, {protocol.HYPOTHESES} hypotheses, dense."
    )
    table = learned.markdown(dict(zip(learned.VARIANTS, found, strict=False)), found[-1])
    return "\n\n".join(["# The light network trained on other volumes", _CPU_SIZED, about, table])


def _constraints(args: argparse.Namespace) -> str:
    from dfs_research.experiments import constraints
    from dfs_research.experiments.settings import CONSTRAINTS
    from dfs_research.experiments.training import trained

    rgbd = _training_photos(args)
    weights = {}
    for name, settings in CONSTRAINTS.items():
        file_name = "constraints_" + name.replace(", ", "_").replace(" ", "_")
        weights[name] = trained(file_name, settings, rgbd, args.work, _cores(args), _say)
    stacks = _stacks(args)
    table = constraints.measure(weights, stacks, Path(args.work) / "predictions" / "constraints", _say)
    base, chance, *_ = CONSTRAINTS
    settings = CONSTRAINTS[base]
    about = (
        f"The light network, {settings.steps} steps of {settings.hypotheses_per_step} hypotheses on {settings.stacks} "
        f"stacks, crops of {settings.crop_px} px, else as `dfs train`; the same seed and samples for all but "
        f"the second, which shows what chance does. Tested on {_tested(args, stacks)}, dense."
    )
    title = "# DualFocus's constraints as losses of the light network"
    return "\n\n".join([title, _CPU_SIZED, about, constraints.markdown(table, base, chance)])


def _speed(args: argparse.Namespace) -> str:
    from benchmarks.speed import SpeedCase
    from dfs_research.experiments import speed

    case = SpeedCase("residual")
    times = speed.measure(case, _ROUNDS, _say)
    about = (
        f"{case.width} x {case.height} RGB, {case.images} images, {case.hypotheses} hypotheses, CPU, best of {_ROUNDS} "
        "rounds in one process, in turns. Weights of DDFS are random, its size is its authors'."
    )
    return "\n\n".join(["# Speed beside DDFS", about, speed.markdown(times)])


_ROUNDS = 5
_CPU_SIZED = (
    "CPU-sized: short trainings on few stacks, where papers train for days on a GPU. Rows of one table can be compared "
    "with each other, not with those of other tables."
)
_GROWTH = (
    "Growth is the mean Abs Rel over that with the camera trained for, on the same scenes. `none` is the regularised "
    "argmin, which learns nothing: its growth is how much harder the other camera makes the task."
)
_EXPERIMENTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "invariance": _invariance,
    "ablation": _ablation,
    "learned": _learned,
    "constraints": _constraints,
    "speed": _speed,
}


def _stacks(args: argparse.Namespace) -> list[RenderedStack]:
    from dfs_research.evaluation.rendered import evaluation_stacks

    return list(evaluation_stacks(args.rgbd, width=args.width))[:: args.every]


def _tested(args: argparse.Namespace, stacks: Sequence[RenderedStack]) -> str:
    return f"{len(stacks)} stacks of cameras A, B and C, {args.width} px wide"


def _known(names: str) -> Sequence[str]:
    """Those of the named networks that are there; files that are named must be."""
    from dfs_research.baselines import network_file

    found = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        try:
            network_file(name)
        except FileNotFoundError:
            if names != _BASELINES:
                raise
            _say(f"{name}: no weights in dfs_research/baselines/models; `dfs train --preset {name}` makes them")
            continue
        found.append(name)
    return found


def _training_photos(args: argparse.Namespace) -> str:
    if not args.train_rgbd:
        raise ValueError(f"{args.experiment}: trains networks; name photos with depth for that with --train-rgbd DIR")
    return str(args.train_rgbd)


def _cores(args: argparse.Namespace) -> int:
    return args.threads or usable_cores()


def _say(what: str) -> None:
    print(what, flush=True)

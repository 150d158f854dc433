"""Train a network on focal stacks with depth, and write its weights and model card.

Stacks are rendered once from photos with depth (--rgbd), procedural scenes and the photos of scikit-image, and cached;
or they come from a dataset on disk (--dataset, --data):
  defocusnet  folder with NAMEDpt.exr and five NAME*All.tif for every scene
  nyu         nyu_depth_v2_labeled.mat; stacks are rendered, by default through camera A
  ddff12      ddff-dataset-trainval.h5
Output: NAME.safetensors, NAME.md (model card) and, during training, NAME.checkpoint, from which the same command
resumes to identical weights. Never train on the scenes that score.

    dfs train --rgbd photos --output out
    dfs train --network direct --camera B --rgbd photos --output out
    torchrun --nproc-per-node 4 -m dfs_ros.cli.main train --network ddfs --preset ddfs_paper --output out
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_ros.system.cores import usable_cores

if TYPE_CHECKING:
    from dfs_research.training.card import Record
    from dfs_research.training.datasets import TrainingData
    from dfs_research.training.loop import Trainer
    from dfs_research.training.settings import TrainingSettings

_CHECKPOINT_EVERY_S = 60.0
_CAMERA_OF_DATASET = {"nyu": "A", "defocusnet": "defocusnet", "ddff12": "any"}
_CALIBRATION_STACKS = 48


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        choices=("light", "ddfs", "dualfocus", "direct"),
        help="network design (default: that of the preset)",
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="preset: light, ddfs, ddfs_paper (full size, for a GPU), dualfocus, direct or smoke (one minute, a test) "
        "(default: that of the network)",
    )
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for weights, model card and checkpoint")
    parser.add_argument("--name", help="name of the files (default: that of the preset)")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        default="rendered",
        choices=("rendered", "defocusnet", "nyu", "ddff12"),
        help="training data: rendered stacks, or a dataset on disk (default: rendered)",
    )
    data.add_argument("--data", metavar="PATH", help="file or folder of the dataset")
    data.add_argument(
        "--rgbd", metavar="DIR", help="folder of photos with depth (rgb.png, depth_mm.png, meta.json each)"
    )
    data.add_argument("--stacks", type=int, help="number of rendered stacks (default: that of the preset)")
    data.add_argument(
        "--camera",
        metavar="NAME",
        help="camera of the rendered stacks: A, B, C, defocusnet, or any for random ones (default: that of the preset)",
    )
    data.add_argument(
        "--focus-distances", metavar="M,M,...", help="focus distances of that camera in metres, in place of its own"
    )
    data.add_argument("--cache", metavar="DIR", help="folder of rendered stacks (default: the user's cache)")
    training = parser.add_argument_group("training")
    training.add_argument("--steps", type=int, help="optimiser steps (default: that of the preset)")
    training.add_argument("--hours", type=float, help="time limit [h]; reduces the number of steps")
    training.add_argument("--seed", type=int, help="random seed of stacks, samples and initial weights (default: 0)")
    training.add_argument("--bf16", choices=("on", "off"), help="convolutions in bfloat16 (default: on)")
    training.add_argument(
        "--focal-weight", type=float, metavar="W", help="weight of the focal variational loss (DualFocus)"
    )
    training.add_argument(
        "--spatial-weight", type=float, metavar="W", help="weight of the spatial variational loss (DualFocus)"
    )
    training.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device of the training (default: auto)"
    )
    training.add_argument("--threads", type=int, default=0, help="number of CPU threads; 0: all cores (default: 0)")
    training.add_argument("--restart", action="store_true", help="discard an existing checkpoint")


def run(args: argparse.Namespace) -> int:
    settings = _settings(args)
    name = args.name or args.preset or args.network or "light"
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"--name: expected letters, digits, - and _, received {name!r}")
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise ValueError(f"--output {output}: cannot be written; choose a folder that can")
    cores = args.threads or usable_cores()

    import torch

    from dfs_research.training.datasets import open_dataset
    from dfs_research.training.distributed import Processes
    from dfs_research.training.loop import Trainer

    device = "cuda" if args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available()) else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA GPU here; use cpu or auto")
    data = open_dataset(args.dataset, settings, data=args.data, rgbd=args.rgbd, cache=args.cache)
    processes = Processes.join(device)
    try:
        if processes.rank == 0:
            if args.dataset == "rendered" and args.rgbd is None:
                print("no --rgbd folder: training on procedural scenes only, worse on photos", file=sys.stderr)
            _prepare(data, cores)
        processes.wait()
        # One core prepares samples. The convolutions are small: threads that wait for each other cost more than they
        # bring.
        workers = max(1, cores // processes.count - 1)
        torch.set_num_threads(workers)
        trainer = Trainer(settings, data.load(), device=device, workers=workers, processes=processes)
        checkpoint = output / f"{name}.checkpoint"
        if checkpoint.is_file() and not args.restart:
            trainer.load_checkpoint(checkpoint)
            if processes.rank == 0:
                print(f"going on from {checkpoint}, step {trainer.step}; --restart begins anew")
        processes.wait()
        record = _train(trainer, checkpoint)
        if processes.rank == 0:
            _write(output, name, trainer, data, record, _sigma_facts(trainer, args))
        processes.wait()
    finally:
        processes.leave()
    return 0


def _settings(args: argparse.Namespace) -> TrainingSettings:
    """The preset's, with what the options change."""
    from dfs_research.training.settings import preset

    focus = None
    if args.focus_distances:
        try:
            focus = tuple(float(part) for part in args.focus_distances.split(","))
        except ValueError:
            raise ValueError(
                f"--focus-distances: expected metres separated by commas, received {args.focus_distances!r}"
            ) from None
    return preset(
        args.preset or args.network or "light",
        network=args.network,
        steps=args.steps,
        hours=args.hours,
        stacks=args.stacks,
        seed=args.seed,
        camera=args.camera or _CAMERA_OF_DATASET.get(args.dataset),
        focus_distances_m=focus,
        bf16=None if args.bf16 is None else args.bf16 == "on",
        focal_weight=args.focal_weight,
        spatial_weight=args.spatial_weight,
    )


def _prepare(data: TrainingData, cores: int) -> None:
    from tqdm import tqdm

    with tqdm(total=data.count, desc="preparing stacks", unit="stack", disable=None) as bar:
        for done in data.prepare(cores):
            bar.update(done - bar.n)
            if bar.disable and done % 100 == 0:
                print(f"prepared {done} of {data.count} stacks", flush=True)


def _train(trainer: Trainer, checkpoint: Path) -> Record:
    """Train to the end; the first process shows progress and writes checkpoints."""
    from tqdm import tqdm

    from dfs_research.training.card import Record

    record, saved_at, first = Record(), trainer.elapsed_s, trainer.processes.rank == 0
    steps = trainer.settings.steps
    try:
        with tqdm(
            total=steps, initial=trainer.step, desc="training", unit="step", disable=None if first else True
        ) as bar:
            for step in trainer.run():
                if not first:
                    continue
                record.add(step)
                bar.update()
                bar.set_postfix_str(record.line(step), refresh=False)
                if step.step % 100 == 0 and bar.disable:
                    print(f"step {step.step} of {steps}: {record.line(step)}", flush=True)
                if step.elapsed_s - saved_at > _CHECKPOINT_EVERY_S:
                    trainer.save_checkpoint(checkpoint)
                    saved_at = step.elapsed_s
    except KeyboardInterrupt:
        if first:
            trainer.save_checkpoint(checkpoint)
            print(f"\nstopped at step {trainer.step}; the same command goes on from {checkpoint}", file=sys.stderr)
        raise
    if first:
        trainer.save_checkpoint(checkpoint)
    return record


def _sigma_facts(trainer: Trainer, args: argparse.Namespace) -> dict[str, float] | None:
    """Sigma of the light network, calibrated on scenes kept for that; None for other networks."""
    from dfs_research.training.sigma import calibration_stacks, fit_sigma_scale
    from dfs_ros.network.light import LightNetwork

    if trainer.settings.network != "light":
        return None
    stacks = calibration_stacks(args.rgbd, min(_CALIBRATION_STACKS, trainer.settings.stacks))
    print("calibrating sigma", flush=True)
    network = LightNetwork(trainer.network.architecture)
    network.load_state_dict(trainer.averaged_weights())
    fit = fit_sigma_scale(network, stacks)
    return {"scale": round(fit.scale, 4), "within_before": round(fit.within, 4), "stacks": fit.stacks}


def _write(
    output: Path,
    name: str,
    trainer: Trainer,
    data: TrainingData,
    record: Record,
    sigma: dict[str, float] | None,
) -> None:
    """Weights and model card."""
    from dfs_research.training.card import model_card
    from dfs_ros.network.weights import save_network, training_facts

    file = output / f"{name}.safetensors"
    facts = record.facts(trainer, data) | ({"sigma": sigma} if sigma else {})
    if not facts["last"] and file.is_file():  # nothing was left to train, only to calibrate
        facts["last"] = training_facts(file).get("last", {})
    save_network(
        file,
        trainer.averaged_weights(),
        trainer.network.architecture,
        facts,
        sigma["scale"] if sigma else 1.0,
    )
    (output / f"{name}.md").write_text(model_card(name, facts))
    print(f"written: {output / f'{name}.safetensors'} and its model card {name}.md")

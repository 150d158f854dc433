"""Train the network on rendered focal stacks, and write it with its model card.

Stacks are rendered once from photos with depth (--rgbd), procedural scenes and the photos of scikit-image, and kept in
the cache. OUTPUT gets NAME.safetensors, NAME.md (the model card) and, while training, NAME.checkpoint, from which the
same command goes on where it was stopped. Never train on what you score with.

    dfs train --preset light --rgbd photos --output out
    dfs eval --rgbd other_photos --methods none,out/light.safetensors
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_CHECKPOINT_EVERY_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="light", metavar="NAME", help="light, or smoke (a minute; to try it out)")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for weights, model card and checkpoint")
    parser.add_argument("--name", help="name of the network (default: that of the preset)")
    parser.add_argument(
        "--rgbd", metavar="DIR", help="folder of photos with depth (rgb.png, depth_mm.png, meta.json each)"
    )
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the preset's)")
    parser.add_argument("--hours", type=float, help="finish within this time, with fewer steps")
    parser.add_argument("--stacks", type=int, help="number of stacks to render (default: the preset's)")
    parser.add_argument("--seed", type=int, help="of stacks, samples and initial weights (default: 0)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train")
    parser.add_argument("--threads", type=int, default=0, help="CPU cores to use (default: all)")
    parser.add_argument(
        "--cache", metavar="DIR", help="where rendered stacks are kept (default: the user's cache folder)"
    )
    parser.add_argument("--restart", action="store_true", help="begin anew though there is a checkpoint")


def run(args: argparse.Namespace) -> int:
    from dfs_ros.training.settings import preset

    settings = preset(args.preset, steps=args.steps, hours=args.hours, stacks=args.stacks, seed=args.seed)
    name = args.name or args.preset
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"--name: expected letters, digits, - and _, received {name!r}")
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise ValueError(f"--output {output}: cannot be written; choose a folder that can")
    cores = args.threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    import torch
    from tqdm import tqdm

    from dfs_ros.network.weights import save_network
    from dfs_ros.training.card import Record, model_card
    from dfs_ros.training.loop import Trainer
    from dfs_ros.training.stacks import Sources, StackSet, cache_folder

    device = "cuda" if args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available()) else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA GPU here; use cpu or auto")
    sources = Sources.find(args.rgbd)
    if args.rgbd is None:
        print("no --rgbd folder: training on procedural scenes only, which is worse on photos", file=sys.stderr)
    folder = Path(args.cache) if args.cache else cache_folder()
    stack_set = StackSet(sources, settings.stacks, settings.seed, folder=folder)
    with tqdm(total=settings.stacks, desc="rendering stacks", unit="stack", disable=None) as bar:
        for done in stack_set.prepare(cores):
            bar.update(done - bar.n)
            if bar.disable and done % 100 == 0:
                print(f"rendered {done} of {settings.stacks} stacks", flush=True)

    # One core prepares samples. The convolutions are small: threads that wait for each other cost more than they bring.
    torch.set_num_threads(max(1, cores - 1))
    trainer = Trainer(settings, stack_set.load(), device=device, workers=max(1, cores - 1))
    checkpoint = output / f"{name}.checkpoint"
    if checkpoint.is_file() and not args.restart:
        trainer.load_checkpoint(checkpoint)
        print(f"going on from {checkpoint}, step {trainer.step}; --restart begins anew")
    record = Record()
    saved_at = trainer.elapsed_s
    try:
        with tqdm(total=settings.steps, initial=trainer.step, desc="training", unit="step", disable=None) as bar:
            for step in trainer.run():
                record.add(step)
                bar.update()
                bar.set_postfix_str(record.line(step), refresh=False)
                if step.step % 100 == 0 and bar.disable:
                    print(f"step {step.step} of {settings.steps}: {record.line(step)}", flush=True)
                if step.elapsed_s - saved_at > _CHECKPOINT_EVERY_S:
                    trainer.save_checkpoint(checkpoint)
                    saved_at = step.elapsed_s
    except KeyboardInterrupt:
        trainer.save_checkpoint(checkpoint)
        print(f"\nstopped at step {trainer.step}; the same command goes on from {checkpoint}", file=sys.stderr)
        raise
    trainer.save_checkpoint(checkpoint)
    facts = record.facts(trainer, stack_set)
    save_network(output / f"{name}.safetensors", trainer.averaged_weights(), trainer.network.architecture, facts)
    (output / f"{name}.md").write_text(model_card(name, facts))
    print(f"written: {output / f'{name}.safetensors'} and its model card {name}.md")
    return 0

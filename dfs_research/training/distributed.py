"""Distributed training under torchrun: one process for each GPU, batches of its own.

    torchrun --nproc-per-node 4 -m dfs_ros.cli.main train ...

Every process has the same weights and optimiser and applies the mean of all gradients, so only gradients are exchanged.
Process 0 writes files, and its batches give the statistics of batch normalisation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Processes:
    """Rank of this process, number of processes; `local`: rank on this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def join(cls, device: str) -> Processes:
        """Join the processes of torchrun, by RANK, WORLD_SIZE and LOCAL_RANK.

        Without these variables the process is alone. Communication is by NCCL on `cuda`, by gloo on `cpu`. Raises
        ValueError for variables that are not whole numbers.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        try:
            rank, count, local = (
                int(os.environ.get(name, default)) for name, default in zip(names, "010", strict=True)
            )
        except ValueError:
            given = {name: os.environ.get(name) for name in names}
            raise ValueError(
                f"expected whole numbers in {', '.join(names)}, as torchrun sets them, received {given}"
            ) from None
        if count > 1:
            if device == "cuda":
                torch.cuda.set_device(local)
            distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        return cls(rank, count, local)

    def leave(self) -> None:
        """Leave the group of processes."""
        if self.count > 1:
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            distributed.barrier()

    def mean(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over all processes.

        A parameter without gradient must be without one in all processes.
        """
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, done: bool, like: Tensor) -> bool:
        """Return the `done` of process 0, so that all stop at the same step.

        Clocks differ, and a process that waits for a stopped one would wait for ever.
        """
        if self.count == 1:
            return done
        flag = torch.tensor([float(done)], device=like.device)
        distributed.broadcast(flag, src=0)
        return bool(flag.item())

"""Training by several processes, one for each GPU, as torchrun starts them: each takes its own batches of a step.

    torchrun --nproc-per-node 4 -m dfs_ros.cli.main train ...

Every process has the same weights and the same optimiser and adds the mean of all gradients, so nothing but gradients
is ever exchanged. Process 0 writes files; batch normalisation counts what process 0 sees.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many; `local` counts those on this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def join(cls, device: str) -> Processes:
        """As torchrun says in the environment: RANK, WORLD_SIZE and LOCAL_RANK; alone without them.

        Processes talk by NCCL on `cuda` and by gloo on `cpu`. Raises ValueError where the environment makes no sense.
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
        """Part from the others."""
        if self.count > 1:
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def mean(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over all processes. Parameters without one must be so in all of them."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, done: bool, like: Tensor) -> bool:
        """Whether process 0 is done: clocks differ, and no process may wait for one that has stopped."""
        if self.count == 1:
            return done
        flag = torch.tensor([float(done)], device=like.device)
        distributed.broadcast(flag, src=0)
        return bool(flag.item())

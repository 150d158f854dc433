"""Training loop; a stopped and resumed training gives the same weights.

Every batch is a function of (seed, step, process) alone. The checkpoint holds all state: weights, optimiser, running
mean and clock.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dfs_research.training.distributed import Processes
from dfs_research.training.recipes import Batch, Recipe, make_recipe
from dfs_research.training.settings import TrainingSettings
from dfs_research.training.stacks import TrainingStack
from dfs_ros.network.light import LightArchitecture
from dfs_ros.system.atomic import atomic_file

_PREFETCHED = 6
_LAST_RATE = 0.01  # of the largest


@dataclass(frozen=True)
class Step:
    """Results of one step."""

    step: int
    loss: float
    parts: dict[str, float]
    learning_rate: float
    elapsed_s: float
    remaining_s: float


class Trainer:
    """Trainer of the network in the settings, on any stacks with depth.

    >>> trainer = Trainer(settings, stacks)             # doctest: +SKIP
    >>> for step in trainer.run(): print(step.loss)     # doctest: +SKIP
    >>> trainer.averaged_weights()                      # doctest: +SKIP
    """

    def __init__(
        self,
        settings: TrainingSettings,
        stacks: Sequence[TrainingStack],
        architecture: LightArchitecture | None = None,
        device: str = "cpu",
        workers: int = 1,
        processes: Processes | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        if not stacks:
            raise ValueError("training: expected 1 stack or more, received none")
        self.settings, self.stacks, self.workers = settings, stacks, max(1, workers)
        self.device = torch.device(device)
        self.processes = processes or Processes()
        torch.manual_seed(settings.seed)
        self.recipe = recipe or make_recipe(settings, architecture)
        self.network = self.recipe.network.to(self.device)
        self.parameters = list(self.network.parameters())
        if self.recipe.auxiliary is not None:
            self.parameters += self.recipe.auxiliary.to(self.device).parameters()
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.step = 0
        self.elapsed_s = 0.0

    def run(self) -> Iterator[Step]:
        """Train to the end, from the checkpoint if loaded; yield after every step."""
        started = time.monotonic() - self.elapsed_s
        with _Prefetch(self._batch, self.step, self.settings.steps, self.workers) as batches:
            for batch in batches:
                done = self._progress()
                if self.processes.agree(done >= 1.0, self.parameters[0]):
                    return
                rate = self._learning_rate(done)
                loss, parts = self._update(batch, rate)
                self.step += 1
                self.elapsed_s = time.monotonic() - started
                done = self._progress()
                yield Step(self.step, loss, parts, rate, self.elapsed_s, self.elapsed_s * (1.0 / max(done, 1e-9) - 1.0))

    def averaged_weights(self) -> dict[str, Tensor]:
        """Running mean of the weights, which is the result of the training."""
        return {name: value.cpu().contiguous() for name, value in self.average.items()}

    def save_checkpoint(self, file: str | Path) -> None:
        """Write the whole state to one safetensors file, atomically."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        if self.recipe.auxiliary is not None:
            tensors |= {f"auxiliary.{name}": value for name, value in self.recipe.auxiliary.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        metadata = {
            "format": "dfs_ros training checkpoint 1",
            "step": str(self.step),
            "elapsed_s": repr(self.elapsed_s),
            "settings": json.dumps(dataclasses.asdict(self.settings)),
            "architecture": json.dumps(dataclasses.asdict(self.network.architecture)),
        }
        with atomic_file(file) as partial:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, partial, metadata)

    def load_checkpoint(self, file: str | Path) -> None:
        """Load a checkpoint. Raises ValueError for one of other settings or another network."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
            tensors = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"checkpoint {file}: not readable: {error}") from error
        for name, mine in (("settings", self.settings), ("architecture", self.network.architecture)):
            made_with = metadata.get(name, "nothing")
            if made_with != json.dumps(dataclasses.asdict(mine)):
                raise ValueError(
                    f"checkpoint {file}: made with other {name}, {made_with}; "
                    f"resume with the same ones, now {json.dumps(dataclasses.asdict(mine))}, or choose another output"
                )
        self.network.load_state_dict(_part(tensors, "network."))
        if self.recipe.auxiliary is not None:
            self.recipe.auxiliary.load_state_dict(_part(tensors, "auxiliary."))
        self.average = {name: value.to(self.device) for name, value in _part(tensors, "average.").items()}
        state = self.optimizer.state_dict()
        for key, value in _part(tensors, "optimizer.").items():
            index, name = key.split(".")
            state["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(state)
        self.step, self.elapsed_s = int(metadata["step"]), float(metadata["elapsed_s"])

    def _progress(self) -> float:
        """Completed share of the training, by steps or by time, the larger."""
        by_time = self.elapsed_s / (3600.0 * self.settings.hours) if self.settings.hours > 0 else 0.0
        return max(self.step / self.settings.steps, by_time)

    def _learning_rate(self, done: float) -> float:
        """Learning rate: linear warm-up times a half cosine down."""
        warm = min(1.0, (self.step + 1) / max(1, self.settings.warmup_steps))
        cosine = _LAST_RATE + (1.0 - _LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        return self.settings.learning_rate * warm * cosine

    def _batch(self, step: int) -> Batch:
        rng = np.random.default_rng(
            (self.settings.seed, 1, step, *([self.processes.rank] * (self.processes.count > 1)))
        )
        return self.recipe.batch(rng, self.stacks)

    def _update(self, batch: Batch, rate: float) -> tuple[float, dict[str, float]]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, parts = self.recipe.loss(tuple(tensor.to(self.device) for tensor in batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.mean(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_norm)
        self.optimizer.step()
        # Few steps count at first, else the initial weights would stay in the mean for long.
        keep = min(self.settings.average, (1.0 + self.step) / (10.0 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1.0 - keep)
            else:  # how many batches a normalisation has seen
                self.average[name].copy_(value)
        return float(loss.detach()), {name: float(value) for name, value in parts.items()}


class _Prefetch:
    """Iterator over batches in order, prefetched by a few threads."""

    def __init__(self, make: Callable[[int], Batch], first: int, end: int, workers: int) -> None:
        self._make, self._next, self._end = make, first, end
        self._pool = ThreadPoolExecutor(workers)
        self._queue: list[Future[Batch]] = []

    def __enter__(self) -> _Prefetch:
        cv2.setNumThreads(1)  # the threads are ours
        return self

    def __exit__(self, *unused: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        while self._queue or self._next < self._end:
            while len(self._queue) < _PREFETCHED and self._next < self._end:
                self._queue.append(self._pool.submit(self._make, self._next))
                self._next += 1
            yield self._queue.pop(0).result()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

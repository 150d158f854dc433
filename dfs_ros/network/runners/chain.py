"""Runners one after the other: the first that works runs the network; what failed before is kept for diagnostics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from dfs_ros.network.runners.base import Array, Problem, Runner, RunnerError
from dfs_ros.system.memory import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

Output = TypeVar("Output")

_log = logging.getLogger(__name__)
_LOG_LEVELS = {"note": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class ChainRunner(Runner):
    """The first of `links` (name, what makes the runner) that works, found anew whenever the one in use fails.

    A runner may turn out not to work when it is made, at its first volume, when its engine is built, or when the
    device's memory does not suffice. Raises RunnerError with every reason where none is left.
    """

    def __init__(self, links: Sequence[tuple[str, Callable[[], Runner]]]) -> None:
        self.names = tuple(name for name, _ in links)
        """What it tries, in this order."""
        self._links = list(links)
        self._problems: list[Problem] = []
        self._runner = self._next()

    @property
    def description(self) -> str:
        return self._runner.description

    @property
    def problems(self) -> list[Problem]:
        return [*self._problems, *self._runner.problems]

    def run(self, *inputs: Array) -> Array:
        return self._until_one_works(lambda runner: runner.run(*inputs))

    def run_tensors(self, *inputs: Tensor) -> Tensor:
        return self._until_one_works(lambda runner: runner.run_tensors(*inputs))

    def _until_one_works(self, call: Callable[[Runner], Output]) -> Output:
        while True:
            try:
                return call(self._runner)
            except RuntimeError as error:
                self._report(self._runner.description, as_runner_error(error))
            # Outside of `except`: the error holds on to what had been allocated.
            self._runner = self._next()

    def _next(self) -> Runner:
        while self._links:
            name, make = self._links.pop(0)
            try:
                runner = make()
            except RuntimeError as error:
                self._report(name, as_runner_error(error))
                continue
            reason = "the ones before it cannot be used" if self._problems else "the first choice here"
            _log.info("network runs in %s: %s", runner.description, reason)
            return runner
        raise RunnerError("nothing can run the network here:\n" + "\n".join(f" - {p.text}" for p in self._problems))

    def _report(self, name: str, error: RunnerError) -> None:
        text = str(error)
        self._problems.append(Problem(error.level, text if text.startswith(name) else f"{name}: {text}"))
        _log.log(_LOG_LEVELS[error.level], "network: %s", self._problems[-1].text)


def as_runner_error(error: RuntimeError) -> RunnerError:
    """The error itself, or what too little device memory means for a runner. Raises all others again."""
    if isinstance(error, RunnerError):
        return error
    if is_out_of_memory(error):
        return RunnerError(f"out of device memory ({error})")
    raise error

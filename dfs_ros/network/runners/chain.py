"""Chain of runners: the first working one runs the network; failures are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dfs_ros.network.runners.base import Array, OutOfDeviceMemory, Runner, RunnerError, RunnerFault
from dfs_ros.system.memory import is_out_of_memory
from dfs_ros.system.tracebacks import keep_traceback

if TYPE_CHECKING:
    from torch import Tensor

Output = TypeVar("Output")

FIRST_PAUSE, LONGEST_PAUSE = 8, 512
"""Calls skipped after a memory failure of a runner; doubled at each further one."""

_log = logging.getLogger(__name__)
_LOG_LEVELS = {"note": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass
class _Link:
    """Runner in the chain: not made, in use, paused for `pause` calls, or `failed`."""

    name: str
    make: Callable[[], Runner]
    runner: Runner | None = None
    fault: RunnerFault | None = None
    failed: bool = False
    pause: int = 0
    next_pause: int = FIRST_PAUSE


class ChainRunner(Runner):
    """Runner by the first of `links` (name, factory) that works.

    A runner may fail when it is made, at its first volume, or when its engine is built; it is not used again. One with
    too little device memory pauses for some calls, and is tried again: the memory may have been freed. Raises
    RunnerError, with every reason, if no runner works.
    """

    def __init__(self, links: Sequence[tuple[str, Callable[[], Runner]]]) -> None:
        self.names = tuple(name for name, _ in links)
        """Names of the runners, in the order of preference."""
        self._links = [_Link(*link) for link in links]
        self._runner: Runner | None = None  # the last working one
        self._until_one_works(lambda runner: None)

    @property
    def description(self) -> str:
        return "" if self._runner is None else self._runner.description

    @property
    def faults(self) -> list[RunnerFault]:
        faults = [link.fault for link in self._links if link.fault is not None]
        return faults if self._runner is None else [*faults, *self._runner.faults]

    def run(self, *inputs: Array) -> Array:
        return self._until_one_works(lambda runner: runner.run(*inputs))

    def run_tensors(self, *inputs: Tensor) -> Tensor:
        return self._until_one_works(lambda runner: runner.run_tensors(*inputs))

    def _until_one_works(self, call: Callable[[Runner], Output]) -> Output:
        for link in self._links:
            if link.failed:
                continue
            if link.pause > 0:
                link.pause -= 1
                continue
            try:
                runner = link.runner = link.runner or link.make()
                answer = call(runner)
            except RuntimeError as error:
                keep_traceback(error)
                self._report(link, as_runner_error(error))
                continue  # outside of `except`: the error keeps the allocations alive
            link.fault, link.next_pause = None, FIRST_PAUSE
            if runner is not self._runner:
                self._runner = runner
                reason = "the first choice here" if link is self._links[0] else "the ones before it cannot be used"
                _log.info("network runs in %s: %s", runner.description, reason)
            return answer
        raise RunnerError("nothing can run the network here:\n" + "\n".join(f" - {f.text}" for f in self.faults))

    def _report(self, link: _Link, error: RunnerError) -> None:
        name = link.name if link.runner is None else link.runner.description
        text = str(error)
        if isinstance(error, OutOfDeviceMemory):
            link.pause, link.next_pause = link.next_pause, min(2 * link.next_pause, LONGEST_PAUSE)
        else:
            link.runner, link.failed = None, True
        link.fault = RunnerFault(error.level, text if text.startswith(name) else f"{name}: {text}")
        _log.log(_LOG_LEVELS[error.level], "network: %s", link.fault.text)


def as_runner_error(error: RuntimeError) -> RunnerError:
    """Convert an error to a RunnerError, memory errors included; raise all others again."""
    if is_out_of_memory(error) or is_out_of_memory(error.__cause__):
        return OutOfDeviceMemory(f"out of device memory ({error})")
    if isinstance(error, RunnerError):
        return error
    raise error

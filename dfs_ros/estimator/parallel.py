"""Depth of several stacks of one camera at once, each in a process of its own.

A stack on two threads takes three quarters of its time on one: much of it is short steps that share no work. Two
stacks, each on one thread of its own process, take two cores whole, and wait for no lock of each other or of the node.
Large images share more work among threads. Where two threads for each are too many, their stacks come one by one, on
all threads: on two cores two at once would give depth a third more often, and a third later.

Each stack goes to a process together with what the stacks before it have told of the camera. One of those under way
leads: it comes back with what it has told. The others use what is known, which the first stack of a camera has to tell.
A later fit of the aperture, or correction of the stated motion, which takes as long as two or three stacks, keeps none
waiting: its stack is computed twice.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from dfs_ros.config import Config
from dfs_ros.consistency.judge import sequence_of
from dfs_ros.cost_volume import chosen_device
from dfs_ros.estimator.camera_state import CameraState
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.system.cores import usable_cores
from dfs_ros.system.memory import Peaks, keep_freed_memory
from dfs_ros.types import DepthResult, FocalStack, Progress

if TYPE_CHECKING:
    from dfs_ros.network.runners.base import RunnerFault
    from dfs_ros.pipeline import Alignment

_AT_ONCE = 2  # more keep a depth image waiting for longer, as they are published in the order of their stacks
_LARGE_PX, _THREADS_OF_LARGE = 200_000, 2
_LOOK_S = 0.05  # between looks at whether the depth is still wanted


def live_estimator(config: Config, *, alone: bool = False) -> LiveEstimator:
    """Estimator of one live camera: of several stacks at once where that is faster, unless they come one by one."""
    at_once = 1 if alone else stacks_at_once(config)
    return DepthEstimator(config, one_camera=True) if at_once == 1 else ParallelEstimator(config, at_once)


def stacks_at_once(config: Config) -> int:
    """Number of stacks of one camera to compute at once, each in a process if there are several.

    One on a GPU, which is one for all, and of a sliding window, whose stacks share the spectra of their frames.
    """
    threads = config.processing.threads or usable_cores()
    if threads == 1 or config.stack.mode == "sliding" or chosen_device(config.processing.device) != "cpu":
        return 1
    return min(config.processing.processes or _AT_ONCE, threads)


def one_by_one(size: tuple[int, int], config: Config, threads_each: int) -> bool:
    """True if stacks of images of `size` (height, width) are to have all threads in turn; never if a number is set."""
    large = min(size[0] * size[1], config.processing.max_megapixels * 1e6) > _LARGE_PX
    return large and threads_each < _THREADS_OF_LARGE and not config.processing.processes


class ParallelEstimator:
    """Estimator of one camera that several threads may call at once; else as :class:`.estimator.DepthEstimator`.

    `at_once`: number of stacks, and of processes; they share the cores. A process that ends, as where memory runs
    out, fails the stacks under way with a RuntimeError, and new ones take the next.
    """

    def __init__(self, config: Config, at_once: int) -> None:
        self.config = config
        self.at_once = at_once
        self._threads = config.processing.threads or usable_cores()
        self._share = max(1, self._threads // at_once)
        self._condition = threading.Condition()
        self._state = CameraState()
        self._told_of: tuple[object, ...] = ()
        self._led = False
        self._pool, loaded = self._started()
        self.network, self.network_faults, logged = loaded.result()
        _log_here(logged)  # the others say the same

    @property
    def preparing(self) -> str:
        """Progress of an engine build: never one on a CPU."""
        return ""

    def estimate(
        self,
        stack: FocalStack,
        *,
        reference: int | None = None,
        initial_alignment: Alignment | None = None,
        sharpen: bool = True,
        progress: Progress | None = None,
    ) -> DepthResult:
        """Estimate depth of `stack`, see :meth:`.DepthEstimator.estimate`.

        `progress` is called while the stack is computed; an exception of it ends the wait.
        """
        sequence = sequence_of(stack)
        with self._condition:
            self._condition.wait_for(lambda: not self._led or self._told_of == sequence)
            leads, self._led = not self._led, True
            known, pool, state = self._told_of == sequence, self._pool, self._state
        job = _Job(self._own(self._threads_for(stack.size)), state, leads, stack, reference, initial_alignment, sharpen)
        answer = None
        try:
            if leads and known and state.takes_long:
                beside = pool.submit(_computed, job._replace(sharpen=False))
                beside.add_done_callback(lambda done: self._learn(sequence, _told(done)))
                job = job._replace(leads=False)
            answer = self._awaited(pool.submit(_computed, job), progress)
        except BrokenProcessPool as error:
            with self._condition:
                if self._pool is pool:
                    self._pool, _ = self._started()
            raise RuntimeError(
                "a process of the estimator ended; is there enough memory? It is started anew"
            ) from error
        finally:
            if job.leads:
                self._learn(sequence, None if answer is None else answer.state)
        self.network_faults = answer.network_faults
        _log_here(answer.logged)
        return answer.result

    def _learn(self, sequence: tuple[object, ...], told: CameraState | None) -> None:
        """Keep what a stack that led has told, if it has, and let another one lead."""
        with self._condition:
            self._led = False
            if told is not None:
                self._state, self._told_of = told, sequence
            self._condition.notify_all()

    def alone(self, size: tuple[int, int]) -> bool:
        """True if stacks of images of `size` (height, width) are to be computed one by one."""
        return one_by_one(size, self.config, self._share)

    def _threads_for(self, size: tuple[int, int]) -> int:
        return self._threads if self.alone(size) else self._share

    def _own(self, threads: int) -> Config:
        """Configuration of one process."""
        config = self.config
        return replace(config, processing=replace(config.processing, threads=threads, device="cpu"))

    def _started(self) -> tuple[ProcessPoolExecutor, Future[_Loaded]]:
        """Processes that load the network, and what the first of them tells."""
        level = logging.getLogger("dfs_ros").getEffectiveLevel()
        # A new interpreter: a fork would hold the locks of threads that do not exist in it.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.at_once, context, _begin, (level,))
        with _without_interrupts(), _without_main():
            # Each of these starts a process.
            first, *_ = [pool.submit(_loaded, self._own(self._share)) for _ in range(self.at_once)]
        return pool, first

    def _awaited(self, future: Future[_Answer], progress: Progress | None) -> _Answer:
        while True:
            try:
                return future.result(None if progress is None else _LOOK_S)
            except NotYet:
                if future.done():  # a timeout of its own
                    raise
                try:
                    progress("depth", 0.0)  # type: ignore[misc]
                except BaseException:
                    future.cancel()
                    raise


LiveEstimator = DepthEstimator | ParallelEstimator


def _told(done: Future[_Answer]) -> CameraState | None:
    return None if done.cancelled() or done.exception() is not None else done.result().state


def _log_here(records: list[logging.LogRecord]) -> None:
    for record in records:
        logging.getLogger(record.name).handle(record)


class _Job(NamedTuple):
    config: Config
    state: CameraState
    leads: bool
    stack: FocalStack
    reference: int | None
    initial_alignment: Alignment | None
    sharpen: bool


class _Answer(NamedTuple):
    result: DepthResult
    state: CameraState | None
    """Of a stack that leads."""
    network_faults: list[RunnerFault]
    logged: list[logging.LogRecord]


class _Loaded(NamedTuple):
    network: str
    faults: list[RunnerFault]
    logged: list[logging.LogRecord]


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Within it, processes are started that ignore Ctrl-C: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Within it, processes are started that do not import the main module, which may start a node as it is imported."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# -- in a process of its own --------------------------------------------------------------------------------------

_estimator: DepthEstimator | None = None
_peaks = Peaks()
_logged: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()


def _begin(level: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    package = logging.getLogger("dfs_ros")
    package.setLevel(level)
    package.addHandler(logging.handlers.QueueHandler(_logged))
    package.propagate = False


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)  # a node that was killed leaves no process behind


def _estimator_of(config: Config) -> DepthEstimator:
    global _estimator
    if _estimator is None:
        _estimator = DepthEstimator(config, one_camera=True)
    _estimator.config = config  # dynamic settings
    _estimator.use_threads(config.processing.threads)
    return _estimator


def _loaded(config: Config) -> _Loaded:
    estimator = _estimator_of(config)
    return _Loaded(estimator.network, estimator.network_faults, _logged_since())


def _computed(job: _Job) -> _Answer:
    estimator = _estimator_of(job.config)
    estimator.state = job.state
    if not job.leads:
        job.state.hold()
    result = estimator.estimate(
        job.stack, reference=job.reference, initial_alignment=job.initial_alignment, sharpen=job.sharpen
    )
    _peaks.end()
    return _Answer(result, job.state if job.leads else None, estimator.network_faults, _logged_since())


def _logged_since() -> list[logging.LogRecord]:
    return [_logged.get() for _ in range(_logged.qsize())]

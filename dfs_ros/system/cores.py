"""Processor cores: usable number, work shared among them, and waiting of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_WAITING = "OMP_WAIT_POLICY"
_PRODUCTS = "OPENBLAS_NUM_THREADS"
_WORTH_A_THREAD_PX = 30_000


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(pixels: int, wanted: int = 0) -> int:
    """Threads that share planes of so many pixels: `wanted`, or for 0 all cores; one if the planes are small.

    Two threads that wait for Python's lock between short operations take twice as long as one.
    """
    return 1 if pixels < _WORTH_A_THREAD_PX else wanted if wanted > 0 else usable_cores()


def for_each(work: Callable[[int], None], count: int, threads: int) -> None:
    """Do ``work(0) ... work(count - 1)`` on `threads` threads.

    The first error, or Ctrl-C, cancels all pending work and is raised.
    """
    if threads == 1 or count <= 1:
        for index in range(count):
            work(index)
        return
    with ThreadPoolExecutor(min(threads, count)) as pool:
        try:
            for future in [pool.submit(work, index) for index in range(count)]:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def wait_asleep() -> None:
    """Keep threads that wait from taking a core, unless the user chose otherwise.

    For programs, before numpy and PyTorch are imported. Spinning threads, the default of both, take a core from what
    they wait for:

    - PyTorch's: on two busy cores two of them took twice as long as one for the light network. Asleep they were never
      slower than one.
    - OpenBLAS's, numpy's matrix products: they never sleep between the small products of a stack. Depth took two cores
      for what one does in less time. It has one thread.
    """
    os.environ.setdefault(_WAITING, "passive")
    os.environ.setdefault(_PRODUCTS, "1")


def network_threads(wanted: int = 0) -> int:
    """Threads of a network on the CPU: `wanted`, or for 0 all cores.

    Half of the cores if threads spin as they wait.
    """
    if wanted > 0:
        return wanted
    cores = usable_cores()
    return cores if threads_sleep() else max(1, cores // 2)


def threads_sleep() -> bool:
    """True if PyTorch's threads sleep as they wait."""
    return os.environ.get(_WAITING, "").lower() == "passive"

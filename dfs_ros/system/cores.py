"""Processor cores: usable number, and waiting of threads."""

from __future__ import annotations

import os

_WAITING = "OMP_WAIT_POLICY"
_PRODUCTS = "OPENBLAS_NUM_THREADS"


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

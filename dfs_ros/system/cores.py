"""Processor cores: usable number, and waiting of threads."""

from __future__ import annotations

import os

_WAITING = "OMP_WAIT_POLICY"


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait_asleep() -> None:
    """Make PyTorch's threads sleep as they wait, unless the user chose otherwise.

    For programs, before PyTorch is imported.

    Spinning threads, the default, take a core from the one they wait for: on two busy cores two of them took twice as
    long as one for the light network. Asleep they were never slower than one.
    """
    os.environ.setdefault(_WAITING, "passive")


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

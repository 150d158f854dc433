"""The processor's cores: how many this process may use, and how its threads wait for each other."""

from __future__ import annotations

import os

_WAITING = "OMP_WAIT_POLICY"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait_asleep() -> None:
    """For programs, before PyTorch is imported: have its threads sleep while they wait, where the user has not chosen.

    Threads that spin instead, as they do by default, take a core from the one they wait for: on two busy cores two of
    them took twice as long as one for the light network. Asleep they were never slower than one.
    """
    os.environ.setdefault(_WAITING, "passive")


def network_threads(wanted: int = 0) -> int:
    """Threads of a network on the CPU: `wanted`; for 0 all cores, or half of them where threads spin as they wait."""
    if wanted > 0:
        return wanted
    cores = usable_cores()
    return cores if os.environ.get(_WAITING, "").lower() == "passive" else max(1, cores // 2)

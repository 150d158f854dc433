"""DDS domains and namespaces of this test process: nothing beside it, of this test run or another, hears it."""

import os
import random

_random = random.SystemRandom()
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def new_domain() -> int:
    """A DDS domain that no other worker of this test run draws.

    Linux hands out ports from 32768 on, where domains from 102 on have theirs.
    """
    return 1 + _worker + _workers * _random.randrange(100 // _workers)


def new_namespace() -> str:
    """A namespace that keeps a test run apart from another one that drew the same domain."""
    return f"/test_{os.getpid()}_{_random.randrange(10**9)}"

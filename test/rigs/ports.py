"""A TCP port of this test process, for a server that another process starts."""

import os
import random
import socket

_random = random.SystemRandom()
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def new_port() -> int:
    """A free port that no other worker of this test run draws.

    Nor does the system, which hands out ports from 32768 on; DDS has its own from 7400 on.
    """
    while True:
        port = 5000 + _worker + _workers * _random.randrange(2000 // _workers)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):  # nobody listens
                return port

"""What tests on native ROS 2 share: nodes in a domain of their own, and waiting for what comes."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dds_names import new_domain, new_namespace

DOMAIN = new_domain()
TIMEOUT_S = 240.0
_numbers = itertools.count(1)
_run = new_namespace()


@pytest.fixture
def namespace() -> str:
    """A namespace of this test alone: of others, that ended before, something may still be about."""
    return f"{_run}/number_{next(_numbers)}"


@pytest.fixture(scope="module")
def ros_domain() -> Iterator[None]:
    """The environment of native nodes: a domain of this test run, on this host alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        yield


def until(condition: Callable[[], Any], *transports: Any, timeout_s: float = TIMEOUT_S) -> Any:
    """Spin transports until `condition()` is true, and return what it says."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "timeout"
        for transport in transports:
            while transport.spin_once(0):
                pass
        time.sleep(0.005)
    return result


def start_python(*arguments: str) -> subprocess.Popen[str]:
    """A Python process of this test's environment, whose output can be read."""
    return subprocess.Popen(
        [sys.executable, "-u", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

"""A DDS node of this process and one of another process, which does what it is told, in a domain of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dds_names import new_domain, new_namespace

from dfs_ros.config import Config
from dfs_ros.transport.base import Subscription
from dfs_ros.transport.dds.transport import DdsTransport

INT = "std_msgs/msg/Int32"
DOMAIN = new_domain()
NAMESPACE = new_namespace()
# Only the loopback interface, and type names alone decide on a match: so that a peer can send what does not fit.
SETTINGS = {"dds": {"interface": "lo", "domain_id": DOMAIN, "discovery_range": "localhost"}}
TRUSTING = (
    "<CycloneDDS><Domain><Compatibility><IgnoreTypeInformation>1.16</IgnoreTypeInformation></Compatibility></Domain>"
    "</CycloneDDS>"
)
CONFIG = Config.from_dict(SETTINGS)
PEER = """
import json, sys, time
import numpy as np
from dfs_ros.config import Config
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import *
from dfs_ros.messages.convert import *
from dfs_ros.types import FocusMetadata, LensState

settings, namespace = json.loads(sys.argv[1])
node = open_transport("dds", "peer", namespace=namespace, config=Config.from_dict(settings))

def until(condition, timeout_s=240):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        node.spin_once(0.02)

print("ready", flush=True)
for line in sys.stdin:
    result = None
    exec(json.loads(line))
    print(json.dumps(result), flush=True)
node.shutdown()
"""


class Peer:
    """Another process with a node `peer`, which does what it is told."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PEER, json.dumps([settings, NAMESPACE])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CYCLONEDDS_URI": TRUSTING},
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the peer ended; its error is above"
        return line

    def start(self, code: str) -> None:
        """Have the peer run Python."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()

    def finish(self) -> Any:
        """What it left in `result`."""
        return json.loads(self._answer())

    def run(self, code: str) -> Any:
        self.start(code)
        return self.finish()

    def close(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            return self.process.wait(240)
        finally:
            self.process.kill()
            self.process.stdout.close()


@pytest.fixture(scope="module", autouse=True)
def cyclonedds_uri() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CYCLONEDDS_URI", TRUSTING)
        yield


@pytest.fixture(scope="module")
def peer(cyclonedds_uri: None) -> Iterator[Peer]:
    peer = Peer(SETTINGS)
    yield peer
    assert peer.close() == 0  # it was alive to the end, and left in order


@pytest.fixture
def node() -> Iterator[DdsTransport]:
    with DdsTransport("node", namespace=NAMESPACE, config=CONFIG) as transport:
        yield transport


def until(node: DdsTransport, condition: Callable[[], object], timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        node.spin_once(0.02)


def until_met(subscription: Subscription) -> None:
    """Wait, without spinning, until a subscription knows its publisher, who may know the subscription before."""
    deadline = time.monotonic() + 240
    while not subscription.publisher_count():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.005)

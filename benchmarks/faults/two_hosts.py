"""Two hosts in network namespaces: does a node answer the other host?

``python -m benchmarks.faults.two_hosts`` needs ``unshare`` and ``ip``, but no privileges where user namespaces are
permitted. Prints JSON: for each setting of the node, the numbers of messages that the other participants received from
it, and it from them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks import hosts
from dfs_ros.config import Config
from dfs_ros.messages.definitions import message
from dfs_ros.system.tracebacks import keep_traceback

CASES: dict[str, dict[str, Any]] = {"default": {}, "subnet": {"discovery_range": "subnet"}}
_NUMBER = "std_msgs/msg/Int32"
_SECONDS = 5.0


def results(timeout_s: float = 240.0) -> dict[str, dict[str, int]] | str:
    """What the command prints, or the reason why namespaces cannot be used here."""
    if refused := hosts.refusal():
        return refused
    command = [*hosts.UNSHARE, sys.executable, "-m", "benchmarks.faults.two_hosts"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(f"two hosts: {done.stderr[-2000:]}")
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    with hosts.two_hosts() as cable:
        print(json.dumps({name: _measure(cable, settings) for name, settings in CASES.items()}))
    return 0


def _measure(cable: hosts.Cable, settings: dict[str, Any]) -> dict[str, int]:
    """Numbers of messages that passed with a node of these settings of section dds."""
    open_dds = {"discovery_range": "subnet", "static_peers": hosts.HERE}
    role = [sys.executable, "-m", "benchmarks.faults.two_hosts"]
    parties = {
        "node": [*role, "node", json.dumps(settings)],
        "here": [*role, "peer", json.dumps({"discovery_range": "subnet"})],
        "there": [*cable.there, *role, "peer", json.dumps(open_dds)],
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ROS_", "CYCLONEDDS_"))}
    pipe = subprocess.PIPE
    running = {
        name: subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        for name, command in parties.items()
    }
    for process in running.values():
        process.stdout.readline()  # type: ignore[union-attr]  # all are there before the first counts
    for process in running.values():
        process.stdin.close()  # type: ignore[union-attr]
        process.stdin = None
    said = {name: json.loads(process.communicate(timeout=100)[0].splitlines()[-1]) for name, process in running.items()}
    return {
        "same host received": said["here"]["received"],
        "other host received": said["there"]["received"],
        "node received from other host": said["node"]["2"],
        "node received from same host": said["node"]["1"],
    }


def take_part(role: str, settings: dict[str, Any]) -> dict[str, int]:
    """Node: publish `n`, count `m` by its content; peer: count `n`, publish `m` with the number of its host."""
    from dfs_ros.transport.dds.transport import DdsTransport

    received: dict[str, int] = {"received": 0, "1": 0, "2": 0}
    outgoing, incoming = ("n", "m") if role == "node" else ("m", "n")
    host = 2 if any(hosts.THERE in line for line in _addresses()) else 1

    def count(msg: Any) -> None:
        received["received"] += 1
        received[str(msg.data)] = received.get(str(msg.data), 0) + 1

    with DdsTransport(role, config=Config.from_dict({"dds": {"domain_id": 77, **settings}})) as transport:
        publisher = transport.create_publisher(outgoing, _NUMBER)
        transport.create_subscription(incoming, _NUMBER, count)
        transport.create_timer(0.1, lambda: publisher.publish(message(_NUMBER, data=host)))
        print("ready", flush=True)
        sys.stdin.read()
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            transport.spin_once(0.1)
    return received


def _addresses() -> list[str]:
    return subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True, check=True).stdout.splitlines()


if __name__ == "__main__":
    try:
        if len(sys.argv) == 1:
            sys.exit(main())
        print(json.dumps(take_part(sys.argv[1], json.loads(sys.argv[2]))))
    except OSError as error:
        keep_traceback(error)
        sys.exit(f"two hosts: {error}")

"""Two hosts in network namespaces, joined by a cable (veth) that may be slow or lossy; nothing leaves this machine.

Needs `unshare`, `nsenter` and `ip`, but no privileges where user namespaces are permitted; a slow cable needs `tc`, a
lossy one `iptables` (the match `statistic`, for few kernels have netem).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

HERE, THERE = "10.231.77.1", "10.231.77.2"
UNSHARE = ("unshare", "--user", "--map-root-user", "--net")
"""Command that runs its arguments in the first namespace."""


def refusal(*more_tools: str) -> str:
    """Reason why namespaces cannot be used here; empty if they can."""
    missing = [tool for tool in ("unshare", "ip", "nsenter", *more_tools) if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    made = subprocess.run([*UNSHARE, "ip", "link", "add", "here", "type", "veth"], capture_output=True, check=False)
    return "network namespaces are not permitted here" if made.returncode else ""


class Cable:
    """Cable between this namespace (:data:`HERE`) and the other (:data:`THERE`)."""

    def __init__(self, other_pid: int) -> None:
        self.there = ("nsenter", f"--net=/proc/{other_pid}/ns/net")
        """Command that runs its arguments on the other host."""
        inside = " ".join(self.there)
        for command in (
            "ip link set lo up",
            "ip link add here type veth peer name there",
            f"ip link set there netns {other_pid}",
            f"ip addr add {HERE}/24 dev here",
            "ip link set here up",
            f"{inside} ip link set lo up",
            f"{inside} ip addr add {THERE}/24 dev there",
            f"{inside} ip link set there up",
        ):
            _done(command)

    def limit(self, megabit_per_second: float) -> None:
        """Let the other host send so much, with a queue of a tenth of a second."""
        rate = f"{megabit_per_second:g}mbit"
        _done(f"{' '.join(self.there)} tc qdisc add dev there root tbf rate {rate} burst 16kb latency 100ms")

    def lose(self, share: float) -> None:
        """Lose this share of the packets in both directions, at random."""
        # Before fragments are joined: each packet on the cable has its own fate.
        for host, device in ("", "here"), (" ".join(self.there), "there"):
            chance = f"-m statistic --mode random --probability {share}"
            _done(f"{host} iptables -w -t raw -A PREROUTING -i {device} {chance} -j DROP")

    def count_multicast(self) -> None:
        """Count UDP packets to groups from now on, for :meth:`multicast_packets`."""
        _done("iptables -w -t mangle -A PREROUTING -i here -p udp -d 224.0.0.0/4 -j ACCEPT")

    def multicast_packets(self) -> int:
        """Number of UDP packets to groups that came from the other host."""
        listed = _done("iptables -w -t mangle -L PREROUTING -v -n -x")
        return int(next(line for line in listed.splitlines() if "224.0.0.0" in line).split()[0])

    def received_bytes(self) -> int:
        """Number of bytes that came from the other host."""
        return int(json.loads(_done("ip -s -j link show dev here"))[0]["stats64"]["rx"]["bytes"])


@contextlib.contextmanager
def two_hosts() -> Iterator[Cable]:
    """Make the other host and the cable; to be called under :data:`UNSHARE`."""
    other = subprocess.Popen(["unshare", "--net", "sleep", "3600"])
    try:
        deadline = time.monotonic() + 10.0
        while Path(f"/proc/{other.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            if time.monotonic() > deadline:
                raise TimeoutError("no second namespace")
            time.sleep(0.02)
        yield Cable(other.pid)
    finally:
        other.kill()
        other.wait()


def _done(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command}: {done.stderr.strip()}")
    return done.stdout

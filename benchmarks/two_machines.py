"""Camera on one machine and depth on another, over good, slow and lossy cables; two cameras on one machine.

    python -m benchmarks.two_machines
    python -m benchmarks.two_machines lossy two_cameras
    python -m benchmarks.two_machines --transport ros            # rclpy, in a shell with ROS 2

The machines are network namespaces (:mod:`benchmarks.hosts`), the nodes `dfs camera` and `dfs node` on DDS or rclpy,
told of each other by ROS_STATIC_PEERS, without multicast. Each case counts what was sent and what became of it, and
compares every depth image with the planes of the scene. Exit status 1 where images are not accounted for, where a plane
is over 3 % off (with lost images: over 3 % and over two standard deviations), where a whole connection loses an image,
or where a bad one neither loses one nor holds up the camera.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

from benchmarks import hosts
from benchmarks.faults.processes import running
from benchmarks.heard import Heard
from dfs_ros.config import Config
from dfs_ros.io.markdown import markdown_table
from dfs_ros.system.cores import usable_cores
from dfs_ros.transport.dds.transport import DdsTransport

MOST_ERROR = 0.03
"""Largest relative error of the median of a plane."""
MOST_SIGMAS = 2.0
"""Largest error of a plane in its standard deviation, where lost images make a sweep incomplete and it wider."""
COUNTED_WITHIN = 0.03
"""Largest share of the sent images without an outcome; some are on their way when both ends are read."""
_DOMAIN = "77"
_START_S = 120.0
_WARM_S = 3.0
TOO_BUSY_S = 5.0
_BUSY_LOSS = 0.05
_MEGABIT = 1e6 / 8
_RELIABLE = ("node.reliable_input=true",)
_DDS_ALONE = ("lossy_65500",)  # whose setting rclpy does not read
_LARGE_PACKETS = ("dds.max_message_bytes=65500",)


Command = Callable[..., contextlib.AbstractContextManager[Any]]
""":func:`_command` on a transport."""


@dataclass(frozen=True)
class Case:
    """Connection of camera and node."""

    text: str
    compressed: bool = False
    megabit_per_second: float = 0.0
    loss: float = 0.0
    most_lost: float = 0.0
    """Share of the images that may be lost."""
    harms: bool = False
    """True if images must be lost, or the camera held up: a case that does neither shows nothing."""
    node: tuple[str, ...] = ()
    """Settings of the node."""
    both: tuple[str, ...] = ()
    """Settings of camera and node."""


CASES: dict[str, Case] = {
    "raw": Case("good cable"),
    "compressed": Case("good cable, JPEG", compressed=True),
    "slow": Case("10 Mbit/s", megabit_per_second=10.0, harms=True),
    "slow_reliable": Case("10 Mbit/s, reliable", megabit_per_second=10.0, harms=True, node=_RELIABLE),
    "slow_compressed": Case("10 Mbit/s, JPEG", compressed=True, megabit_per_second=10.0),
    "lossy_65500": Case("1 % loss, packets of 65500 B", loss=0.01, most_lost=1.0, harms=True, both=_LARGE_PACKETS),
    "lossy": Case("1 % loss", loss=0.01, most_lost=1.0, harms=True),
    "lossy_compressed": Case("1 % loss, JPEG", compressed=True, loss=0.01, most_lost=1.0, harms=True),
    "lossy_reliable": Case("1 % loss, reliable", loss=0.01, most_lost=0.03, node=_RELIABLE),
    "lossy_compressed_reliable": Case(
        "1 % loss, JPEG, reliable", compressed=True, loss=0.01, most_lost=0.03, node=_RELIABLE
    ),
}
SIZES = {"/left": "320x240", "/right": "400x300"}
_CAMERA = ("camera.rate_hz=15",)  # half of the default, for the machine does the work of two
_NODE = ("network.name=none", "processing.device=cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    known = (*CASES, "strangers", "two_cameras")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(known)} (default: all)")
    parser.add_argument("--seconds", type=float, default=12.0, help="duration of each case (default: %(default)g)")
    parser.add_argument(
        "--transport", choices=("dds", "ros"), default="dds", help="transport of the nodes (default: %(default)s)"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if unknown := [case for case in args.cases if case not in known]:
        parser.error(f"expected some of {', '.join(known)}, received {unknown[0]!r}")
    if args.inside:
        print(json.dumps(_measure(args.cases[0], args.seconds, args.transport)))
        return 0
    if refused := hosts.refusal("tc", "iptables"):
        sys.exit(f"two machines: {refused}")
    chosen = args.cases or [case for case in known if args.transport == "dds" or case not in _DDS_ALONE]
    records = [_in_namespaces(case, args.seconds, args.transport) for case in chosen]
    rows = [row for record in records for row in record["rows"]]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print(markdown_table(columns, [[row.get(column, "") for column in columns] for row in rows], decimals=2))
    faults = [fault for record in records for fault in record["faults"]]
    print("\n".join(faults) or "everything accounted for")
    return int(bool(faults))


def _in_namespaces(case: str, seconds: float, transport: str) -> dict[str, Any]:
    """Measure a case in namespaces of its own."""
    command = [
        *hosts.UNSHARE,
        sys.executable,
        "-m",
        "benchmarks.two_machines",
        "--inside",
        case,
        f"--seconds={seconds}",
        f"--transport={transport}",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ROS_", "CYCLONEDDS_"))}
    if transport == "ros":  # with static peers, no other hosts are sought
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{case}: {done.stderr[-2000:]}")
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def _measure(name: str, seconds: float, transport: str) -> dict[str, Any]:
    os.environ["ROS_DOMAIN_ID"] = _DOMAIN
    command = partial(_command, transport)
    if name == "two_cameras":
        return _two_cameras(seconds, command)
    with hosts.two_hosts() as cable:
        cable.count_multicast()
        if name == "strangers":
            return _strangers(cable, seconds, command)
        return _two_machines(name, CASES[name], cable, seconds, command)


def _two_machines(name: str, case: Case, cable: hosts.Cable, seconds: float, command: Command) -> dict[str, Any]:
    if case.megabit_per_second:
        cable.limit(case.megabit_per_second)
    if case.loss:
        cable.lose(case.loss)
    os.environ["ROS_STATIC_PEERS"] = hosts.THERE
    transport = "compressed" if case.compressed else "raw"
    node = ("node", *_set(*_NODE, f"node.image_transport={transport}", *case.node, *case.both))
    with _participant() as here, command(*node):
        heard = Heard(here, "", (320, 240))
        _spin(here, partial(_is_ready, heard), "the node is ready")
        with command(
            "camera", *_set(*_CAMERA, *case.both), prefix=cable.there, environment={"ROS_STATIC_PEERS": hosts.HERE}
        ):
            if case.most_lost < 1.0:
                _spin(here, partial(_has_depth, heard), "there is depth")
            _spin_for(here, _WARM_S)
            before, began = cable.received_bytes(), time.monotonic()
            heard.restart()
            _spin_for(here, seconds)
            megabit = (cable.received_bytes() - before) / _MEGABIT / (time.monotonic() - began)
            multicast = cable.multicast_packets()
    row, faults = judged(name, heard, case)
    if multicast:
        faults.append(f"{name}: {multicast} packets to groups, without multicast")
    return {"rows": [{"case": case.text, **row, "Mbit/s": round(megabit, 1)}], "faults": faults}


def _strangers(cable: hosts.Cable, seconds: float, command: Command) -> dict[str, Any]:
    """Without static peers nothing may pass."""
    with _participant() as here, command("node", *_set(*_NODE)):
        heard = Heard(here, "", (320, 240))
        _spin(here, partial(_is_ready, heard), "the node is ready")
        with command("camera", *_set(*_CAMERA), prefix=cable.there):
            before = cable.received_bytes()
            _spin_for(here, seconds)
            received = cable.received_bytes() - before
    faults = [f"strangers: {heard.depth_images} depth images"] if heard.depth_images else []
    if heard.received:
        faults.append(f"strangers: {heard.received} images received")
    row = {"case": "good cable, no peers named", "received": heard.received, "depth images": heard.depth_images}
    return {"rows": [{**row, "Mbit/s": round(received / _MEGABIT / seconds, 1)}], "faults": faults}


def _two_cameras(seconds: float, command: Command) -> dict[str, Any]:
    """Two cameras and two depth nodes of one host in namespaces, each node at its share of the cores."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    share = max(1, usable_cores() // len(SIZES))
    with _participant() as here, contextlib.ExitStack() as stack:
        each: dict[str, Heard] = {}
        nodes: dict[str, psutil.Process] = {}
        for namespace, size in SIZES.items():
            settings = _set(*_NODE, f"processing.threads={share}")
            process = stack.enter_context(command("node", "--namespace", namespace, *settings))
            nodes[namespace] = psutil.Process(process.pid)
            width, _, height = size.partition("x")
            each[namespace] = Heard(here, namespace, (int(width), int(height)))
        for namespace, heard in each.items():
            _spin(here, partial(_is_ready, heard), f"the node of {namespace} is ready")
        for namespace, size in SIZES.items():
            stack.enter_context(command("camera", "--namespace", namespace, "--size", size, *_set(*_CAMERA)))
        for namespace, heard in each.items():
            _spin(here, partial(_has_depth, heard), f"{namespace} has depth")
        _spin_for(here, _WARM_S)
        for heard in each.values():
            heard.restart()
        began, before = time.monotonic(), {name: sum(node.cpu_times()[:2]) for name, node in nodes.items()}
        _spin_for(here, seconds)
        wall = time.monotonic() - began
        cores = {name: (sum(node.cpu_times()[:2]) - before[name]) / wall for name, node in nodes.items()}
    rows, faults = [], []
    for namespace, heard in each.items():
        row, found = judged(namespace, heard, Case("two cameras", most_lost=_BUSY_LOSS))
        rows.append({"case": f"{namespace}, {SIZES[namespace]}", **row, "cores": round(cores[namespace], 2)})
        faults += found
        if cores[namespace] > share + 0.5:  # the thread that receives comes on top
            faults.append(f"{namespace}: {cores[namespace]:.2f} cores, its share is {share}")
    return {"rows": rows, "faults": faults}


def judged(name: str, heard: Heard, case: Case) -> tuple[dict[str, Any], list[str]]:
    """Row of the table, and what is wrong with it."""
    counts = heard.counts()
    sent, received, lost = counts["sent"], counts["received"], counts["dropped"]
    faults = []
    if case.most_lost < 1.0 and not heard.planes:
        faults.append(f"{name}: no depth image")
    told = "no image on" in heard.message  # images that come no more are never counted as lost
    if abs(received + lost - sent) > COUNTED_WITHIN * sent and not told:
        faults.append(f"{name}: {sent} images were sent, but {received} received and {lost} lost")
    if heard.latency_s > TOO_BUSY_S:
        faults.append(f"{name}: depth comes {heard.latency_s:.0f} s late, this machine is too busy to tell anything")
    if lost > case.most_lost * sent:
        faults.append(f"{name}: {lost} images lost")
    if case.harms and not (lost or told or heard.camera_warning):
        faults.append(f"{name}: no image lost and no camera held up, so this shows nothing")
    errors = [error for planes in heard.planes for error in planes.values()]
    worst = max((abs(error.share) for error in errors), default=float("nan"))
    if any(abs(error.share) > MOST_ERROR and (not lost or error.sigmas > MOST_SIGMAS) for error in errors):
        faults.append(f"{name}: a plane is up to {100 * worst:.1f} % off")
    row = {
        **counts,
        "depth images": len(heard.planes),
        "planes": round(statistics.mean(map(len, heard.planes)), 1) if heard.planes else 0,
        "worst %": round(100 * worst, 1),
        "in sigma": round(max((error.sigmas for error in errors), default=float("nan")), 1),
        "latency s": round(heard.latency_s, 2),
    }
    return row, faults


def _is_ready(heard: Heard) -> bool:
    return heard.state == "computing depth"


def _has_depth(heard: Heard) -> bool:
    return heard.depth_images > 0


def _set(*settings: str) -> list[str]:
    return [text for setting in settings for text in ("--set", setting)]


@contextlib.contextmanager
def _command(
    transport: str, *words: str, prefix: Sequence[str] = (), environment: dict[str, str] | None = None
) -> Iterator[Any]:
    """Run `dfs WORDS` on a transport, perhaps on the other host; its lines are shown if it fails."""
    lines: list[str] = []
    variables = [f"{name}={value}" for name, value in (environment or {}).items()]
    command = [*prefix, "env", *variables, sys.executable, "-m", "dfs_ros.cli.main", *words, "--transport", transport]
    try:
        with running(command, lines) as process:
            yield process
    except BaseException:
        print(*lines, sep="\n", file=sys.stderr)
        raise


def _participant() -> DdsTransport:
    return DdsTransport("listener", config=Config())


def _spin(transport: DdsTransport, until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _START_S
    while not until():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_START_S:g} s until {what}")
        transport.spin_once(0.1)


def _spin_for(transport: DdsTransport, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        transport.spin_once(0.1)


if __name__ == "__main__":
    sys.exit(main())

"""Measure image transport between two processes: rate, latency, loss, CPU time.

    python -m benchmarks.transport --width 1920 --height 1080 --rate 30 --duration 20

Latency counts from the stamp, taken just before the image message is made, to the decoded pixels in the receiver's
callback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfs_ros.config import Config

_MATCH_TIMEOUT_S = 60.0
_SETTLE_S = 0.5  # without an image: none is awaited any more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--width", type=int, default=1920, metavar="PX", help="image width (default: %(default)s)")
    parser.add_argument("--height", type=int, default=1080, metavar="PX", help="image height (default: %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=30.0, metavar="HZ", help="images per second (default: %(default)s)"
    )
    parser.add_argument(
        "--duration",
        type=float,
        default=10.0,
        metavar="S",
        help="duration of the measurement [s] (default: %(default)s)",
    )
    parser.add_argument(
        "--best-effort", action="store_true", help="send each image once (default: reliable, repeated until it arrives)"
    )
    parser.add_argument(
        "--transport", choices=("auto", "ros", "dds"), default="dds", help="message transport (default: %(default)s)"
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings, such as those of section dds")
    parser.add_argument("--output", metavar="FILE", help="JSON file for the record")
    parser.add_argument("--send", action="store_true", help=argparse.SUPPRESS)  # this is the sending process


def run(args: argparse.Namespace) -> int:
    """Measure and print; the receiving process starts the sending one."""
    for name in ("width", "height", "rate", "duration"):
        if getattr(args, name) <= 0:
            raise ValueError(f"--{name}: expected over 0, received {getattr(args, name)}")
    if args.send:
        _send(args)
        return 0
    record = measure(args)
    print(describe(record))
    if args.output:
        Path(args.output).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure one run; return its record, times in ms, CPU in percent of one core.

    Raises RuntimeError if the sending process fails.
    """
    from dfs_ros.messages.convert import IMAGE, Message, image_from_message, stamp_ns
    from dfs_ros.transport import open_transport
    from dfs_ros.transport.base import RELIABLE, SENSOR_DATA

    arrivals: list[tuple[int, int, float]] = []  # (number of the image, when it came [ns], latency [ms])

    def receive(msg: Message) -> None:
        image_from_message(msg)
        now = time.time_ns()
        arrivals.append((int(msg.header.frame_id), now, (now - stamp_ns(msg.header.stamp)) / 1e6))

    with open_transport(args.transport, "bench_receiver", config=_config(args)) as transport:
        qos = SENSOR_DATA if args.best_effort else RELIABLE
        subscription = transport.create_subscription("bench/image", IMAGE, receive, qos)
        command = [sys.executable, "-m", "benchmarks.transport", "--send", *_forwarded(args)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as sender:
            try:
                while not subscription.publisher_count() and sender.poll() is None:
                    transport.spin_once(0.01)
                _tell(sender)  # both have discovered each other
                while not arrivals and not _has_said(sender):
                    transport.spin_once(0.1)
                started, cpu_started = time.perf_counter(), time.process_time()
                while not _has_said(sender):
                    transport.spin_once(0.1)
                while transport.spin_once(_SETTLE_S):
                    pass
                elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_started
                output, errors = sender.communicate(timeout=_MATCH_TIMEOUT_S)  # which lets it end
            finally:
                sender.kill()
        dropped = subscription.dropped
    if sender.returncode != 0 or not output:
        raise RuntimeError(f"the sending process failed: {errors.strip()[-2000:] or sender.returncode}")
    return _record(args, json.loads(output), arrivals, dropped, cpu / elapsed * 100)


def _tell(sender: subprocess.Popen[str]) -> None:
    with contextlib.suppress(BrokenPipeError):  # it has failed: its output tells
        sender.stdin.write("send\n")  # type: ignore[union-attr]
        sender.stdin.flush()  # type: ignore[union-attr]


def _has_said(sender: subprocess.Popen[str]) -> bool:
    """True once the sender has printed its record, or has ended."""
    streams: list[Any] = [sender.stdout]
    return bool(select.select(streams, [], [], 0.0)[0])


def describe(record: dict[str, Any]) -> str:
    """Text of the record."""
    return (
        f"{record['transport']}, {record['reliability']}, {record['width']} x {record['height']} rgb8 at "
        f"{record['rate_hz']:g} Hz for {record['duration_s']:g} s\n"
        f"  images   {record['received']} of {record['sent']} received, {record['missed']} missed, "
        f"{record['mean_fps']:.2f} a second\n"
        f"  latency  p50 {record['latency_p50_ms']:.1f} ms, p99 {record['latency_p99_ms']:.1f} ms, "
        f"max {record['latency_max_ms']:.1f} ms, first {record['latency_first_ms']:.1f} ms, "
        f"last {record['latency_last_ms']:.1f} ms, jitter {record['jitter_ms']:.1f} ms\n"
        f"  CPU      sender {record['cpu_sender_percent']:.0f} %, "
        f"receiver {record['cpu_receiver_percent']:.0f} % of a core"
    )


def _record(
    args: argparse.Namespace, sent: dict[str, float], arrivals: list[tuple[int, int, float]], dropped: int, cpu: float
) -> dict[str, Any]:
    if not arrivals:
        raise RuntimeError(f"none of {sent['sent']:g} images arrived")
    latency = np.array([a[2] for a in arrivals])
    times = np.array([a[1] for a in arrivals]) / 1e9
    gaps_ms = np.diff(times) * 1e3
    return {
        "transport": args.transport,
        "reliability": "best effort" if args.best_effort else "reliable",
        "width": args.width,
        "height": args.height,
        "rate_hz": args.rate,
        "duration_s": args.duration,
        "sent": int(sent["sent"]),
        "received": len({a[0] for a in arrivals}),
        "missed": int(sent["sent"]) - len({a[0] for a in arrivals}),
        "dropped_by_receiver": dropped,
        "mean_fps": float((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 else 0.0,
        "latency_p50_ms": float(np.percentile(latency, 50)),
        "latency_p99_ms": float(np.percentile(latency, 99)),
        "latency_max_ms": float(latency.max()),
        "latency_first_ms": float(latency[0]),
        "latency_last_ms": float(latency[-1]),
        "jitter_ms": float(gaps_ms.std()) if len(gaps_ms) else 0.0,
        "cpu_sender_percent": sent["cpu_percent"],
        "cpu_receiver_percent": cpu,
    }


def _send(args: argparse.Namespace) -> None:
    """Send when the receiver says so; print a record, and stay until the receiver has all."""
    from dfs_ros.messages.convert import IMAGE, image_message
    from dfs_ros.transport import open_transport
    from dfs_ros.transport.base import RELIABLE, SENSOR_DATA

    pixels = np.random.default_rng(0).integers(0, 256, (args.height, args.width, 3), np.uint8)
    with open_transport(args.transport, "bench_sender", config=_config(args)) as transport:
        publisher = transport.create_publisher("bench/image", IMAGE, SENSOR_DATA if args.best_effort else RELIABLE)
        deadline = time.monotonic() + _MATCH_TIMEOUT_S
        while not publisher.subscription_count():
            if time.monotonic() > deadline:
                raise RuntimeError(f"nobody subscribed within {_MATCH_TIMEOUT_S:g} s")
            time.sleep(0.01)
        sys.stdin.readline()
        count = max(1, round(args.rate * args.duration))
        started, cpu_started = time.perf_counter(), time.process_time()
        for number in range(count):
            time.sleep(max(0.0, started + number / args.rate - time.perf_counter()))
            publisher.publish(image_message(pixels, transport.now_ns(), str(number)))
        cpu = (time.process_time() - cpu_started) / (time.perf_counter() - started) * 100
        print(json.dumps({"sent": count, "cpu_percent": cpu}), flush=True)
        sys.stdin.read()


def _config(args: argparse.Namespace) -> Config:
    return Config.load(args.config) if args.config else Config()


def _forwarded(args: argparse.Namespace) -> list[str]:
    options = [f"--{name}={getattr(args, name)}" for name in ("width", "height", "rate", "duration", "transport")]
    options += [f"--config={args.config}"] if args.config else []
    return options + (["--best-effort"] if args.best_effort else [])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())

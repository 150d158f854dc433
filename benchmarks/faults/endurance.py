"""A long run of camera, depth node and viewer with a page: the resident memory of their processes must not rise.

Samples are taken five times a second, and judged in blocks of five minutes after the first sixth of the time, by least
squares. The least value of a block is the memory that is kept: the depth node returns once a minute what only a peak
needed, and swings by 200 MiB in between. Its slope must be under 3 MiB an hour at its upper 95 % bound. The largest
value of a block must not be shown to rise by as much: its lower bound is the criterion, as peaks vary. The page is
loaded again every five minutes.
"""

from __future__ import annotations

import contextlib
import csv
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.faults.parts import Row, told
from benchmarks.faults.processes import name_of, running
from benchmarks.faults.slope import slope_and_error

_RATE_HZ = 10.0
_MOST_MIB_PER_HOUR = 3.0
_SAMPLED_S, _BLOCK_S, _LOADED_S, _STARTUP_S = 0.2, 300.0, 300.0, 300.0
_WARM_UP = 1 / 6
_FEWEST_BLOCKS = 5


class Sample(NamedTuple):
    """Resident memory of a process; `shared_mib` of it belongs to files and shared memory."""

    at_s: float
    name: str
    pid: int
    resident_mib: float
    shared_mib: float


def run(duration_s: float, native: bool = False, file: Path | None = None, rate_hz: float = _RATE_HZ) -> list[Row]:
    """A row for each process of `dfs run`, or of the launch file and `dfs view` on native ROS 2.

    `file`: CSV of all samples, which :func:`read` reads.
    """
    title = "growth: depth.launch.py" if native else "growth: dfs run"
    lines: list[str] = []
    with contextlib.ExitStack() as opened:
        processes = [opened.enter_context(running(command, lines)) for command in _commands(native, rate_hz)]
        received = opened.enter_context(_page(_url(processes, lines)))
        samples = list(_sampled(processes, duration_s, file))
        lost = [process for process in processes if process.poll() is not None]
    note = f"{lines[-1] if lines else ''}; {received[0] / 1e6:.0f} MB to the page"
    ended = [Row(title, 1, 1, f"ended with status {process.returncode}, {note}") for process in lost]
    return [*ended, *rows(samples, title), Row(f"{title}, page", 1, int(not received[0]), note)]


def rows(samples: Sequence[Sample], title: str) -> list[Row]:
    """A row for each process; one that was started again counts as broken."""
    found = []
    end_s = max((sample.at_s for sample in samples), default=0.0)
    for name in dict.fromkeys(sample.name for sample in samples):
        own = [sample for sample in samples if sample.name == name]
        found.append(_row(f"{title}, {name}", own, end_s))
    return found


def read(file: Path) -> list[Sample]:
    """Samples of a run, to judge them again."""
    with file.open(newline="") as stream:
        return [Sample(float(t), name, int(p), float(r), float(s)) for t, name, p, r, s in csv.reader(stream)]


def _commands(native: bool, rate_hz: float) -> list[list[str]]:
    if not native:
        return [[sys.executable, "-m", "dfs_ros.cli.main", "run", "--rate", f"{rate_hz:g}", "--port", "0"]]
    viewer = ["dfs", "view", "--transport", "ros", "--port", "0"]
    return [["ros2", "launch", "dfs_ros", "depth.launch.py"], ["ros2", "run", "dfs_ros", *viewer]]


def _url(processes: Sequence[subprocess.Popen[str]], lines: list[str]) -> str:
    """Address of the viewer, once it is up."""
    began = time.monotonic()
    while time.monotonic() - began < _STARTUP_S and all(process.poll() is None for process in processes):
        for line in lines[:]:
            if found := re.search(r"viewer at (http://[^\s]+)", line):
                return found[1]
        time.sleep(0.2)
    raise RuntimeError(f"no viewer within {_STARTUP_S:.0f} s: {lines[-3:]}")


@contextlib.contextmanager
def _page(url: str) -> Iterator[list[int]]:
    """A page that takes all that the viewer sends; yields the bytes received."""
    from benchmarks.faults.page import opened

    received, closing = [0], threading.Event()

    def take() -> None:
        while not closing.is_set():
            with contextlib.suppress(Exception), opened(url) as page:
                loaded = time.monotonic()
                while time.monotonic() - loaded < _LOADED_S and not closing.is_set():
                    with contextlib.suppress(TimeoutError):
                        received[0] += len(page.recv(timeout=1))
            closing.wait(1)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        closing.set()
        thread.join(20)


def _sampled(processes: Sequence[subprocess.Popen[str]], duration_s: float, file: Path | None) -> Iterator[Sample]:
    """Memory of all processes and of those that they started."""
    began = shown = time.monotonic()
    with contextlib.ExitStack() as opened:
        writer = csv.writer(opened.enter_context(file.open("w", newline=""))) if file else None
        while (now := time.monotonic()) - began < duration_s and all(process.poll() is None for process in processes):
            samples = [sample for process in processes for sample in _resident(process.pid, now - began)]
            yield from samples
            if writer:
                writer.writerows([(f"{s.at_s:.2f}", *s[1:3], f"{s[3]:.3f}", f"{s[4]:.3f}") for s in samples])
            if now - shown >= _BLOCK_S:
                shown = now
                text = ", ".join(f"{sample.name} {sample.resident_mib:.1f}" for sample in samples)
                told(f"growth: {(now - began) / 60:.0f} min, MiB: {text}")
            time.sleep(max(0.0, now + _SAMPLED_S - time.monotonic()))


def _resident(pid: int, at_s: float) -> Iterator[Sample]:
    """Samples of a process and of those below it."""
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            used = process.memory_info()
            yield Sample(at_s, name_of(process.cmdline()), process.pid, used.rss / 2**20, used.shared / 2**20)


def _row(title: str, samples: Sequence[Sample], end_s: float) -> Row:
    begin_s = _WARM_UP * end_s
    blocks: dict[int, list[float]] = {}
    for sample in samples:
        if sample.at_s >= begin_s:
            blocks.setdefault(int((sample.at_s - begin_s) / _BLOCK_S), []).append(sample.resident_mib)
    sizes = Counter({number: len(values) for number, values in blocks.items()})
    whole = [values for values in blocks.values() if len(values) >= 0.9 * max(sizes.values())]
    pids = len({sample.pid for sample in samples})
    if pids > 1:
        return Row(title, 1, 1, f"{pids} processes of this name: it ended and was started again")
    if len(whole) < _FEWEST_BLOCKS:
        return Row(title, 0, 0, f"{len(whole)} whole blocks of {_BLOCK_S / 60:.0f} min are too few")
    per_hour = 3600 / _BLOCK_S
    kept, kept_error = (per_hour * value for value in slope_and_error([min(values) for values in whole]))
    peak, peak_error = (per_hour * value for value in slope_and_error([max(values) for values in whole]))
    broke = not kept + kept_error < _MOST_MIB_PER_HOUR or not peak - peak_error < _MOST_MIB_PER_HOUR
    kept_text = f"kept {kept:+.2f} MiB an hour, at most {kept + kept_error:.2f}, now {min(whole[-1]):.0f} MiB"
    peak_text = f"largest {peak:+.2f}, at least {peak - peak_error:.2f}, now {max(whole[-1]):.0f} MiB"
    return Row(title, len(whole), int(broke), f"{kept_text}; {peak_text}")

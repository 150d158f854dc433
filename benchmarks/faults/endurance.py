"""A long run of `dfs run` with a page in its viewer: the resident memory of its processes must not rise.

The criterion is the upper 95 % bound of the slope over the medians of minutes, after the first sixth of the time. The
page is loaded again every five minutes.
"""

from __future__ import annotations

import contextlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil

from benchmarks.faults.parts import Row
from benchmarks.faults.slope import slope_with_bound

_RATE_HZ = 10.0
_MOST_MIB_PER_HOUR = 3.0
_SAMPLED_S, _BLOCK_S, _LOADED_S, _STARTUP_S = 10.0, 60.0, 300.0, 300.0
_WARM_UP = 1 / 6


def run(duration_s: float, rate_hz: float = _RATE_HZ) -> list[Row]:
    """A row for each process: run, node, viewer and camera."""
    command = [sys.executable, "-m", "dfs_ros.cli.main", "run", "--rate", f"{rate_hz:g}", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines: list[str] = []
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reader.start()
        try:
            with _page(_url(process, lines)) as received:
                used_mib = _sampled(process, duration_s)
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
    reader.join(10)
    note = f"{lines[-1] if lines else ''}; {received[0] / 1e6:.0f} MB to the page"
    ended = (
        [] if process.returncode in (0, 130) else [Row("growth: dfs run", 1, 1, f"status {process.returncode}, {note}")]
    )
    return ended + [_row(name, values, note if name == "run" else "") for name, values in used_mib.items()]


def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
    for line in process.stdout or ():
        lines.append(line.rpartition("\r")[2].strip())
        del lines[:-50]


def _url(process: subprocess.Popen[str], lines: list[str]) -> str:
    """Address of the viewer, once it is up and the first depth came."""
    url = ""
    began = time.monotonic()
    while time.monotonic() - began < _STARTUP_S and process.poll() is None:
        for line in lines[:]:
            found = re.search(r"viewer at (http://[^\s]+)", line)
            url = found[1] if found else url
        if url:
            return url
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


def _sampled(process: subprocess.Popen[str], duration_s: float) -> dict[str, list[float]]:
    """Medians of resident memory in MiB over each minute, of each process."""
    began = time.monotonic()
    blocks: dict[str, list[float]] = {}
    samples: dict[str, list[float]] = {}
    shown = 0.0
    while (now := time.monotonic() - began) < duration_s and process.poll() is None:
        for name, used in _resident_mib(process.pid).items():
            samples.setdefault(name, []).append(used)
        if (now + _SAMPLED_S) // _BLOCK_S > now // _BLOCK_S:
            for name, values in samples.items():
                blocks.setdefault(name, []).append(statistics.median(values))
            samples.clear()
            if now - shown >= 5 * _BLOCK_S:
                shown = now
                text = ", ".join(f"{name} {values[-1]:.1f}" for name, values in blocks.items())
                print(f"growth: {now / 60:.0f} min, MiB: {text}", file=sys.stderr, flush=True)
        time.sleep(max(0.0, _SAMPLED_S - (time.monotonic() - began - now)))
    return blocks


def _resident_mib(pid: int) -> dict[str, float]:
    """Resident memory of a run and of the sub-commands that it started, by their names."""
    process = psutil.Process(pid)
    used = {"run": float(process.memory_info().rss) / 2**20}
    for child in process.children():
        with contextlib.suppress(psutil.Error):
            words = child.cmdline()
            name = words[words.index("dfs_ros.cli.main") + 1] if "dfs_ros.cli.main" in words else "other"
            used[name] = float(child.memory_info().rss) / 2**20
    return used


def _row(name: str, used_mib: list[float], note: str) -> Row:
    kept = used_mib[round(_WARM_UP * len(used_mib)) :]
    if len(kept) < 5:
        return Row(f"growth: dfs run, {name}", 0, 0, f"{len(kept)} minutes are too few")
    slope, bound = (60 * value for value in slope_with_bound(kept))
    text = f"{slope:+.2f} MiB an hour, at most {bound:.2f}; {kept[0]:.0f} to {kept[-1]:.0f} MiB over {len(kept)} min"
    return Row(
        f"growth: dfs run, {name}", len(kept), int(not bound <= _MOST_MIB_PER_HOUR), f"{text}; {note}".rstrip("; ")
    )

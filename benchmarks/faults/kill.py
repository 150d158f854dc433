"""SIGKILL at a random moment of each writer, half of them over an older content, then the reader of what is there."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path

from benchmarks.faults.parts import Options, Row, told
from benchmarks.faults.writers import WRITERS, Writer, forked, import_all, last_report, started, what_is_wrong

_COUNT = 500


def run(options: Options) -> list[Row]:
    """One row a writer; each is killed within the time that it takes undisturbed."""
    random_ = random.Random(options.seed)
    import_all()
    count = options.count or _COUNT
    rows = []
    with tempfile.TemporaryDirectory(prefix="dfs_faults_") as folder:
        for number, writer in enumerate(WRITERS):
            share = count * (number + 1) // len(WRITERS) - count * number // len(WRITERS)
            rows.append(_killed(writer, share, Path(folder) / str(number), random_, options))
            told(rows[-1])
    return rows


def _killed(writer: Writer, count: int, folder: Path, random_: random.Random, options: Options) -> Row:
    folder.mkdir()
    began = time.monotonic()
    _, reports, wait = forked(lambda report: writer.write(folder / "first", 1, report))
    status, told = wait()
    last_report(reports)
    takes_s = time.monotonic() - began
    if status:
        return Row(f"kill: {writer.name}", 1, 1, f"it fails undisturbed, {told[-300:]}")
    tried = broke = died = 0
    note = ""
    for case in range(count):
        if options.time_is_over:
            break
        place = folder / f"case{case}"
        place.mkdir()
        destination, old = place / "out", writer.over_old and case % 2 == 1
        child, reports, wait = started(writer, destination, old)
        time.sleep(random_.random() * takes_s)
        os.kill(child, signal.SIGKILL)
        status, _ = wait()
        problem = what_is_wrong(writer, destination, last_report(reports), old)
        tried, broke, died = tried + 1, broke + bool(problem), died + (status == -signal.SIGKILL)
        note = note or (f"case {case}: {problem}" if problem else "")
    return Row(f"kill: {writer.name}", tried, broke, note or f"{died} killed before the end")

"""Power cuts: each writer on ext4 in a file; the file is copied when the writer has reported success, and mounted.

Needs root and loop devices. Without them the order of fsync and rename is what test/system/test_atomic.py holds.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.faults.parts import Options, Row, told
from benchmarks.faults.writers import WRITERS, Writer, import_all, last_report, started, what_is_wrong

_CUTS = 20
_DISK_BYTES = 48 << 20
_LONGEST_PAUSE_S = 2.0


def run(options: Options) -> list[Row]:
    """One row a writer."""
    random_ = random.Random(options.seed)
    import_all()
    rows = []
    with tempfile.TemporaryDirectory(prefix="dfs_faults_") as made:
        folder = Path(made)
        try:
            _make_disk(folder / "disk")
            _mount(folder / "disk", folder / "at")
        except (OSError, subprocess.CalledProcessError) as error:
            return [Row("power", 0, 0, f"needs root and loop devices: {error}")]
        try:
            for writer in WRITERS:
                rows.append(_cut(writer, options.count or _CUTS, folder, random_, options))
                told(rows[-1])
        finally:
            _unmount(folder / "at")
    return rows


def _cut(writer: Writer, count: int, folder: Path, random_: random.Random, options: Options) -> Row:
    tried = broke = 0
    note = ""
    for case in range(count):
        if options.time_is_over:
            break
        place = folder / "at" / f"{writer.name.replace(' ', '_')}_{case}"
        place.mkdir()
        destination, old = place / "out", writer.over_old and case % 2 == 1
        pid, reports, wait = started(writer, destination, old)
        reported = 0
        if writer.records and case % 2:  # cut in the middle: what was reported as flushed must be there
            reported = int.from_bytes(os.read(reports, 4), "little")
            os.kill(pid, signal.SIGSTOP)  # the copy is of one moment
            shutil.copyfile(folder / "disk", folder / "cut")
            os.kill(pid, signal.SIGCONT)
        status, told = wait()
        last = last_report(reports)
        if not (writer.records and case % 2):
            reported = last
            time.sleep(random_.random() * min(_LONGEST_PAUSE_S, case / 4))
            shutil.copyfile(folder / "disk", folder / "cut")
        problem = f"status {status}: {told[-200:]}" if status else ""
        if not problem:
            _mount(folder / "cut", folder / "after")
            try:
                copy = folder / "after" / destination.relative_to(folder / "at")
                problem = "" if copy.exists() else "nothing is there"
                problem = problem or what_is_wrong(writer, copy, reported, old)
            finally:
                _unmount(folder / "after")
        shutil.rmtree(place)
        tried, broke = tried + 1, broke + bool(problem)
        note = note or (f"case {case}: {problem}" if problem else "")
    return Row(f"power: {writer.name}", tried, broke, note)


def _make_disk(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(_DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(file)], check=True, capture_output=True)


def _mount(file: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(file), str(folder)], check=True, capture_output=True)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True, capture_output=True)

"""A disk that is full at ten sizes: each writer on a tmpfs too small for it, half of them over an older content.

A tmpfs has whole pages. So files may also not grow to the size of the largest: its last bytes do not fit, fewer than
what a buffer holds back.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import tempfile
from pathlib import Path

from benchmarks.faults.parts import Options, Row, told
from benchmarks.faults.writers import WRITERS, Writer, forked, import_all, last_report, what_is_wrong

_SIZES = 10
_LIMITS = 2
_NEWUSER, _NEWNS, _REMOUNT, _PRIVATE = 0x10000000, 0x00020000, 32, 0x44000


def run(options: Options) -> list[Row]:
    """One row a writer."""
    random_ = random.Random(options.seed)
    import_all()
    sizes = options.count or _SIZES
    rows = []
    for writer in WRITERS:
        tried = broke = full = 0
        note = ""
        with tempfile.TemporaryDirectory(prefix="dfs_faults_") as folder:
            needed, largest = _needed(writer, Path(folder))
            for case in range(sizes + _LIMITS):
                if options.time_is_over:
                    break
                share = (case + random_.random()) / sizes
                old = writer.over_old and case % 2 == 1
                most = None
                if case >= sizes:
                    most = max(largest - round(2 ** random_.uniform(0, 12)), 0)
                    share = 1.0
                problem, was_full = _on_full_disk(writer, Path(folder) / "disk", round(share * needed), old, most)
                if was_full is None:
                    note = problem
                    break
                tried, broke, full = tried + 1, broke + bool(problem), full + was_full
                tried_with = f"{share:.2f} of {needed} bytes" if most is None else f"files of at most {most} bytes"
                note = note or (f"{tried_with}: {problem}" if problem else "")
        rows.append(Row(f"disk: {writer.name}", tried, broke, note or f"{full} times full"))
        told(rows[-1])
    return rows


def _needed(writer: Writer, folder: Path) -> tuple[int, int]:
    """Bytes that a writer needs for its destination, and those of its largest file."""
    _, reports, wait = forked(lambda report: writer.write(folder / "out", 1, report))
    wait()
    last_report(reports)
    sizes = [p.stat().st_size for p in (folder / "out", *(folder / "out").rglob("*")) if p.is_file()]
    shutil.rmtree(folder / "out", ignore_errors=True)
    return sum(sizes), max(sizes)


def _on_full_disk(writer: Writer, disk: Path, free_bytes: int, old: bool, most: int | None) -> tuple[str, bool | None]:
    """What is wrong, and whether the disk was full; None if it cannot be made. `most`: largest size of a file."""
    disk.mkdir(exist_ok=True)

    def act(report: object) -> None:
        try:
            _mounted(disk, 1 << 28)
        except OSError:
            os._exit(7)
        destination = disk / "out"
        if writer.name == "import":  # its photos lie beside
            writer.write(destination, 2, lambda number: None)
            shutil.rmtree(destination)
        if old:
            writer.write(destination, 1, lambda number: None)
        if most is None:
            used = sum(p.stat().st_blocks * 512 for p in disk.rglob("*"))
            _mounted(disk, used + max(free_bytes, 4096), _REMOUNT)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        flushed, failed = [0], False
        try:
            writer.write(destination, 2, flushed.append)
        except (OSError, ValueError):
            failed = True
        problem = what_is_wrong(writer, destination, flushed[-1], old and not writer.records)
        if problem:
            raise RuntimeError(problem)
        os._exit(8 if failed else 0)

    _, reports, wait = forked(act)
    status, told = wait()
    last_report(reports)
    if status == 7:
        return "no file system can be mounted here, not even in a user namespace", None
    if status not in (0, 8):
        return told.strip().splitlines()[-1] if told.strip() else f"status {status}", True
    return "", status == 8


def _mounted(folder: Path, size_bytes: int, flags: int = 0) -> None:
    """Mount a tmpfs that only this process sees; without root in a namespace of users too."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if not flags:
        if libc.unshare(_NEWNS | (_NEWUSER if user else 0)):
            raise OSError(ctypes.get_errno(), "unshare")
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        libc.mount(None, b"/", None, _PRIVATE, None)
    options = f"size={size_bytes}".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options):
        raise OSError(ctypes.get_errno(), "mount")

"""Freed memory is kept: what was touched once is not cleared by the system again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from dfs_ros.system.memory import Peaks, check_memory

_FAULTS = """
import resource, sys
import threading
import numpy as np
from dfs_ros.system.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    np.ones(1 << 23)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(1 << 23)  # 64 MiB, 16384 pages
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_large_arrays_are_not_cleared_again_by_the_system() -> None:
    def faults(mode: str) -> int:
        return int(subprocess.run([sys.executable, "-c", _FAULTS, mode], capture_output=True, check=True).stdout)

    assert faults("keep") < 0.1 * faults("default")


def test_what_does_not_fit_is_refused_with_both_figures() -> None:
    check_memory(1, "one byte")
    with pytest.raises(ValueError, match=r"^64 images: expected at most .* GB, which are free, received 1e\+09 GB"):
        check_memory(10**18, "64 images")


_GAPS = """
import sys
import numpy as np
import psutil
from dfs_ros.system.memory import return_arrays_at_once
if sys.argv[1] == "return":
    assert return_arrays_at_once()
np.ones(1 << 21)  # freed: glibc now keeps arrays up to this size
kept = []
for _ in range(100):
    large = np.ones(1 << 16)
    kept.append(bytes(2000))
    del large
before = psutil.Process().memory_info().rss
large = [np.ones(1 << 16) for _ in range(100)]
kept += [bytes(2000) for _ in range(100)]
del large
print(max(0, psutil.Process().memory_info().rss - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_arrays_leave_no_gaps() -> None:
    def kept_bytes(mode: str) -> int:
        return int(subprocess.run([sys.executable, "-c", _GAPS, mode], capture_output=True, check=True).stdout)

    assert kept_bytes("default") > 10_000_000  # of 52 MB, below what stays
    assert kept_bytes("return") < 4_000_000


_PEAK = """
import numpy as np
import psutil
from dfs_ros.system.memory import Peaks, keep_freed_memory
assert keep_freed_memory()
now = [0.0]
peaks = Peaks(lambda: now[0])
np.ones(1 << 23)
kept = []
for now[0] in (30.0, 61.0):
    peaks.end()
    kept.append(psutil.Process().memory_info().rss >> 20)
print(kept[0] - kept[1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_a_peak_is_kept_for_a_minute() -> None:
    said = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, check=True).stdout
    assert 60 <= int(said) <= 70  # MiB


def test_peaks_end_once_a_minute() -> None:
    now = [0.0]
    peaks = Peaks(lambda: now[0])
    ended = []
    for now[0] in (1.0, 59.0, 60.0, 61.0, 119.0, 120.5):
        ended.append(peaks.end())
    assert ended == [False, False, True, False, False, True]

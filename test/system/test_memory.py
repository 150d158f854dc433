"""Freed memory is kept: what was touched once is not cleared by the system again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from dfs_ros.system.memory import check_memory

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

"""The CUDA kernels' own source, compiled by a C++ compiler and run on the CPU, in place of a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import dfs_ros.cost_volume.cuda.build as build

KERNEL_FOLDER = Path(build.__file__).parent


class HostKernels:
    """Runs kernels as loops over blocks and threads; `launched` counts them by name."""

    def __init__(self, folder: Path, optimisation: str = "-O2") -> None:
        library = folder / "kernels.so"
        command = [compiler(), optimisation, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        source = str(KERNEL_FOLDER / build.KERNEL_FILE)
        subprocess.run([*command, "-x", "c++", source, "-o", str(library)], check=True, timeout=100)
        self.library = ctypes.CDLL(str(library))
        self.launched: dict[str, int] = {}

    def launch(
        self, name: str, grid: tuple[int, int, int], threads: int, shared_bytes: int, job: ctypes.Structure
    ) -> None:
        # What a GPU would refuse.
        assert 0 < grid[0] < 2**31 and 0 < grid[1] < 65536 and 0 < grid[2] < 65536
        assert 0 < threads <= 256 and shared_bytes <= 48 * 1024
        self.launched[name] = self.launched.get(name, 0) + 1
        getattr(self.library, name)(ctypes.byref(job), *grid, threads, shared_bytes)


def compiler() -> str | None:
    """The C++ compiler of this machine."""
    return shutil.which("g++") or shutil.which("clang++")

"""The CUDA kernels' own source, compiled by a C++ compiler and run on the CPU, in place of a GPU."""

from __future__ import annotations

import copy
import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from places import RIGS

import dfs_ros.cost_volume.cuda.build as build

KERNEL_FOLDER = Path(build.__file__).parent
LOOPS, FORWARDS, BACKWARDS = range(3)
"""Orders of threads, as in cuda_on_cpu.cpp; any other number is the seed of a random one."""


class HostKernels:
    """Runs kernels as loops over blocks and threads, or with threads as fibres in another order.

    `launched` counts them by name. `barriers` holds every (kernel, barrier) that fibres met; a barrier's number is its
    place in the source.
    """

    def __init__(self, folder: Path, optimisation: str = "-O1", sources: Path = KERNEL_FOLDER) -> None:
        self.file = folder / "kernels.so"
        command = [compiler(), optimisation, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        files = [f"-I{sources}", str(RIGS / "cuda_on_cpu.cpp"), "-o", str(self.file)]
        subprocess.run([*command, *files], check=True, timeout=240)
        self._library = ctypes.CDLL(str(self.file))
        self.job_bytes, self.barrier_count = (
            ctypes.c_int.in_dll(self._library, name).value for name in ("job_bytes", "barrier_count")
        )
        self._begin(LOOPS, None)

    def ordered(self, order: int, left_out: tuple[str, int] | None = None) -> HostKernels:
        """The same kernels, their threads in that order, without one (kernel, barrier); nothing counted yet."""
        other = copy.copy(self)
        other._begin(order, left_out)
        return other

    def launch(
        self, name: str, grid: tuple[int, int, int], threads: int, shared_bytes: int, job: ctypes.Structure
    ) -> None:
        # What a GPU would refuse.
        assert 0 < grid[0] < 2**31 and 0 < grid[1] < 65536 and 0 < grid[2] < 65536
        assert 0 < threads <= 256 and shared_bytes <= 48 * 1024
        self.launched[name] = self.launched.get(name, 0) + 1
        kernel, barrier = self._left_out or ("", -1)
        left_out = barrier if name == kernel else -1
        met = getattr(self._library, name)(ctypes.byref(job), *grid, threads, shared_bytes, self._order, left_out)
        if met < 0:
            raise RuntimeError(f"{name}: threads of one block wait at different barriers, or not all of them wait")
        self.barriers |= {(name, i) for i in range(self.barrier_count) if met >> i & 1}

    def _begin(self, order: int, left_out: tuple[str, int] | None) -> None:
        self._order, self._left_out = order, left_out
        self.launched: dict[str, int] = {}
        self.barriers: set[tuple[str, int]] = set()


def changed_kernels(folder: Path, file: str, before: str, after: str) -> HostKernels:
    """The kernels with a change in one file of their source; makes the folder."""
    folder.mkdir()
    for name, text in build.sources().items():
        assert name != file or before in text
        (folder / name).write_text(text.replace(before, after) if name == file else text)
    return HostKernels(folder, "-O0", folder)


def compiler() -> str | None:
    """The C++ compiler of this machine."""
    return shutil.which("g++") or shutil.which("clang++")


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    """Compiled once for all tests."""
    if compiler() is None:
        pytest.skip("no C++ compiler (g++ or clang++) for the host build of the kernels")
    return HostKernels(tmp_path_factory.mktemp("kernels"))

"""The kernels launched by cuda-bindings, in a process of its own whose libcuda.so.1 runs their host build on the CPU.

    LD_LIBRARY_PATH=<folder of libcuda.so.1> python cuda_driver_child.py

Prints what was found, in JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from cost_volume_rig import METHODS, random_stack, relative_error

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import reference
from dfs_ros.cost_volume.cuda import build, driver
from dfs_ros.cost_volume.cuda.driver import CudaKernels
from dfs_ros.cost_volume.cuda.job import Job
from dfs_ros.cost_volume.cuda.volume import VolumeEngine
from dfs_ros.cost_volume.problem import Problem, make_problem

STREAM = 0x7FEDCBA98765  # the one that the driver of these tests takes; more than 32 bits
CPU = torch.device("cpu")


class FixedCompiler:
    """A compiler that always gives the same."""

    architectures = (75, 90)

    def __init__(self, name: str, code: bytes) -> None:
        self.name, self._code = name, code

    def compile(self, architecture: int, ptx: bool) -> bytes:
        return self._code


ELF, GARBAGE = FixedCompiler("good-1.0", b"\x7fELF and more"), FixedCompiler("bad-1.0", b"garbage")


def kernels_of(*compilers: FixedCompiler, cause: str | None = None, stream: int = STREAM) -> CudaKernels:
    def available(causes: list[str]) -> Iterator[FixedCompiler]:
        causes += [] if cause is None else [cause]
        yield from compilers

    build.compilers = available  # type: ignore[assignment]
    return CudaKernels(90, lambda: stream)


def problem_of(method: str = "residual") -> Problem:
    return make_problem(random_stack(3, (21, 30, 3)), [0.4, 0.9, 3.0], CostConfig(method=method))


def volume_of(problem: Problem, kernels: CudaKernels) -> np.ndarray:
    engine = VolumeEngine(problem, kernels, CPU)
    return engine.volume(engine.spectra(problem.stack.images), problem.coc_px).numpy()


def message_of(action: Callable[[], object]) -> str:
    try:
        action()
    except (RuntimeError, ValueError) as error:
        return str(error)
    return "no error"


def main() -> None:
    # First, while the cache is empty.
    nothing_loads = message_of(lambda: kernels_of(GARBAGE, cause="NVRTC: none anywhere"))
    kernels = kernels_of(ELF)
    found: dict[str, object] = {"nothing loads": nothing_loads, "origin": kernels.origin}
    found["errors"] = {
        method: relative_error(volume_of(problem_of(method), kernels), reference.cost_volume(problem_of(method)))
        for method in METHODS
    }
    from cuda.bindings import driver as bindings

    before = volume_of(problem_of(), kernels)
    found["other context"] = message_of(lambda: build.call(bindings.cuCtxSetCurrent, 0))
    found["same again"] = bool((volume_of(problem_of(), kernels) == before).all())

    def launch(
        name: str, grid: tuple[int, int, int], threads: int, shared: int, by: CudaKernels = kernels
    ) -> Callable[[], None]:
        return lambda: by.launch(name, grid, threads, shared, Job())

    found["refused"] = {
        "name": message_of(launch("no_such_kernel", (1, 1, 1), 32, 0)),
        "blocks": message_of(launch("scale_over_depth", (1, 70000, 1), 32, 0)),
        "threads": message_of(launch("scale_over_depth", (1, 1, 1), 512, 0)),
        "shared": message_of(launch("scale_over_depth", (1, 1, 1), 32, 64 << 10)),
        "no blocks": message_of(launch("scale_over_depth", (0, 1, 1), 32, 0)),
        "stream": message_of(launch("scale_over_depth", (1, 1, 1), 32, 0, kernels_of(ELF, stream=0))),
    }
    found["after garbage"] = kernels_of(GARBAGE, ELF).origin
    found["why not"] = driver.why_not()
    driver.why_not.cache_clear()
    torch.cuda.is_available = lambda: True
    torch.version.cuda = "12.6"
    sys.modules["cuda.bindings"] = None  # type: ignore[assignment]
    found["without bindings"] = driver.why_not()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

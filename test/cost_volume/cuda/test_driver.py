"""Launching through the CUDA driver's C interface, with a driver that runs the kernels' host build on the CPU."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cost_volume_rig import METHODS, random_stack, relative_error
from cuda_host import HostKernels, compiler
from places import RIGS

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import reference
from dfs_ros.cost_volume.cuda import CudaUnavailable, build
from dfs_ros.cost_volume.cuda.driver import CudaKernels, Driver
from dfs_ros.cost_volume.cuda.job import Job
from dfs_ros.cost_volume.cuda.volume import VolumeEngine
from dfs_ros.cost_volume.problem import make_problem

STREAM = 0x7FEDCBA98765  # the one that the driver of these tests takes; more than 32 bits


class FixedCompiler:
    """A compiler that always gives the same."""

    architectures = (75, 90)

    def __init__(self, name: str, code: bytes) -> None:
        self.name, self._code = name, code

    def compile(self, architecture: int, ptx: bool) -> bytes:
        return self._code


ELF, GARBAGE = FixedCompiler("good-1.0", b"\x7fELF and more"), FixedCompiler("bad-1.0", b"garbage")


@pytest.fixture(scope="module")
def library(kernels: HostKernels, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("driver")
    source = str(RIGS / "cuda_driver_on_cpu.cpp")
    command = [compiler(), "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I/usr/local/cuda/include"]
    subprocess.run([*command, source, "-o", str(folder / "libcuda.so"), "-ldl"], check=True, timeout=100)  # type: ignore[list-item]
    return str(folder / "libcuda.so")


@pytest.fixture
def driver(library: str, kernels: HostKernels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Driver]:
    monkeypatch.setenv("DFS_ROS_HOST_KERNELS", str(kernels.file))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "compilers", lambda causes: iter([ELF]))
    yield Driver(library)


@pytest.mark.parametrize("method", METHODS)
def test_volumes_through_the_driver_equal_reference(driver: Driver, method: str) -> None:
    kernels = CudaKernels(driver, 90, lambda: STREAM)
    assert kernels.origin.endswith("-sm_90-good-1.0.cubin")
    problem = make_problem(random_stack(3, (21, 30, 3)), [0.4, 0.9, 3.0], CostConfig(method=method))
    engine = VolumeEngine(problem, kernels, torch.device("cpu"))
    volume = engine.volume(engine.spectra(problem.stack.images), problem.coc_px).numpy()
    assert relative_error(volume, reference.cost_volume(problem)) < 1e-5


def test_a_thread_without_the_context_gets_it(driver: Driver) -> None:
    kernels = CudaKernels(driver, 90, lambda: STREAM)
    problem = make_problem(random_stack(2, (20, 24)), [0.4, 0.9], CostConfig())
    engine = VolumeEngine(problem, kernels, torch.device("cpu"))
    before = engine.volume(engine.spectra(problem.stack.images), problem.coc_px)
    with pytest.raises(RuntimeError, match="cuCtxSetCurrent: invalid"):
        driver.call("cuCtxSetCurrent", None)
    again = engine.volume(engine.spectra(problem.stack.images), problem.coc_px)
    np.testing.assert_array_equal(again.numpy(), before.numpy())


def test_what_the_driver_refuses_is_an_error(driver: Driver) -> None:
    kernels = CudaKernels(driver, 90, lambda: STREAM)
    job = Job()
    with pytest.raises(RuntimeError, match=r"cuModuleGetFunction: named symbol not found \(500\)"):
        kernels.launch("no_such_kernel", (1, 1, 1), 32, 0, job)
    for grid, threads, shared in (
        ((1, 70000, 1), 32, 0),
        ((1, 1, 1), 512, 0),
        ((1, 1, 1), 32, 64 << 10),
        ((0, 1, 1), 32, 0),
    ):
        with pytest.raises(RuntimeError, match="cuLaunchKernel: invalid"):
            kernels.launch("scale_over_depth", grid, threads, shared, job)
    elsewhere = CudaKernels(driver, 90, lambda: 0)
    with pytest.raises(RuntimeError, match="cuLaunchKernel: invalid"):
        elsewhere.launch("scale_over_depth", (1, 1, 1), 32, 0, job)


def test_machine_code_that_does_not_load_leaves_the_next_compiler(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "compilers", lambda causes: iter([GARBAGE, ELF]))
    assert CudaKernels(driver, 90, lambda: STREAM).origin.endswith("good-1.0.cubin")


def test_every_cause_is_told_where_nothing_loads(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def compilers(causes: list[str]) -> Iterator[FixedCompiler]:
        causes.append("NVRTC: no libnvrtc anywhere")
        yield GARBAGE

    monkeypatch.setattr(build, "compilers", compilers)
    with pytest.raises(CudaUnavailable) as raised:
        CudaKernels(driver, 90, lambda: STREAM)
    message = str(raised.value)
    assert "cannot be had for sm_90" in message
    assert "NVRTC: no libnvrtc anywhere" in message
    assert "bad-1.0.cubin: cuModuleLoadData: device kernel image is invalid (200)" in message
    assert "pip install nvidia-cuda-nvrtc" in message


def test_a_driver_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="libcuda"):
        Driver(str(tmp_path / "libcuda.so.1"))

"""Launching by cuda-bindings, with a driver that runs the kernels' host build on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from cost_volume_rig import METHODS
from cuda_host import HostKernels, compiler
from places import RIGS, ROOT

pytest.importorskip("cuda.bindings", reason="pip install 'dfs_ros[cuda13]'")


@pytest.fixture(scope="module")
def found(kernels: HostKernels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler(), "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I/usr/local/cuda/include"]
    command += [str(RIGS / "cuda_driver_on_cpu.cpp"), "-o", str(folder / "libcuda.so.1"), "-ldl"]
    subprocess.run(command, check=True, timeout=240)  # type: ignore[arg-type]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "DFS_ROS_HOST_KERNELS": str(kernels.file),
        "XDG_CACHE_HOME": str(folder),
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
    child = [sys.executable, str(RIGS / "cuda_driver_child.py")]
    done = subprocess.run(child, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    answers["said"] = done.stderr
    return answers


@pytest.mark.parametrize("method", METHODS)
def test_volumes_through_the_driver_equal_reference(found: dict[str, Any], method: str) -> None:
    assert found["origin"].endswith("-sm_90-good-1.0.cubin")
    assert found["errors"][method] < 1e-5


def test_a_thread_without_the_context_gets_it(found: dict[str, Any]) -> None:
    assert found["other context"] == "cuCtxSetCurrent: CUDA_ERROR_INVALID_VALUE (1)"
    assert found["same again"] is True


def test_what_the_driver_refuses_is_an_error(found: dict[str, Any]) -> None:
    refused = found["refused"]
    assert refused.pop("name") == "cuModuleGetFunction: CUDA_ERROR_NOT_FOUND (500)"
    assert set(refused.values()) == {"cuLaunchKernel: CUDA_ERROR_INVALID_VALUE (1)"} and len(refused) == 5


def test_machine_code_that_does_not_load_leaves_the_next_compiler(found: dict[str, Any]) -> None:
    assert found["after garbage"].endswith("good-1.0.cubin")


def test_every_cause_is_told_where_nothing_loads(found: dict[str, Any]) -> None:
    message = found["nothing loads"]
    assert "cannot be had for sm_90" in message
    assert "NVRTC: none anywhere" in message
    assert "bad-1.0.cubin: cuModuleLoadData: CUDA_ERROR_INVALID_IMAGE (200)" in message
    assert "pip install nvidia-cuda-nvrtc" in message


def test_what_lacks_beside_the_driver_is_told(found: dict[str, Any]) -> None:
    assert "is built without CUDA" in found["why not"] or "sees no device" in found["why not"]
    assert found["without bindings"].startswith("cuda-bindings cannot be imported (")
    assert found["without bindings"].endswith("pip install 'dfs_ros[cuda12]'")
    assert f"the GPU is not used: {found['without bindings']}" in found["said"]

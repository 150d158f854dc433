"""CUDA kernels without a GPU: they compile for old and new architectures, are kept, and what is missing is said."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cost_volume_rig import random_stack

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cost_volume_from_config, cuda
from dfs_ros.cost_volume.cuda import build, driver
from dfs_ros.cost_volume.problem import make_problem

DEPTHS_M = [0.4, 0.55, 1.3, 9.0]
KERNEL_NAMES = re.findall(r"^KERNEL\((\w+)\)", "\n".join(build.sources().values()), re.M)
COMPILERS = list(build.compilers([]))


# --- the kernels as machine code ------------------------------------------------------------------------------------


@pytest.mark.skipif(not COMPILERS, reason="neither NVRTC (pip install nvidia-cuda-nvrtc) nor nvcc is here")
@pytest.mark.parametrize("architecture", [min(build.ARCHITECTURES), 87, max(build.ARCHITECTURES)])
def test_kernels_compile_for_the_oldest_the_newest_and_jetson(architecture: int) -> None:
    known = COMPILERS[0].architectures
    target, ptx = build.target_of(architecture, known)
    if ptx:
        pytest.skip(f"{COMPILERS[0].name} is too old for sm_{architecture}: it knows {known}")
    cubin = COMPILERS[0].compile(target, ptx=False)
    assert cubin[:4] == b"\x7fELF"
    assert len(KERNEL_NAMES) == 23
    for name in KERNEL_NAMES:
        assert b".text." + name.encode() + b"\0" in cubin, name
    assert b".text.no_such_kernel\0" not in cubin


@pytest.mark.skipif(not COMPILERS, reason="neither NVRTC nor nvcc is here")
def test_compiler_gives_ptx_and_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = max(COMPILERS[0].architectures)
    ptx = COMPILERS[0].compile(newest, ptx=True)
    assert b".entry residual_pairs" in ptx
    assert ptx.endswith(b"\0")
    broken = {**build.sources(), build.KERNEL_FILE: "this is no kernel"}
    monkeypatch.setattr(build, "sources", lambda: broken)
    with pytest.raises(RuntimeError, match="this"):
        COMPILERS[0].compile(newest, ptx=False)


@pytest.mark.parametrize(
    ("architecture", "known", "expected"),
    [
        (87, (75, 87, 90), (87, False)),
        (110, (90, 100, 101, 120), (101, False)),
        (110, (90, 110), (110, False)),
        (121, (75, 90, 120), (120, True)),
        (60, (75, 90), (60, False)),
    ],
)
def test_architecture_compiled_for(architecture: int, known: tuple[int, ...], expected: tuple[int, bool]) -> None:
    assert build.target_of(architecture, known) == expected


class CountingCompiler:
    """Stands for a compiler where only the cache around it is tested."""

    name = "counting-1.0"
    architectures = (75, 90)

    def __init__(self) -> None:
        self.compiled = 0

    def compile(self, architecture: int, ptx: bool) -> bytes:
        self.compiled += 1
        return f"code {architecture} {ptx}".encode()


def test_machine_code_is_kept_by_content_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, folder = CountingCompiler(), tmp_path / "kernels"
    monkeypatch.setattr(build, "compilers", lambda causes: iter([counting]))

    def code(architecture: int = 90) -> bytes:
        return next(build.codes(architecture, [], folder)).code

    assert (code(), code(), counting.compiled) == (b"code 90 False", b"code 90 False", 1)
    assert folder.stat().st_mode & 0o777 == 0o700
    (file,) = folder.iterdir()
    for damage in (b"", file.read_bytes()[:-1], b"x" * 60):
        file.write_bytes(damage)
        assert code() == b"code 90 False"
        assert build.read_kept(file) == b"code 90 False"
    assert counting.compiled == 4
    # A newer card than the compiler: PTX; another architecture, source or compiler: another file.
    assert code(121) == b"code 90 True"
    assert code(75) == b"code 75 False"
    monkeypatch.setattr(build, "sources", lambda: {"kernels.cu": "changed"})
    assert code() == b"code 90 False"
    assert counting.compiled == 7
    counting.name = "counting-2.0"
    assert code() == b"code 90 False"
    assert counting.compiled == 8
    assert not [f for f in folder.iterdir() if f.name.startswith(".")]


def test_machine_code_made_ahead_serves_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compilers", lambda causes: iter([]))
    assert list(build.codes(87, [], tmp_path)) == []
    build.keep(tmp_path / build.file_name(87, False, "nvcc-13.0"), b"made ahead")
    (code,) = build.codes(87, [], tmp_path)
    assert code.code == b"made ahead"
    assert list(build.codes(90, [], tmp_path)) == []


def test_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(build, "compilers", lambda causes: iter([CountingCompiler()]))
    (tmp_path / "file").write_text("where a folder should be")
    with caplog.at_level(logging.WARNING):
        assert next(build.codes(90, [], tmp_path / "file" / "kernels")).code == b"code 90 False"
    assert "cannot be written" in caplog.text


def test_every_cause_is_told_where_nothing_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(build, "_nvcc_candidates", lambda: [None, str(tmp_path / "nvcc")])
    causes: list[str] = []
    assert list(build.codes(90, causes, tmp_path)) == []
    assert len(causes) == 2
    assert causes[0].startswith("NVRTC: cuda-bindings cannot be imported (")
    assert causes[1].startswith("nvcc: not on PATH")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    nvcc.chmod(0o755)
    causes.clear()
    assert list(build.codes(90, causes, tmp_path)) == []
    assert "no licence" in causes[1]


# --- where CUDA is, and where it is not -----------------------------------------------------------------------------


def test_cuda_in_vain_is_an_error_and_auto_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "why_not", lambda: "no NVIDIA driver (for this test)")
    stack = random_stack(2, (20, 22, 3))
    with pytest.raises(cuda.CudaUnavailable, match=r"no NVIDIA driver .* use the device cpu or auto"):
        cost_volume_from_config(stack, DEPTHS_M, CostConfig(), backend="cuda")
    expected = cost_volume_from_config(stack, DEPTHS_M, CostConfig())
    np.testing.assert_array_equal(cost_volume_from_config(stack, DEPTHS_M, CostConfig(), backend="auto"), expected)


@pytest.mark.parametrize("backend", ["auto", "cuda"])
def test_memory_that_does_not_suffice_at_all_means_cpu(
    backend: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def out_of_memory(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cuda, "why_not", lambda: None)
    monkeypatch.setattr(cuda, "cost_volume", out_of_memory)
    stack = random_stack(2, (20, 22, 3))
    expected = cost_volume_from_config(stack, DEPTHS_M, CostConfig())
    with caplog.at_level(logging.WARNING):
        volume = cost_volume_from_config(stack, DEPTHS_M, CostConfig(), backend=backend)
    np.testing.assert_array_equal(volume, expected)
    assert "computed on the CPU: the GPU's memory does not suffice" in caplog.text


def test_kernels_that_cannot_be_had_name_every_cause(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: Any, **__: Any) -> torch.Tensor:
        raise cuda.CudaUnavailable("Tried: one, two")

    monkeypatch.setattr(cuda, "why_not", lambda: None)
    monkeypatch.setattr(cuda, "cost_volume", none)
    stack = random_stack(2, (20, 22, 3))
    with pytest.raises(ValueError, match="Tried: one, two"):
        cost_volume_from_config(stack, DEPTHS_M, CostConfig(), backend="cuda")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            volume = cost_volume_from_config(stack, DEPTHS_M, CostConfig(), backend="auto")
    np.testing.assert_array_equal(volume, cost_volume_from_config(stack, DEPTHS_M, CostConfig()))
    assert caplog.text.count("Tried: one, two") == 1  # said once, not with every stack


def test_the_driver_says_what_is_missing() -> None:
    cause = driver.why_not()
    if cause is None:
        pytest.skip("there is a CUDA device here: python -m benchmarks.gpu_check says more")
    assert re.match(r"no NVIDIA driver \(|no CUDA device|PyTorch .* CUDA", cause)
    with pytest.raises(cuda.CudaUnavailable, match="CUDA cannot be used"):
        driver.cuda_kernels(0)
    problem = make_problem(random_stack(2, (20, 22, 3)), DEPTHS_M, CostConfig())
    with pytest.raises(cuda.CudaUnavailable, match="CUDA cannot be used"):
        cuda.cost_volume(problem)

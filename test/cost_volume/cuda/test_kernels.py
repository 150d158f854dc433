"""CUDA cost volumes without a GPU: the kernels' own source, run on the CPU, gives the reference's volumes.

What only a GPU can show is checked by `python -m benchmarks.gpu_check`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cost_volume_rig import CAMERA, GOLDEN, METHODS, plane_stack, random_stack, relative_error
from cuda_host import KERNEL_FOLDER, HostKernels, changed_kernels
from numpy.typing import NDArray

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import SpectraCache, bound_and_scale, energy, reference
from dfs_ros.cost_volume.cuda.job import Job
from dfs_ros.cost_volume.cuda.tables import RADIAL_ENTRIES_PER_UNIT, radial_cubics
from dfs_ros.cost_volume.cuda.volume import VolumeEngine
from dfs_ros.cost_volume.problem import Problem, make_problem
from dfs_ros.optics.thin_lens import disk_transfer
from dfs_ros.types import FocalStack

CPU = torch.device("cpu")
DEPTHS_M = [0.4, 0.55, 1.3, 9.0]


def host_volume(kernels: HostKernels, problem: Problem, **settings: Any) -> NDArray[Any]:
    engine = VolumeEngine(problem, kernels, CPU, **settings)
    return engine.volume(engine.spectra(problem.stack.images), problem.coc_px).numpy()


def block_of(problem: Problem, depths: int) -> int:
    """Block size in bytes that holds so many hypotheses."""
    pairs = (len(problem.stack) * problem.channel_count + 1) // 2
    return depths * pairs * problem.padded_size[0] * problem.padded_size[1] * 16


# --- the kernels' own source on the CPU -----------------------------------------------------------------------------


def test_job_has_the_layout_of_the_kernels(kernels: HostKernels) -> None:
    assert kernels.job_bytes == ctypes.sizeof(Job)
    declared = re.search(r"struct Job \{(.*?)\n\};", (KERNEL_FOLDER / "elements.cuh").read_text(), re.S)
    assert declared is not None
    text = re.sub(r"//.*", "", declared[1])
    names = [
        name.strip(" *")
        for line in re.findall(r"(?:int|float\d?|char|void)\*? ([^;]+);", text)
        for name in line.split(",")
    ]
    assert names == [name for name, _ in Job._fields_]


# float32 against float64: see test_cost_volume.py. Pixels far from 0 leave about 2e-7 of the norm here.
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("count", "shape"),
    [
        (2, (33, 47, 3)),
        (3, (48, 31, 3)),
        (5, (16, 90, 3)),
        (8, (40, 40)),
        (4, (51, 30)),
        (16, (37, 24, 3)),
        (64, (17, 16)),
    ],
)
def test_kernels_equal_reference(kernels: HostKernels, method: str, count: int, shape: tuple[int, ...]) -> None:
    stack = random_stack(count, shape)
    for extra in (
        {"channels": "rgb"},
        {"psf": "gaussian", "channels": "luma", "window_sigma_px": 2.7},
        {"psf": "table", "eps": 0.1},
    ):
        problem = make_problem(stack, DEPTHS_M, CostConfig(method=method, max_coc_px=15.0, **extra))
        volume = host_volume(kernels, problem, block_bytes=block_of(problem, 3))
        assert volume.dtype == np.float32
        assert relative_error(volume, reference.cost_volume(problem)) < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("psf", ["disk", "table"])
def test_a_lens_with_aberration(kernels: HostKernels, method: str, psf: str) -> None:
    stack = random_stack(4, (24, 31, 3))
    stack = dataclasses.replace(stack, camera=dataclasses.replace(stack.camera, aberration=0.5))
    problem = make_problem(stack, DEPTHS_M, CostConfig(method=method, psf=psf, max_coc_px=15.0))
    assert (problem.coc_px.min() < 0.0) == (psf == "disk")
    assert relative_error(host_volume(kernels, problem), reference.cost_volume(problem)) < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("depths", [1, 128])
def test_any_number_of_hypotheses_in_blocks_of_any_size(kernels: HostKernels, method: str, depths: int) -> None:
    problem = make_problem(
        random_stack(2, (18, 23, 3)), np.linspace(0.4, 5.0, depths), CostConfig(method, channels="rgb")
    )
    expected = reference.cost_volume(problem)
    volumes = [host_volume(kernels, problem, block_bytes=block_of(problem, n)) for n in (1, 7, 1000)]
    assert relative_error(volumes[0], expected) < 1e-5
    for volume in volumes[1:]:
        np.testing.assert_array_equal(volume, volumes[0])


@pytest.mark.parametrize("method", METHODS)
def test_one_image(kernels: HostKernels, method: str) -> None:
    # No stack has fewer than two images, but the kernels need not know.
    pair = random_stack(2, (20, 31, 3))
    single = object.__new__(FocalStack)
    for name, value in (("images", pair.images[:1]), ("focus_diopters", pair.focus_diopters[:1]), ("camera", CAMERA)):
        object.__setattr__(single, name, value)
    both = make_problem(pair, DEPTHS_M, CostConfig(method=method, psf="disk"))
    problem = dataclasses.replace(both, stack=single, coc_px=both.coc_px[:, :1])
    assert relative_error(host_volume(kernels, problem), reference.cost_volume(problem)) < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "extra",
    [
        {"window_sigma_px": 20.0},
        {"max_coc_px": 200.0, "psf": "disk"},
        {"padding_px": 128, "transfer_curve": "linear"},
        {"padding_px": 0, "transfer_curve": "srgb"},
    ],
)
def test_settings_at_their_limits(kernels: HostKernels, method: str, extra: dict[str, Any]) -> None:
    stack = random_stack(64 if "max_coc_px" in extra else 3, (19, 26, 3))
    problem = make_problem(stack, [0.15, 2.0], CostConfig(method=method, **extra))
    assert relative_error(host_volume(kernels, problem), reference.cost_volume(problem)) < 1e-5


@pytest.mark.parametrize("name", ["defocusnet", "nyu"])
def test_released_reproduces_the_authors_volume(kernels: HostKernels, name: str) -> None:
    path = GOLDEN / f"ddfs_released_{name}_camera.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there: the authors' volumes are not part of this repository")
    with np.load(path) as golden:
        camera = dataclasses.replace(
            CAMERA, **{k: float(golden[k]) for k in ("focal_length_m", "f_number", "pixel_pitch_m")}
        )
        stack = FocalStack(golden["images"], 1 / golden["focus_distances_m"], camera)
        cost = CostConfig(method="released", max_coc_px=float(golden["max_coc_px"]), eps=float(golden["balance"]))
        volume = host_volume(kernels, make_problem(stack, golden["depth_samples_m"], cost))
        assert relative_error(volume, golden["cost"]) < 2e-5
        assert relative_error(volume[:, ::-1], golden["cost"]) > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_outputs(kernels: HostKernels, method: str) -> None:
    # Not random images: their bounded cost is 1 everywhere but for rounding.
    problem = make_problem(plane_stack(0.6, (21, 34)), DEPTHS_M, CostConfig(method=method))
    cost = reference.cost_volume(problem).astype(np.float32)
    expected = {
        "cost": cost,
        "log_energy": energy.log_energy(cost, method),
        "bounded": bound_and_scale(cost),
    }
    for output, volume in expected.items():
        single = host_volume(kernels, problem, output=output)
        half = host_volume(kernels, problem, output=output, dtype=torch.float16)
        assert (single.dtype, half.dtype) == (np.float32, np.float16)
        # Bounding flattens, and scaling then enlarges rounding where a pixel's costs hardly differ.
        assert relative_error(single, volume) < (3e-4 if output == "bounded" else 1e-5)
        assert relative_error(half, volume) < 5e-4  # 11 bits
        assert relative_error(half, volume) > 1e-6


def test_wrong_kernels_are_rejected(kernels: HostKernels, tmp_path: Path) -> None:
    """The comparison above sees a mirrored image, a border off by a pixel, a lost square, wrong gain and window."""
    problem = make_problem(random_stack(3, (20, 27, 3)), DEPTHS_M, CostConfig())
    expected = reference.cost_volume(problem)
    assert relative_error(host_volume(kernels, problem), expected) < 1e-5
    changes = [
        ("elements.cuh", "z.y = b.x - a.y;", "z.y = b.x + a.y;"),
        ("elements.cuh", "period - 1 - index", "period - 2 - index < 0 ? 0 : period - 2 - index"),
        ("elements.cuh", "pair.y * pair.y", "pair.y"),
        ("kernels.cu", "windowed[i] / gain", "windowed[i] / (1.01f * gain)"),
        (
            "kernels.cu",
            "sum += load(job.window + k) * (centre[-k * TILE]",
            "sum += load(job.window) * (centre[-k * TILE]",
        ),
    ]
    for i, (file, before, after) in enumerate(changes):
        wrong = changed_kernels(tmp_path / str(i), file, before, after)
        assert relative_error(host_volume(wrong, problem), expected) > 1e-3


def test_radial_table_is_exact_to_float32() -> None:
    cubics = radial_cubics("disk", 200.0)
    x = np.linspace(0.0, 200.0 * np.sqrt(0.5), 100_001)
    cell = (x * RADIAL_ENTRIES_PER_UNIT).astype(int)
    t = x * RADIAL_ENTRIES_PER_UNIT - cell
    values = (cubics[cell] * t[:, None] ** np.arange(4)).sum(axis=1)
    assert np.abs(values - disk_transfer(1.0, x)).max() < 1e-8


# --- around the kernels ---------------------------------------------------------------------------------------------


def test_kept_spectra_give_the_same_volume_and_are_used(kernels: HostKernels) -> None:
    stack = random_stack(6, (30, 44, 3))
    one = VolumeEngine(make_problem(stack, DEPTHS_M, CostConfig()), kernels, CPU).spectra(stack.images)[0].nbytes
    cache = SpectraCache(5 * one)
    for first in (0, 1, 2):
        window = FocalStack(stack.images[first : first + 4], stack.focus_diopters[first : first + 4], stack.camera)
        problem = make_problem(window, DEPTHS_M, CostConfig())
        engine = VolumeEngine(problem, kernels, CPU)
        before = kernels.launched.get("linear_planes", 0)
        spectra = engine.spectra(window.images, cache, list(range(first, first + 4)))
        assert kernels.launched["linear_planes"] - before == (4 if first == 0 else 1)
        volume = engine.volume(spectra, problem.coc_px).numpy()
        np.testing.assert_allclose(volume, host_volume(kernels, problem), rtol=1e-6)
    assert (cache.misses, cache.hits) == (6, 6)
    with pytest.raises(ValueError, match="frame_keys: expected one for each of the 4 images, received none"):
        engine.spectra(window.images, cache)


def test_one_engine_serves_any_blur_and_images_on_the_device(kernels: HostKernels) -> None:
    problem = make_problem(random_stack(3, (20, 26, 3)), DEPTHS_M, CostConfig())
    engine = VolumeEngine(problem, kernels, CPU)
    other = make_problem(random_stack(3, (20, 26, 3), seed=5), [0.5, 0.6, 0.9, 4.0], CostConfig())
    for p in (other, problem, other):
        volume = engine.volume(engine.spectra(torch.from_numpy(p.stack.images)), p.coc_px)
        assert relative_error(volume.numpy(), reference.cost_volume(p)) < 1e-5
    for wrong, message in (
        (p.stack.images[:2], r"images: expected shape \(3, 20, 26, 3\)"),
        (None, "coc_px: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            if wrong is None:
                engine.volume(engine.spectra(p.stack.images), p.coc_px[:2])
            else:
                engine.spectra(wrong)
    with pytest.raises(TypeError, match="images: expected uint8"):
        engine.spectra(torch.zeros(3, 20, 26, 3))
    for settings, message in (
        ({"output": "depth"}, "output: expected one of cost, log_energy, bounded"),
        ({"dtype": torch.float64}, "dtype: expected torch.float32 or torch.float16"),
        ({"block_bytes": -1}, "block_bytes: expected 0"),
    ):
        with pytest.raises(ValueError, match=message):
            VolumeEngine(problem, kernels, CPU, **settings)


class SmallMemory:
    """Kernels on a device whose memory holds a block of at most `most` hypotheses."""

    def __init__(self, kernels: HostKernels, most: int) -> None:
        self._kernels, self._most = kernels, most

    def launch(self, name: str, grid: tuple[int, int, int], threads: int, shared_bytes: int, job: Job) -> None:
        if job.depths > self._most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self._kernels.launch(name, grid, threads, shared_bytes, job)


def test_out_of_memory_makes_blocks_smaller(kernels: HostKernels, caplog: pytest.LogCaptureFixture) -> None:
    problem = make_problem(random_stack(3, (20, 26, 3)), np.linspace(0.4, 3, 9), CostConfig())
    expected = host_volume(kernels, problem)
    with caplog.at_level(logging.WARNING):
        volume = host_volume(SmallMemory(kernels, 2), problem, block_bytes=block_of(problem, 9))  # type: ignore[arg-type]
    np.testing.assert_array_equal(volume, expected)
    assert re.findall(r"blocks of (\d) hypotheses", caplog.text) == ["5", "3", "2"]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        host_volume(SmallMemory(kernels, 0), problem)  # type: ignore[arg-type]

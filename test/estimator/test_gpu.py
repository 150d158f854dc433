"""Depth with all steps on one device: by the kernels' host build on the CPU, equal to the pipeline in numpy."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cuda_host import HostKernels
from cuda_rig import on_host_build, record_by_hand

from dfs_ros.alignment import registration_torch
from dfs_ros.alignment.align import aligned_as_is
from dfs_ros.config import Config
from dfs_ros.cost_volume import SpectraCache, cuda
from dfs_ros.cost_volume.cuda.graphs import Compute, CudaGraphs, Recorded, Tensors
from dfs_ros.cost_volume.halving import half_size
from dfs_ros.depth.guide import colours_of, guide_image, guide_of, image_channels
from dfs_ros.depth.scene_range import hypotheses_for
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.estimator.gpu import GpuSteps
from dfs_ros.network import Network, load_network
from dfs_ros.network.runners.torch import TorchRunner
from dfs_ros.network.weights import load_weights, model_file
from dfs_ros.pipeline import infer
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera, DepthResult, FocalStack

CPU = torch.device("cpu")
CAMERA = Camera(0.008, 1.4, 6e-6)


def config_of(network: str, **sections: dict[str, Any]) -> Config:
    base = {
        "network": {"name": network, "runner": "torch", "precision": "fp32"},
        "hypotheses": {"count": 20, "max_depth_m": 5.0},
        "lens": {"aperture": "given"},
    }
    return Config.from_dict({**base, "processing": {"device": "cpu", "threads": 1}}).updated(sections)


@functools.cache
def stack_of(width: int = 99, height: int = 70, seed: int = 3, grey: bool = False) -> FocalStack:
    """Two planes, seen through a lens; sizes fit neither the network nor halving."""
    scene = plane_scene(1.0, width, height, seed=seed)
    depth = np.where(np.arange(width) < width // 2, 0.6, 1.3) * np.ones((height, 1))
    stack = render_stack(scene.rgb, depth, CAMERA, (2.2, 1.6, 1.1, 0.6), rng=1)
    return dataclasses.replace(stack, images=np.ascontiguousarray(stack.images[..., 1])) if grey else stack


def assert_same(found: DepthResult, expected: DepthResult) -> None:
    """Depth, sigma and confidence of two paths in float32: ties between hypotheses may fall either way."""
    both = np.isfinite(found.depth_m) & np.isfinite(expected.depth_m)
    assert both.mean() > 0.7
    assert (np.isfinite(found.depth_m) != np.isfinite(expected.depth_m)).mean() < 1e-3
    # Sigma is what a sum leaves after nearly as much is taken away.
    for name, typical, tolerance in (("depth_m", 1e-6, 2e-4), ("sigma_m", 1e-4, 5e-3)):
        a, b = getattr(found, name)[both], getattr(expected, name)[both]
        off = np.abs(a / b - 1)
        assert np.median(off) < typical, name
        assert (off > tolerance).mean() < 2e-3, (name, off.max())
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=2e-4)
    off = np.abs(found.all_in_focus.astype(int) - expected.all_in_focus)
    assert (off > 1).mean() < 1e-3, off.max()


@pytest.mark.parametrize("network", ["none", "light"])
@pytest.mark.parametrize(
    "sections",
    [
        {"lens": {"aperture": "fitted"}},
        {"cost": {"channels": "rgb"}, "hypotheses": {"count": 21, "interpolate_to": 0}},
        {"cost": {"method": "released"}, "regularization": {"smoothness": 0.0}},
        {"cost": {"method": "paper"}, "regularization": {"guided_radius_px": 0}},
    ],
)
def test_the_same_depth_as_on_the_cpu(
    kernels: HostKernels, monkeypatch: pytest.MonkeyPatch, network: str, sections: dict[str, Any]
) -> None:
    config, stack = config_of(network, **sections), stack_of()
    if sections.get("cost", {}).get("method"):  # the thresholds are those of `residual`
        config = config.updated({"confidence": {"dense": True}})
    expected = DepthEstimator(config).estimate(stack)
    found = on_host_build(monkeypatch, kernels, config).estimate(stack)
    assert_same(found, expected)
    assert (
        found.report["ran_on"]["cost volume"] == "cpu" and expected.report["ran_on"]["cost volume"] == "cpu, 1 threads"
    )
    assert list(found.report["seconds"]) == list(expected.report["seconds"])
    assert {"cost volume", "decide", "transfer"} <= set(found.report["seconds"])
    assert found.report["warnings"] == []


def test_enlarged_images(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames resampled for focus breathing: filtered images, enlarged defocus and static blur."""
    config = config_of("none", alignment={"mode": "prior"})
    stack = dataclasses.replace(stack_of(), magnification=np.full(4, np.nan))
    expected = DepthEstimator(config).estimate(stack)
    assert expected.alignment[0].motion.scale > 1.004
    assert_same(on_host_build(monkeypatch, kernels, config).estimate(stack), expected)


@pytest.mark.parametrize("grey", [False, True])
def test_frames_resampled_on_the_device(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch, grey: bool) -> None:
    """A value in thousands is a grey level off, which every pixel of its window feels a little."""
    config = config_of("none", alignment={"mode": "prior"})
    stack = dataclasses.replace(stack_of(grey=grey), magnification=np.full(4, np.nan))
    expected = DepthEstimator(config).estimate(stack)
    found = on_host_build(monkeypatch, kernels, config, made=GpuSteps).estimate(stack)
    both = np.isfinite(found.depth_m) & np.isfinite(expected.depth_m)
    assert both.mean() > 0.7
    assert (np.isfinite(found.depth_m) != np.isfinite(expected.depth_m)).mean() < 2e-3
    off = np.abs(found.depth_m[both] / expected.depth_m[both] - 1)
    assert np.median(off) < 2e-5 and (off > 1e-3).mean() < 2e-3


def test_alignment_aperture_and_range_are_the_devices(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own forms of them are not called."""
    config = config_of("none", lens={"aperture": "fitted"}, hypotheses={"max_depth_m": 0.0})
    images = np.stack([np.roll(image, k, axis=1) for k, image in enumerate(stack_of().images)])
    stack = dataclasses.replace(stack_of(), images=images, magnification=np.full(4, np.nan))
    expected = DepthEstimator(config).estimate(stack)

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("the host's form was called")

    for name in ("HostEnergies.volume", "HostEnergies.least"):
        monkeypatch.setattr(f"dfs_ros.depth.energies.{name}", refused)
    for name in ("refinement.blurred", "registration.Features.__init__", "exposure.Exposure.__init__", "still._change"):
        monkeypatch.setattr(f"dfs_ros.alignment.{name}", refused)
    monkeypatch.setattr("dfs_ros.alignment.operations.resampled", refused)
    with pytest.raises(AssertionError, match="was called"):
        DepthEstimator(config).estimate(stack)
    found = on_host_build(monkeypatch, kernels, config, made=GpuSteps).estimate(stack)
    assert found.report["warnings"] == []
    both = np.isfinite(found.depth_m) & np.isfinite(expected.depth_m)
    assert both.mean() > 0.5
    assert np.median(np.abs(found.depth_m[both] / expected.depth_m[both] - 1)) < 1e-3
    assert found.report["aperture"]["scale"] == pytest.approx(expected.report["aperture"]["scale"], rel=2e-3)


def test_grey_images(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    config, stack = config_of("light"), stack_of(grey=True)
    assert_same(on_host_build(monkeypatch, kernels, config).estimate(stack), DepthEstimator(config).estimate(stack))


def test_the_comparison_can_tell(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("none")
    expected = DepthEstimator(config).estimate(stack_of())
    wrong = on_host_build(monkeypatch, kernels, config.updated({"regularization": {"guided_radius_px": 3}}))
    with pytest.raises(AssertionError):
        assert_same(wrong.estimate(stack_of()), expected)


def test_images_changed_in_place_are_uploaded_again(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("none", alignment={"mode": "off"})
    stack = stack_of()
    reused = dataclasses.replace(stack, images=stack.images.copy())
    estimator = on_host_build(monkeypatch, kernels, config)
    estimator.estimate(reused)
    reused.images[:] = stack.images[:, :, ::-1]
    mirrored = dataclasses.replace(stack, images=np.ascontiguousarray(stack.images[:, :, ::-1]))
    assert_same(estimator.estimate(reused), DepthEstimator(config).estimate(mirrored))


def test_inputs_of_the_network_are_those_of_numpy() -> None:
    for stack in (stack_of(), stack_of(grey=True)):
        images = torch.from_numpy(stack.images)
        guide = guide_image(stack.images)
        np.testing.assert_allclose(guide_of(images).numpy(), guide, atol=1e-6)
        expected = image_channels(guide, stack.images[1])[1:]
        np.testing.assert_array_equal(colours_of(images[1]).numpy(), expected)


def test_kept_spectra_are_used(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("none", stack={"mode": "sliding"}, alignment={"mode": "off"})
    estimator = on_host_build(monkeypatch, kernels, config)
    stack = dataclasses.replace(stack_of(), stamp_ns=np.arange(1, 5))
    first = estimator.estimate(stack, sharpen=False)
    before = dict(kernels.launched)
    again = estimator.estimate(stack, sharpen=False)
    assert kernels.launched["linear_planes"] == before["linear_planes"]
    np.testing.assert_array_equal(again.depth_m, first.depth_m)


class Interrupted:
    """The kernels, with a call in the middle of the first volume: after its blur is set."""

    def __init__(self, kernels: HostKernels, call: Callable[[], Any]) -> None:
        self._kernels, self._call = kernels, call
        self._begun = False

    def launch(self, name: str, *arguments: Any) -> None:
        if name == "noise_gains" and not self._begun:
            self._begun = True
            self._call()
        self._kernels.launch(name, *arguments)


@pytest.mark.parametrize("shared", [False, True])
def test_two_estimators_of_one_size_each_have_their_own_answer(kernels: HostKernels, shared: bool) -> None:
    config = config_of("none")
    stacks = stack_of(), dataclasses.replace(stack_of(), camera=dataclasses.replace(CAMERA, f_number=2.8))
    depths_m = hypotheses_for(stacks[0], config)

    def volume(steps: GpuSteps, stack: FocalStack) -> torch.Tensor:
        with steps.current():
            images = steps.upload(stack.images)
            return steps.cost_volume(aligned_as_is(stack, reference=1), images, depths_m, config.cost)

    alone = [volume(GpuSteps(kernels, CPU, None), stack) for stack in stacks]
    assert not torch.equal(*alone)
    between: list[torch.Tensor] = []
    both = Interrupted(kernels, lambda: between.append(volume(second, stacks[1])))
    first, second = GpuSteps(both, CPU, None), GpuSteps(both, CPU, None)
    if shared:
        second._engines = first._engines
    found = volume(first, stacks[0])
    assert torch.equal(between[0], alone[1])
    assert torch.equal(found, alone[0]) != shared  # engines in common would be noticed


# --- CUDA graphs ----------------------------------------------------------------------------------------------------


def test_graphs_follow_their_inputs() -> None:
    calls: list[str] = []

    def record(compute: Compute, inputs: Tensors) -> Recorded:
        calls.append("record")
        return record_by_hand(compute, inputs)

    graphs = CudaGraphs(most=2, record=record)

    def double(x: torch.Tensor) -> Tensors:
        return (2 * x,)

    for value in range(4):
        assert graphs("a", double, torch.full((3,), float(value)))[0].tolist() == [2.0 * value] * 3
        assert len(calls) == min(value, 1)  # the first call computes, the second records
    assert graphs("a", double, torch.ones(4))[0].tolist() == [2.0] * 4  # another shape is another recording
    assert graphs("b", double, torch.ones(3))[0].tolist() == [2.0] * 3  # and the oldest goes
    assert graphs("a", double, torch.ones(3))[0].tolist() == [2.0] * 3
    assert len(calls) == 1


def test_what_cannot_be_recorded_is_computed(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(compute: Compute, inputs: Tensors) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = CudaGraphs(record=refuse)
    with caplog.at_level(logging.WARNING):
        for value in range(4):
            assert graphs("a", lambda x: (x + 1,), torch.full((2,), float(value)))[0].tolist() == [value + 1.0] * 2
    assert caplog.text.count("not permitted when stream is capturing") == 1


@pytest.mark.parametrize("network", ["none", "light"])
def test_recorded_volumes_follow_the_images(
    kernels: HostKernels, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    config = config_of(network)
    estimator = on_host_build(monkeypatch, kernels, config, CudaGraphs(record=record_by_hand))
    for seed in (3, 4, 5, 3):
        stack = stack_of(seed=seed)
        assert_same(estimator.estimate(stack), DepthEstimatorOnCpu(config).estimate(stack))


def DepthEstimatorOnCpu(config: Config) -> DepthEstimator:
    estimator = DepthEstimator(config)
    estimator._gpu = None
    return estimator


# --- memory ---------------------------------------------------------------------------------------------------------


class SmallMemory:
    """Kernels on a device whose memory holds a block of at most `most` hypotheses; and less, after `good` volumes."""

    def __init__(self, kernels: HostKernels, most: int) -> None:
        self._kernels, self.most = kernels, most

    def launch(self, name: str, grid: Any, threads: int, shared_bytes: int, job: Any) -> None:
        if name == "residual_pairs" and job.depths > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self._kernels.launch(name, grid, threads, shared_bytes, job)


def test_too_little_memory_means_smaller_blocks_then_the_cpu(
    kernels: HostKernels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, stack = config_of("light"), stack_of()
    expected = DepthEstimator(config).estimate(stack)
    small = SmallMemory(kernels, 3)
    estimator = on_host_build(monkeypatch, small, config)
    with caplog.at_level(logging.WARNING):
        found = estimator.estimate(stack)
    assert_same(found, expected)
    assert "blocks of 2 hypotheses from now on" in caplog.text
    assert found.report["ran_on"]["cost volume"] == "cpu" and found.report["warnings"] == []
    small.most = 0
    with caplog.at_level(logging.WARNING):
        found = estimator.estimate(stack)
    np.testing.assert_array_equal(found.depth_m, expected.depth_m)
    assert found.report["ran_on"]["cost volume"] == "cpu, 1 threads"
    (warning,) = found.report["warnings"]
    assert "computed on the CPU, as the GPU's memory does not suffice: CUDA out of memory" in warning
    assert warning in caplog.text
    small.most = 3
    assert_same(estimator.estimate(stack), expected)  # it may suffice the next time


def test_other_errors_of_the_device_are_not_swallowed(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def launch(self, *_: Any) -> None:
            raise RuntimeError("cuLaunchKernel: an illegal memory access was encountered (700)")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        on_host_build(monkeypatch, Broken(), config_of("none")).estimate(stack_of())


# --- the host -------------------------------------------------------------------------------------------------------


def test_a_search_of_registration_does_not_wait() -> None:
    meta, shape = torch.device("meta"), (60, 80)
    grid = registration_torch._Grid.of((240, 320), shape, meta)
    plane, derivatives = torch.empty(shape, device=meta), torch.empty((5, 4800), device=meta)
    state, local = torch.empty(7, dtype=torch.float64, device=meta), torch.empty((2, *grid.cells), device=meta)
    found = registration_torch._searched(grid, plane, plane.flatten(), derivatives, state, state, 3)
    assert (found.shape, found.dtype) == (state.shape, state.dtype)
    bent = registration_torch._searched_locally(grid, plane, plane.flatten(), derivatives[:2], state, local, 4, 0.01)
    assert bent.shape == local.shape


class NoKernels:
    """Launches nothing, as on a device without data."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def launch(self, name: str, *_: Any) -> None:
        self.launched.append(name)


@pytest.mark.parametrize("network", ["none", "light"])
def test_nothing_in_between_touches_the_host(network: str) -> None:
    """On the device `meta`, which has no data, whatever reads a value on the host raises."""
    meta = torch.device("meta")
    kernels, stack, config = NoKernels(), stack_of(), config_of(network)
    steps = GpuSteps(kernels, meta, network_on(meta) if network == "light" else None, spectra=SpectraCache())
    depths_m = hypotheses_for(stack, config)
    aligned = aligned_as_is(stack, reference=1)
    for _ in range(2):
        with steps.current():
            planes = infer(aligned, depths_m, config, steps)
        assert {(plane.device, plane.shape, plane.dtype) for plane in planes} == {(meta, stack.size, torch.float32)}
    assert {"residual_pairs", "filtered_columns", "paths_across", "read_out"} <= set(kernels.launched)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        steps.download(planes)


def network_on(device: torch.device) -> Network:
    """The light network whose weights lie on a device that TorchRunner does not offer."""
    runner = TorchRunner(load_weights(model_file("light")), "cpu")
    runner._device = device
    runner._module = runner._module.to(device)
    return Network("light", runner)


def test_tensors_run_through_the_network_as_arrays_do() -> None:
    network = load_network(config_of("light").network, "cpu")
    rng = np.random.default_rng(0)
    for size in ((8, 64, 64), (7, 50, 75)):
        energy, smoothed = rng.normal(0, 1, (2, size[0], *half_size(size[1:]))).astype(np.float32)
        guide, image = rng.random(size[1:], np.float32), rng.integers(0, 256, (*size[1:], 3), np.uint8)
        expected = network.probability(energy, smoothed, guide, image)
        planes = image_channels(guide, image)
        found = network.probability_of_tensors(*(torch.from_numpy(a) for a in (energy, smoothed, planes)))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.skipif(cuda.why_not() is None, reason="there is a CUDA device here")
def test_cuda_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(cuda.CudaUnavailable, match="CUDA cannot be used"):
        GpuSteps.on_cuda(None, threads=1, graphs=True)

"""Cost volume of a camera that moves, by the kernels' host build, held to that of numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cuda_host import HostKernels
from moving_rig import REFERENCE, SIZE, moving_stack
from numpy.typing import NDArray

from dfs_ros.alignment import moving_torch
from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import moving
from dfs_ros.cost_volume.cuda import moving as on_device
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.problem import make_problem
from dfs_ros.lens_field import LensField
from dfs_ros.optics.field import surface_of

CPU = torch.device("cpu")
DEPTHS_M = 1.0 / np.linspace(2.2, 0.4, 9)
INNER = np.s_[:, 12:-12, 24:-24]


def followed(grey: bool = False, forward_m: float = 0.0, smaller: int = 1) -> MovingStack:
    """Camera that moves right, forward and turns a little, with gains and breathing."""
    stack = moving_stack(0.2)
    views = []
    for i, pose in enumerate(stack.poses):
        assert pose is not None
        turn, step = 0.002 * (i - REFERENCE), i - REFERENCE
        rotation = np.array([[1.0, -turn, 0.0], [turn, 1.0, 0.0], [0.0, 0.0, 1.0]])
        position = np.array(pose.translation_m) + np.array([0.0, 0.001 * step, forward_m * step])
        views.append(View(position, rotation, 0.001 * step, 0.0005 * step))
    source = stack.images if grey else np.stack([stack.images, stack.images // 2, stack.images[..., ::-1]], axis=-1)
    height, width = SIZE[0] // smaller, SIZE[1] // smaller
    images = np.ascontiguousarray(source[:, :height, :width])
    return MovingStack(
        images, stack.focus_diopters, stack.camera.scaled(1.0 / smaller), stack.stamp_ns,
        source=source, gains=np.linspace(0.9, 1.1, len(stack)), views=tuple(views), reference=REFERENCE,
    )  # fmt: skip


def volume(stack: MovingStack, cost: CostConfig, kernels: HostKernels, **settings: Any) -> NDArray[np.float32]:
    problem = make_problem(stack, DEPTHS_M, cost)
    return on_device.cost_volume(problem, torch.from_numpy(stack.source), Engines(kernels, CPU), **settings).numpy()


@pytest.mark.parametrize("border", [((0, 0), (0, 0)), ((17, 23), (30, 19))])
@pytest.mark.parametrize("smaller", [1, 2])
def test_frames_are_those_of_numpy(border: Any, smaller: int) -> None:
    stack = followed(forward_m=0.004, smaller=smaller)
    for channels in (1, 3):
        linear = stack.linear("srgb", channels)
        found = moving_torch.linear(stack, torch.from_numpy(stack.source), "srgb", channels)
        np.testing.assert_allclose(found.numpy(), linear, atol=1e-6)
        depth = 1.0 if border[0][0] else np.linspace(0.5, 2.0, linear[0, 0].size).reshape(linear.shape[2:])
        there = depth if isinstance(depth, float) else torch.from_numpy(depth)
        planes, inside = moving_torch.seen(stack, found, there, border)
        expected, expected_inside = stack.seen(linear, depth, border)
        assert np.array_equal(inside.numpy(), expected_inside)
        off = np.abs(planes.numpy() - expected)
        # A position that rounds to the other 32nd of a pixel changes a value on an edge by hundredths.
        assert np.median(off) < 1e-6 and (off > 1e-4).mean() < 2e-3 and off.max() < 0.1


def test_parallax_is_that_of_the_scene_beyond_a_focal_surface() -> None:
    flat = followed(grey=True)
    field = LensField(curvature=0.5, tilt_x=0.2, level_diopters=0.1)
    curved = replace(flat, camera=replace(flat.camera, field=field))
    linear, border = flat.linear("srgb", 1), ((9, 8), (7, 6))
    surface = surface_of(curved.camera, SIZE)
    assert np.ptp(surface) > 0.4
    of_scene = 1.0 + np.pad(surface.astype(np.float64), border, mode="symmetric")
    expected, expected_inside = flat.seen(linear, of_scene, border)
    planes, inside = curved.seen(linear, 1.0, border)
    np.testing.assert_array_equal(inside, expected_inside)
    np.testing.assert_allclose(planes, expected, atol=1e-6)
    there, inside_there = moving_torch.seen(curved, torch.from_numpy(linear), 1.0, border)
    assert np.array_equal(inside_there.numpy(), expected_inside)
    off = np.abs(there.numpy() - expected)
    assert np.median(off) < 1e-6 and (off > 1e-4).mean() < 2e-3


@pytest.mark.parametrize(
    ("grey", "extra"),
    [(True, {}), (False, {"channels": "rgb"}), (False, {"channels": "luma", "padding_px": 0, "psf": "table"})],
)
@pytest.mark.parametrize("forward_m", [0.0, 0.004])
def test_volume_is_that_of_numpy(kernels: HostKernels, grey: bool, extra: dict[str, Any], forward_m: float) -> None:
    stack, cost = followed(grey, forward_m), CostConfig(max_coc_px=15.0, **extra)
    found = volume(stack, cost, kernels)
    expected = moving.cost_volume(make_problem(stack, DEPTHS_M, cost), threads=1)
    ratio = np.log(found / expected)
    assert abs(np.median(ratio)) < 1e-5
    assert np.mean(np.abs(ratio) < 1e-3) > 0.99 and np.abs(ratio).max() < 0.2
    assert np.mean(found.argmin(axis=0) == expected.argmin(axis=0)) > 0.998


def test_the_comparison_can_tell(kernels: HostKernels) -> None:
    stack, cost = followed(True), CostConfig(max_coc_px=15.0)
    expected = moving.cost_volume(make_problem(stack, DEPTHS_M, cost), threads=1)
    other = replace(stack, views=tuple(replace(v, position_m=v.position_m * 1.05) for v in stack.views))
    ratio = np.log(volume(other, cost, kernels) / expected)
    assert np.mean(np.abs(ratio) < 1e-3) < 0.5

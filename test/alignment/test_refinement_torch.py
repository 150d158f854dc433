"""Refinement of motions in PyTorch, held to that of OpenCV and numpy."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from moving_rig import moving_stack, truth_m
from numpy.typing import NDArray

from dfs_ros.alignment import refinement, refinement_torch
from dfs_ros.alignment.align import align
from dfs_ros.alignment.refinement import refined
from dfs_ros.types import FocalStack

DIOPTERS = (1.0 / truth_m()).astype(np.float32)
on_device = functools.partial(refinement_torch.fitted, upload=torch.from_numpy)


def coloured(stack: FocalStack) -> FocalStack:
    images = np.stack([stack.images, stack.images // 2, stack.images[..., ::-1]], axis=-1)
    return dataclasses.replace(stack, images=images)


@pytest.mark.parametrize("stack", [moving_stack(0.2), coloured(moving_stack(0.0))], ids=["moving", "still"])
def test_fits_are_those_of_the_host(stack: FocalStack) -> None:
    aligned = align(stack)
    frames = {k: i for k, i in enumerate(aligned.kept) if i != aligned.kept[aligned.reference]}
    assert len(frames) == 4
    found = on_device(stack, aligned, DIOPTERS, "srgb", frames, 2)
    expected = refinement.fitted(stack, aligned, DIOPTERS, "srgb", frames, 2)
    assert found is not None and expected is not None
    assert (found.mean, found.spread) == pytest.approx((expected.mean, expected.spread), rel=1e-5)
    for i in frames.values():
        for a, b in zip(found.models[i], expected.models[i], strict=True):
            assert a.pixels == b.pixels and a.misfit == pytest.approx(b.misfit, rel=2e-3)
            np.testing.assert_allclose(a.parameters, b.parameters, atol=2e-4)  # 0.01 px
            error = np.sqrt(np.diag(b.information))
            np.testing.assert_allclose(*(fit.information / np.outer(error, error) for fit in (a, b)), atol=5e-3)
        assert found.as_found[i].misfit == pytest.approx(expected.as_found[i].misfit, rel=2e-3)


def test_the_same_model_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    transfers: list[int] = []

    def counted(tensor: torch.Tensor) -> NDArray[Any]:
        transfers.append(tensor.numel())
        return tensor.numpy()

    monkeypatch.setattr(refinement_torch, "downloaded", counted)
    for stack, moving in ((moving_stack(0.2), True), (coloured(moving_stack(0.0)), False)):
        aligned = align(stack)
        found, moved, parallax = refined(stack, aligned, DIOPTERS, "srgb", None, on_device)
        expected, expected_moved, expected_parallax = refined(stack, aligned, DIOPTERS, "srgb")
        assert moved == expected_moved and (parallax is None) == (expected_parallax is None) == (not moving)
        for a, b in zip(found.estimates, expected.estimates, strict=True):
            for m, n in zip(a.motion.maps(stack.size), b.motion.maps(stack.size), strict=True):
                np.testing.assert_allclose(m, n, atol=0.02)
    assert len(transfers) == 2 * 2


def test_too_few_pixels_are_told() -> None:
    stack = moving_stack(0.2)
    rough = np.random.default_rng(0).uniform(0.3, 3.0, stack.size).astype(np.float32)
    aligned = align(stack)
    assert refined(stack, aligned, rough, "srgb", None, on_device)[1:] == (False, None)

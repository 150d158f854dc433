"""A camera that has not moved, by images in PyTorch: as by those of OpenCV and numpy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from moving_rig import moving_stack

from dfs_ros.alignment import still
from dfs_ros.alignment.align import align
from dfs_ros.alignment.operations import Operations
from dfs_ros.alignment.still_torch import TorchStill

DEVICE = TorchStill(torch.from_numpy)


@pytest.mark.parametrize("shift", [0, 1])
def test_changes_are_those_of_the_host(shift: int) -> None:
    images = moving_stack(0.0).images
    later = np.roll(images, shift, axis=2).astype(np.int16) + np.random.default_rng(0).integers(-2, 3, images.shape)
    later = np.clip(later, 0, 255).astype(np.uint8)
    later[1, 30:60, 30:70] = 0  # a part of one image has changed
    before, after = (list(still.details(part, "srgb")) for part in (images, later))
    there = [DEVICE.details(part, "srgb") for part in (images, later)]
    for a, b in zip(there[1], after, strict=True):
        np.testing.assert_allclose(a.numpy(), b, atol=2e-6)
    found, expected = DEVICE.changes(*there, images.shape[1:3]), list(still.changes(before, after, images.shape[1:3]))
    for c, d in zip(found, expected, strict=True):
        assert c is not None and d is not None
        assert tuple(c) == pytest.approx(tuple(d), rel=1e-3, abs=1e-4)
    assert [c.is_none for c in found if c] == [not shift, False, not shift, not shift, not shift]
    # Details of the host, or of another size, are no use on the device, nor the other way round.
    assert DEVICE.changes(before, there[1], images.shape[1:3]) == [None] * 5
    assert list(still.changes(there[0], after, images.shape[1:3])) == [None] * 5
    assert DEVICE.changes([d[1:] for d in there[0]], there[1], images.shape[1:3]) == [None] * 5


def test_an_alignment_holds_on_the_device() -> None:
    stack, operations = moving_stack(0.0), Operations(still=DEVICE)
    first = align(stack, operations=operations)
    darker = dataclasses.replace(stack, images=(stack.images * 0.98).astype(np.uint8))
    held = align(darker, initial=first.estimates, operations=operations)
    for a, b in zip(first.estimates, held.estimates, strict=True):
        assert a.motion is b.motion
    moved = dataclasses.replace(stack, images=np.roll(stack.images, 1, axis=2))
    anew = align(moved, initial=first.estimates, operations=operations)
    assert not any(a.motion is b.motion for a, b in zip(first.estimates, anew.estimates, strict=True))

"""Registration and exposure in PyTorch, held to those of OpenCV and numpy."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from alignment_rig import SIZE, lens, photograph
from numpy.typing import NDArray
from skimage import data

from dfs_ros.alignment import exposure, exposure_torch, registration, registration_torch
from dfs_ros.alignment.matching import match_frames
from dfs_ros.alignment.registration import Motion
from dfs_ros.alignment.registration_torch import TorchRegistration
from dfs_ros.config import AlignmentConfig
from dfs_ros.types import Camera, FocalStack

CPU = torch.device("cpu")
MOTIONS = (
    lens(0.012, shift_px=(3.0, -2.0), degrees=0.4, radial=0.002),
    Motion.identity(SIZE),
    lens(-0.01, shift_px=(-14.0, 9.0), degrees=-0.7),
)
GAINS = (1.3, 1.0, 0.8)


def images_of(grey: bool = False, local: bool = False) -> NDArray[np.uint8]:
    photo = data.astronaut()[60:460, 40:500]
    photos = [
        photograph(photo, motion, blur_px=blur, gain=gain, noise_levels=1.0, seed=seed)
        for seed, (motion, gain, blur) in enumerate(zip(MOTIONS, GAINS, (3.0, 0.0, 5.0), strict=True))
    ]
    if local:
        y, x = np.indices(SIZE, np.float32)
        bent = x + 3.0 * np.sin(y / 30.0), y + 2.0 * np.sin(x / 40.0)
        photos[0] = cv2.remap(photos[0], *bent, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    images = np.stack(photos)
    return np.ascontiguousarray(images[..., 1]) if grey else images


def stack_of(images: NDArray[np.uint8]) -> FocalStack:
    return FocalStack(images, np.array([2.0, 1.2, 0.5]), Camera(0.0068, 1.85, 9e-6))


def apart_px(a: Motion, b: Motion) -> float:
    return max(float(np.abs(m - n).max()) for m, n in zip(a.maps(SIZE), b.maps(SIZE), strict=True))


@pytest.mark.parametrize("grey", [False, True])
def test_features_are_those_of_opencv(grey: bool) -> None:
    images = np.ascontiguousarray(images_of(grey)[:, :237, :318])  # levels whose sizes are no whole parts
    expected = registration.features(images, 160, "srgb")
    found = TorchRegistration(CPU).features(images, 160, "srgb")
    for a, b in zip(found, expected, strict=True):
        assert [a.level_near(n) for n in (10, 100, 1000)] == [b.level_near(n) for n in (10, 100, 1000)]
        for level, plane in enumerate(b.levels):
            np.testing.assert_allclose(a.levels[level].numpy(), plane, atol=2e-5)
            for blur_px in (0.0, 3.0):
                assert a.contrast(level, blur_px) == pytest.approx(b.contrast(level, blur_px), rel=2e-3)


def test_frames_match_as_on_the_host() -> None:
    """From nothing, and from the motions of the stack before; far, near, and with local motion."""
    stack, config = stack_of(images_of(local=True)), AlignmentConfig()
    found = expected = None
    for _ in range(2):
        found, expected = (
            match_frames(stack, config, 1, None if before is None else before.estimates, of)
            for before, of in ((found, TorchRegistration(CPU)), (expected, registration))
        )
        for a, b in zip(found.estimates, expected.estimates, strict=True):
            assert (a.source, a.dropped, a.motion.local is None) == (b.source, b.dropped, b.motion.local is None)
            assert a.correlation == pytest.approx(b.correlation, abs=1e-4)
            assert apart_px(a.motion, b.motion) < 5e-3
        assert [e.motion.local is None for e in expected.estimates] == [False, True, True]
        assert apart_px(found.estimates[2].motion, MOTIONS[2]) < 0.5


def test_exposure_is_that_of_the_host() -> None:
    for grey in (False, True):
        images, motions = images_of(grey), {i: MOTIONS[i] for i in (0, 2)}
        expected = exposure.exposure_gains(images, 1, motions, "srgb")
        found = exposure_torch.exposure_gains(torch.from_numpy(images), 1, motions, "srgb")
        assert found == pytest.approx(expected, rel=1e-4)
        assert expected == pytest.approx({0: 1 / 1.3, 2: 1 / 0.8}, rel=0.02)
    dark = {1: MOTIONS[1]}
    assert exposure_torch.exposure_gains(torch.from_numpy(images // 64), 0, dark, "srgb") == {1: 1.0}


def test_transfers_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    transfers: list[int] = []

    def counted(tensor: torch.Tensor) -> NDArray[Any]:
        transfers.append(tensor.numel())
        return tensor.numpy()

    monkeypatch.setattr(registration_torch, "downloaded", counted)
    before = match_frames(stack_of(images_of()), AlignmentConfig(), 1, None, TorchRegistration(CPU))
    del transfers[:]
    match_frames(stack_of(images_of()), AlignmentConfig(), 1, before.estimates, TorchRegistration(CPU))
    # Contrast of all images; of both others the correlation before, motion, correlation, and twice at a finer level
    # around local motion, which is not believed.
    assert len(transfers) <= 1 + 2 * 6 and sum(transfers) < 5000

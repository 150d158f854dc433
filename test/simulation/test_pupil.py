"""Shapes of blur: light is kept, the aperture's area too, and far is near turned round."""

from __future__ import annotations

import numpy as np
import pytest

from dfs_ros.simulation.pupil import Pupil, pupil_psf
from dfs_ros.simulation.render import blur_psf, render_images
from dfs_ros.simulation.scenes import demo_camera, demo_scene


def diameter_of(psf: np.ndarray) -> float:
    """Of the disk with the same second moment."""
    offset = np.arange(len(psf)) - len(psf) // 2
    return float(4.0 * np.sqrt((psf.sum(axis=0) * offset**2).sum()))


@pytest.mark.parametrize("diameter", [1.0, 4.3, 17.0])
@pytest.mark.parametrize("pupil", [Pupil(), Pupil(5, 0.3), Pupil(8, 1.0, 0.4), Pupil(0, 0.0, -0.6)])
@pytest.mark.parametrize("near", [True, False])
def test_light_is_kept_and_the_kernel_centred(diameter: float, pupil: Pupil, near: bool) -> None:
    psf = pupil_psf(diameter, 2 * int(diameter) + 3, pupil, near)
    assert psf.sum() == pytest.approx(1.0) and psf.min() >= 0.0
    offset = np.arange(len(psf)) - len(psf) // 2
    assert abs((psf.sum(axis=0) * offset).sum()) < 0.02 * diameter
    assert abs((psf.sum(axis=1) * offset).sum()) < 0.02 * diameter


def test_a_circle_is_the_disk() -> None:
    for diameter in (2.0, 9.0):
        disk = blur_psf(diameter)
        circle = blur_psf(-diameter, Pupil())
        pad = (len(circle) - len(disk)) // 2
        assert np.abs(np.pad(disk, pad) - circle).sum() < 0.06


@pytest.mark.parametrize("blades", [3, 5, 6, 9])
def test_polygons_have_the_area_of_the_disk(blades: int) -> None:
    psf = pupil_psf(40.0, 81, Pupil(blades, 0.2), near=True)
    assert np.count_nonzero(psf > 0.5 * psf.max()) == pytest.approx(np.pi * 20.0**2, rel=0.02)


def test_far_is_near_turned_round() -> None:
    pupil = Pupil(5, 0.4)
    near, far = (pupil_psf(15.0, 27, pupil, side) for side in (True, False))
    np.testing.assert_allclose(near[::-1, ::-1], far, atol=1e-6)
    assert np.abs(near - far).max() > 1e-3


def test_aberration_moves_light_to_the_rim_on_the_near_side() -> None:
    near, far = (diameter_of(pupil_psf(20.0, 33, Pupil(aberration=0.5), side)) for side in (True, False))
    assert near > 20.5 > 19.5 > far


@pytest.mark.parametrize(("blades", "aberration"), [(2, 0.0), (-1, 0.0), (0, 1.5)])
def test_impossible_pupils_are_refused(blades: int, aberration: float) -> None:
    with pytest.raises(ValueError, match="pupil: expected blades of 0, or 3 or more"):
        Pupil(blades, 0.0, aberration)


def test_stacks_are_rendered_through_a_pupil() -> None:
    scene = demo_scene(64, 48)
    focus = [2.0]
    plain, ideal, aberrated = (
        render_images(scene.rgb, scene.depth_m, demo_camera(64), focus, noise=0.0, pupil=pupil).astype(float)
        for pupil in (None, Pupil(), Pupil(6, 0.2, 0.7))
    )
    assert np.abs(plain - ideal).mean() < 0.5
    assert np.abs(plain - aberrated).mean() > np.abs(plain - ideal).mean()

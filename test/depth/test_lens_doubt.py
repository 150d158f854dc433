"""Doubt about depth by the covariance of a calibrated lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from dfs_ros.depth.doubt import LensDoubt
from dfs_ros.lens_field import DOUBTS, LensField, axes
from dfs_ros.types import Camera, FocalStack

SIZE = (20, 30)
FOCUS = np.array([0.5, 1.5, 2.5, 3.5, 4.5])


def doubt(
    covariance: np.ndarray, aperture: float = 0.02, sigma: Sequence[float] = (0.01,) * 5, **field: float
) -> LensDoubt:
    numbers = tuple(covariance[np.tril_indices(len(DOUBTS))].tolist())
    camera = Camera(0.004, 2.0, 4e-6, aperture_sigma=0.02, field=LensField(**field, covariance=numbers))
    focus = FOCUS + field.get("level_diopters", 0.0)
    images = np.zeros((5, *SIZE), np.uint8)
    return LensDoubt.of(FocalStack(images, focus, camera, focus_sigma_diopters=np.array(sigma)), aperture)


def covariance_of(**sigma: float) -> np.ndarray:
    return np.diag([sigma.get(name, 0.0) ** 2 for name in DOUBTS])


def diopters(value: float) -> np.ndarray:
    return np.full(SIZE, value, np.float32)


def test_an_offset_moves_all_depths_and_a_tilt_those_at_its_side() -> None:
    found = doubt(covariance_of(focus=0.07))
    assert (found.aperture, found.gain) == (0.0, 0.0)
    np.testing.assert_allclose(found.terms(diopters(2.0))["calibration"], 0.07, rtol=1e-5)
    assert float(found.terms(np.asarray(2.0))["calibration"]) == pytest.approx(0.07, rel=1e-5)
    x, _ = axes(SIZE, np.nan, np.nan)
    tilted = doubt(covariance_of(tilt_x=0.2)).terms(diopters(2.0))["calibration"]
    np.testing.assert_allclose(tilted, np.broadcast_to(0.2 * np.abs(x), SIZE), atol=1e-6)
    # The gain of the focus scale is worth the focus of the images that tell of the depth.
    scale = doubt(covariance_of(focus_gain=0.1)).terms(diopters(2.5))["calibration"]
    np.testing.assert_allclose(scale, 0.1 * 2.5, rtol=0.01)


def test_the_aperture_matters_beyond_the_focus_alone() -> None:
    found = doubt(covariance_of(log_aperture=0.1))
    within, beyond = (found.terms(diopters(value))["calibration"][0, 0] for value in (2.5, 5.5))
    assert within < 0.005
    assert 0.1 < beyond < 0.3
    estimated = doubt(covariance_of(log_aperture=0.1), aperture=0.05)
    assert estimated.aperture == 0.05
    assert not estimated.terms(diopters(5.5))["calibration"].any()
    # A stretched focus scale is answered by the aperture: the depth is off by the scale at the depth itself.
    for value in (1.0, 2.5, 6.0):
        stretched = doubt(covariance_of(focus_gain=0.1), aperture=0.05).terms(diopters(value))["calibration"]
        np.testing.assert_allclose(stretched, 0.1 * value, rtol=1e-4)


def test_focus_scale_and_aperture_that_fit_each_other_leave_depth() -> None:
    """A scale stretched by e about 3 dioptres through an aperture narrower by e blurs a plane there as before."""
    direction = np.zeros(len(DOUBTS))
    direction[:2] = -0.3, 0.1
    direction[DOUBTS.index("log_aperture")] = -0.1
    found = doubt(np.outer(direction, direction))
    terms = [float(found.terms(diopters(value))["calibration"][0, 0]) for value in (3.0, 4.0)]
    assert terms[0] < 0.002
    assert terms[1] == pytest.approx(0.1, rel=0.05)
    apart = doubt(np.diag(direction**2)).terms(diopters(3.0))["calibration"]
    assert apart.min() > 0.3


def test_what_the_covariance_does_not_hold_is_an_offset() -> None:
    assert doubt(covariance_of(focus=0.006)).offset_diopters == pytest.approx(0.008, rel=1e-3)
    assert doubt(covariance_of(focus=0.5)).offset_diopters == 0.0
    nothing = doubt(np.zeros((8, 8)))
    assert nothing.offset_diopters == pytest.approx(0.01)
    assert not nothing.terms(diopters(2.0))["calibration"].any()
    # One image in five, of unknown hysteresis, moves depth by a fifth of its own error.
    assert doubt(np.zeros((8, 8)), sigma=[0.05, 0.0, 0.0, 0.0, 0.0]).offset_diopters == pytest.approx(0.01)


def test_a_levelled_stack_has_the_doubt_of_the_stack() -> None:
    covariance = covariance_of(focus=0.02, focus_gain=0.05, curvature=0.1, log_aperture=0.05, vignetting=0.1)
    own = {"curvature": 0.4, "tilt_x": 0.2, "vignetting": 0.2}
    first, second = doubt(covariance, **own), doubt(covariance, **own, level_diopters=0.3)
    for value in (0.3, 2.0, 5.0):
        np.testing.assert_allclose(
            second.widened(np.zeros(SIZE), diopters(value)), first.widened(np.zeros(SIZE), diopters(value)), rtol=0.02
        )
    with pytest.raises(ValueError, match=r"diopters: expected shape \(20, 30\) or one number, received \(4, 4\)"):
        first.terms(np.ones((4, 4)))
    assert replace(first, calibration=None).calibration is None

"""Bias of depth by resampling: the stack of the benchmark, and its figure for one lens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.resampling_bias import LENSES, bias, main, plane_stack
from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator

CAMERA, SOFTNESS_PX = LENSES["table camera, 2.0 px"]


def test_a_plane_shifted_by_hand_has_hardly_any_bias() -> None:
    config = {"network": {"name": "none"}, "lens": {"aperture": "given"}, "processing": {"device": "cpu"}}
    estimator = DepthEstimator(
        Config.from_dict({**config, "hypotheses": {"min_depth_m": 0.7, "max_depth_m": 1.3, "count": 16}})
    )
    assert abs(bias(estimator, plane_stack(CAMERA, SOFTNESS_PX, 0.95, "by hand"), 0.95)) < 0.005


def test_a_stated_softness_takes_the_bias_of_resampling_away() -> None:
    camera, softness_px = LENSES["webcam, 1.0 px"]
    config = {"network": {"name": "none"}, "lens": {"aperture": "given"}, "processing": {"device": "cpu"}}
    estimator = DepthEstimator(
        Config.from_dict({**config, "hypotheses": {"min_depth_m": 0.7, "max_depth_m": 1.3, "count": 16}})
    )
    unknown = plane_stack(camera, softness_px, 0.95, "breathing")
    known = replace(unknown, camera=replace(camera, softness_px2=softness_px**2))
    assert bias(estimator, unknown, 0.95) < -0.007
    assert abs(bias(estimator, known, 0.95)) < 0.004


def test_the_plane_is_exact() -> None:
    """In focus the image is the sharpest; another noise and motion leave the mean light."""
    still, moved = (
        plane_stack(CAMERA, SOFTNESS_PX, 1.0, motion).images.astype(float) for motion in ("still", "by hand")
    )
    contrast = still.std(axis=(1, 2))
    assert contrast.argmax() == 2
    np.testing.assert_allclose(moved.mean(axis=(1, 2)), still.mean(axis=(1, 2)), rtol=0.02)
    # The image of a hand's shift of (0.43, 2.83) px, shifted back by whole pixels.
    height, width = still.shape[1:]
    back = moved[3, 3:, :]
    assert np.corrcoef(back.ravel(), still[3, : height - 3, :].ravel())[0, 1] > 0.9
    assert np.corrcoef(moved[3].ravel(), still[3].ravel())[0, 1] < 0.9
    assert width == 256


def test_options_are_named() -> None:
    with pytest.raises(SystemExit):
        main(["--no-such-option"])

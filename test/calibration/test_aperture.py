"""The aperture fitted: wrong f-numbers are found, right ones stay, live cameras are fitted seldom."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from dfs_ros.calibration.aperture import ApertureFit, ApertureTracker, combined, fit_aperture, unfitted
from dfs_ros.config import Config, CostConfig
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.simulation.scenes import demo_scene
from dfs_ros.types import Camera, FocalStack

NEAREST_M = 0.3


@pytest.fixture(scope="module")
def scene():
    return demo_scene(320, 240)


def told(stack: FocalStack, over_true: float) -> FocalStack:
    """The stack with an f-number that is wrong by that factor."""
    return dataclasses.replace(
        stack, camera=dataclasses.replace(stack.camera, f_number=stack.camera.f_number * over_true)
    )


def a_fit(measured: float, sigma: float) -> ApertureFit:
    return ApertureFit(measured, sigma, np.empty(0), np.empty(0), 0.5)


@pytest.mark.parametrize("over_true", [0.85, 1.12, 1.3])
def test_wrong_f_number_is_found(demo_stack: FocalStack, over_true: float) -> None:
    fit = fit_aperture(told(demo_stack, over_true), NEAREST_M, CostConfig(), threads=1)
    assert fit is not None
    assert fit.measured == pytest.approx(over_true, rel=0.015)
    assert abs(math.log(fit.scale)) <= abs(math.log(fit.measured))
    assert fit.scale == pytest.approx(over_true, rel=0.02)
    assert 0.0 < fit.sigma < 0.05 and fit.misfit.min() == 0.0


def test_right_f_number_stays(demo_stack: FocalStack) -> None:
    fit = fit_aperture(demo_stack, NEAREST_M, CostConfig(), threads=1)
    assert fit is not None and not fit.at_limit
    assert fit.measured == pytest.approx(1.0, abs=0.015)
    assert abs(math.log(fit.scale)) < abs(math.log(fit.measured))


@pytest.mark.parametrize("over_true", [0.4, 2.5])
def test_wrong_lenses_are_found_far_off(demo_stack: FocalStack, over_true: float) -> None:
    fit = fit_aperture(told(demo_stack, over_true), NEAREST_M, CostConfig(), threads=1)
    assert fit is not None and not fit.at_limit
    assert fit.measured == pytest.approx(over_true, rel=0.1)


def test_a_fit_from_a_known_factor_is_the_same_with_fewer_tries(demo_stack: FocalStack) -> None:
    wrong = told(demo_stack, 1.3)
    tries: list[int] = []
    alone = fit_aperture(wrong, NEAREST_M, CostConfig(), threads=1, tried=tries.append)
    assert alone is not None and len(tries) > 5
    tries.clear()
    after = fit_aperture(wrong, NEAREST_M, CostConfig(), near_factor=1.25, threads=1, tried=tries.append)
    assert after is not None and len(tries) <= 5
    assert after.measured == pytest.approx(alone.measured, rel=0.002)


def test_later_fits_begin_at_the_factor_found() -> None:
    tracker, begun, fits = ApertureTracker(), [], iter([a_fit(1.2, 0.01), a_fit(1.3, 0.01)])

    def fit(near_factor: float | None) -> ApertureFit:
        begun.append(near_factor)
        return next(fits, a_fit(1.25, 0.01))

    for _ in range(16):
        tracker.fit(Camera(5e-3, 2.0, 5e-6), fit)
    assert begun == [None, pytest.approx(1.2), pytest.approx(math.sqrt(1.2 * 1.3))]


def test_fits_at_the_last_factor_say_so(demo_stack: FocalStack) -> None:
    fit = fit_aperture(told(demo_stack, 4.5), NEAREST_M, CostConfig(), threads=1)
    assert fit is not None and fit.at_limit
    assert fit.measured == pytest.approx(math.exp(1.2))
    assert fit.scale == pytest.approx(1.0, abs=0.005) and fit.scale_sigma > 1.19


def test_two_images_do_not_tell_the_aperture(demo_stack: FocalStack) -> None:
    two = FocalStack(demo_stack.images[[0, -1]], demo_stack.focus_diopters[[0, -1]], demo_stack.camera)
    assert fit_aperture(two, NEAREST_M, CostConfig(), threads=1) is None


def test_nothing_is_said_without_texture(demo_stack: FocalStack) -> None:
    noise = np.random.default_rng(0).standard_normal(demo_stack.images.shape)
    flat = np.clip(np.rint(128 + noise), 0, 255).astype(np.uint8)
    assert fit_aperture(dataclasses.replace(demo_stack, images=flat), NEAREST_M, CostConfig(), threads=1) is None


def test_depth_survives_a_wrong_f_number(demo_stack: FocalStack, scene) -> None:
    truth = scene.depth_m[1::2, 1::2]

    def error(over_true: float, aperture: str) -> float:
        config = Config.from_dict(
            {
                "network": {"name": "none"},
                "alignment": {"mode": "off"},
                "confidence": {"dense": True},
                "processing": {"device": "cpu"},
                "lens": {"aperture": aperture},
            }
        )
        result = DepthEstimator(config).estimate(told(demo_stack, over_true), sharpen=False)
        assert (result.report["aperture"] is None) == (aperture == "given")
        return float(np.nanmean(np.abs(result.depth_m - truth) / truth))

    right = error(1.0, "given")
    assert error(1.0, "fitted") < 1.05 * right
    assert error(1.1, "fitted") < 1.2 * right
    assert error(1.1, "given") > 1.6 * right


def test_scale_is_the_mean_over_lenses_that_explain_the_measurement() -> None:
    logs = np.linspace(-1.0, 1.0, 20001)

    def normal(x: np.ndarray, sigma: float) -> np.ndarray:
        return np.exp(-0.5 * np.square(x / sigma)) / sigma

    for measured, sigma in ((1.03, 0.02), (1.07, 0.04), (0.9, 0.04), (1.07, 0.01)):
        seen = normal(logs - math.log(measured), math.hypot(sigma, 0.01))
        likely = seen * (normal(logs, 0.01) + normal(logs, 0.1))  # lenses as described, and others
        mean = np.average(logs, weights=likely)
        fit = a_fit(measured, sigma)
        assert math.log(fit.scale) == pytest.approx(mean, rel=1e-3)
        assert fit.scale_sigma == pytest.approx(math.sqrt(np.average(np.square(logs - mean), weights=likely)), rel=1e-3)


def test_scale_is_drawn_to_one_as_far_as_it_is_unsure() -> None:
    assert a_fit(1.02, 0.02).scale == pytest.approx(1.0, abs=0.008)
    assert a_fit(1.2, 0.01).scale == pytest.approx(1.2, rel=0.005)
    assert a_fit(1 / 1.07, 0.03).scale == pytest.approx(1 / a_fit(1.07, 0.03).scale)
    assert a_fit(1.5, 10.0).scale == pytest.approx(1.0, abs=1e-4)
    assert unfitted().scale == 1.0 and unfitted().scale_sigma == 0.1 and unfitted().report() is None
    assert unfitted(sigma=0.02).scale_sigma == 0.02 and unfitted(sigma=0.0).scale_sigma == 0.0
    assert unfitted().depth_sigma == 0.1 and unfitted(sigma=0.02).depth_sigma == 0.02
    variance = (2 * 0.01) ** 2 + 0.01**2
    assert a_fit(1.05, 0.01).depth_sigma == pytest.approx(math.sqrt(variance / (1.0 + variance / 0.1**2)))
    assert a_fit(1.2, 0.01).depth_sigma == a_fit(1.2, 0.01).scale_sigma
    assert dataclasses.replace(a_fit(2.0, 0.04), at_limit=True).scale_sigma > 0.1
    report = a_fit(1.07, 0.04).report()
    assert report is not None and (report["measured"], report["sigma"]) == (1.07, 0.04)


def test_a_fit_that_contradicts_the_description_is_unsure() -> None:
    fit = a_fit(2.0, 0.04)
    variance = 0.04**2 + 0.01**2
    own = math.sqrt(1.0 / (1.0 / variance + 1.0 / 0.1**2))
    assert fit.scale_sigma == pytest.approx(own * math.log(2.0) / math.sqrt(variance + 0.1**2))
    assert fit.scale_sigma > 1.5 * math.log(fit.measured / fit.scale)


def test_scale_has_no_step_where_a_fit_becomes_significant() -> None:
    scales = [a_fit(1.0 + 0.001 * step, 0.02).scale for step in range(100)]
    assert min(np.diff(scales)) > 0.0 and max(np.diff(scales)) < 0.002


def test_combined_fits_weigh_by_precision() -> None:
    both = combined([a_fit(1.2, 0.01), a_fit(1.0, 0.02)])
    assert math.log(both.measured) == pytest.approx(0.8 * math.log(1.2))
    assert both.sigma == 0.01
    nothing = combined([])
    assert nothing.scale == 1.0 and math.isinf(nothing.sigma)


def test_a_live_camera_is_fitted_rarely() -> None:
    camera = Camera(5e-3, 2.0, 5e-6)
    tracker = ApertureTracker(most_fits=4)
    fitted = []

    def fit(_: float | None) -> ApertureFit:
        fitted.append(stack)
        return a_fit(1.2, 0.01)

    for stack in range(1, 40):
        unknown = float("nan") * stack  # a camera without camera_info, made afresh for every stack
        same = dataclasses.replace(camera, fx_px=unknown, cx_px=unknown)
        assert tracker.fit(same, fit).measured == pytest.approx(1.2)
    assert fitted == [1, 4, 16, 32]
    other = dataclasses.replace(camera, f_number=4.0)
    assert tracker.fit(other, lambda _: None).scale == 1.0


def test_stacks_without_texture_do_not_end_fitting() -> None:
    tracker, tried = ApertureTracker(most_fits=4), []

    def fit(_: float | None) -> ApertureFit | None:
        tried.append(stack)
        return a_fit(1.2, 0.01) if stack >= 64 else None

    for stack in range(1, 600):
        found = tracker.fit(Camera(5e-3, 2.0, 5e-6), fit)
        assert found.measured == pytest.approx(1.2 if stack >= 64 else 1.0)
    assert tried == [1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 112]


def test_fits_at_their_limit_do_not_end_fitting() -> None:
    tracker, camera = ApertureTracker(most_fits=4), Camera(5e-3, 2.0, 5e-6)
    at_limit = dataclasses.replace(a_fit(3.3, 0.01), at_limit=True)
    assert [tracker.fit(camera, lambda _: at_limit).at_limit for _ in range(9)] == [True] * 9
    for _ in range(7):
        found = tracker.fit(camera, lambda _: a_fit(1.2, 0.01))
    assert found.measured == pytest.approx(1.2) and not found.at_limit


def test_estimators_of_live_cameras_keep_the_fit(demo_stack: FocalStack) -> None:
    config = Config.from_dict({"network": {"name": "none"}, "processing": {"device": "cpu", "max_megapixels": 0.01}})
    estimator = DepthEstimator(config, one_camera=True)
    wrong = told(demo_stack, 1.2)
    shares = [estimator.estimate(wrong, sharpen=False).report["aperture"]["measured"] for _ in range(3)]
    assert shares[0] == pytest.approx(1.2, rel=0.06)
    assert shares[2] == pytest.approx(shares[1])

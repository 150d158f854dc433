"""From a focal stack to depth: rendered scenes of known depth, and what must not become depth."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dfs_ros.config import Config
from dfs_ros.cost_volume import chosen_device, cuda
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.optics import thin_lens
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera, DepthResult, FocalStack, reduced

CAMERA = Camera(0.008, 1.4, 6e-6)  # 7.6 px of blur a dioptre
FOCUS = (2.2, 1.7, 1.3, 0.9, 0.5)


def config_of(**sections: dict[str, Any]) -> Config:
    """No network, few hypotheses; `sections` on top."""
    base = Config.from_dict({"network": {"name": "none"}, "hypotheses": {"count": 48, "max_depth_m": 5.0}})
    return base.updated(sections)


def plane_stack(depth_m: float, width: int = 128, height: int = 96, seed: int = 3, **settings: Any) -> FocalStack:
    scene = plane_scene(depth_m, width, height, seed=seed)
    return render_stack(scene.rgb, scene.depth_m, CAMERA, FOCUS, rng=1, **settings)


def errors(result: DepthResult, depth_m: float) -> NDArray[np.float32]:
    """Relative errors where there is depth."""
    return np.abs(result.depth_m[np.isfinite(result.depth_m)] / depth_m - 1)


@pytest.mark.parametrize("depth_m", [0.5, 0.68, 0.8, 1.3, 1.9])
def test_planes_come_out_at_their_depth(depth_m: float) -> None:
    """At focus positions and between them."""
    result = DepthEstimator(config_of()).estimate(plane_stack(depth_m))
    assert result.coverage > 0.9
    assert np.nanmedian(result.depth_m) == pytest.approx(depth_m, rel=0.015)
    assert np.percentile(errors(result, depth_m), 95) < 0.035
    assert result.report["warnings"] == []


def test_two_planes_meet_where_they_meet() -> None:
    scene = plane_scene(1.0, 160, 96, seed=5)
    depth = np.where(np.arange(160) < 80, 0.55, 1.4) * np.ones((96, 1))
    stack = render_stack(scene.rgb, depth, CAMERA, FOCUS, rng=1)
    found = DepthEstimator(config_of()).estimate(stack).depth_m
    np.testing.assert_allclose(np.nanmedian(found[:, :74]), 0.55, rtol=0.02)
    np.testing.assert_allclose(np.nanmedian(found[:, 86:]), 1.4, rtol=0.02)
    nearer = np.nanmedian(found, axis=0) < 0.85
    assert abs(int(nearer.sum()) - 80) <= 4  # blur of the near side reaches 4 px over the far side
    assert nearer[:74].all() and not nearer[86:].any()


def test_the_shipped_network_finds_the_plane_too() -> None:
    result = DepthEstimator(Config.from_dict({"hypotheses": {"count": 48, "max_depth_m": 5.0}})).estimate(
        plane_stack(0.8)
    )
    assert result.coverage > 0.8
    assert np.nanmedian(result.depth_m) == pytest.approx(0.8, rel=0.03)
    assert result.report["ran_on"]["network"].startswith("light, torch on ")


def test_grey_images_do() -> None:
    stack = plane_stack(0.8)
    grey = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in stack.images])
    result = DepthEstimator(config_of()).estimate(dataclasses.replace(stack, images=grey))
    assert np.percentile(errors(result, 0.8), 95) < 0.03
    assert result.all_in_focus.shape == (96, 128, 3)
    assert (result.all_in_focus == result.all_in_focus[..., :1]).all()


@pytest.mark.parametrize("noise", [0.0, 0.004, 0.01])
def test_where_there_is_no_texture_there_is_no_depth(noise: float) -> None:
    wall = np.full((96, 128, 3), 140, np.uint8)
    stack = render_stack(wall, np.full((96, 128), 1.0), CAMERA, FOCUS, noise=noise, rng=2)
    result = DepthEstimator(config_of()).estimate(stack)
    assert np.isnan(result.depth_m).all() and np.isnan(result.sigma_m).all()
    assert result.coverage == 0
    assert result.all_in_focus.shape == (96, 128, 3)


def test_half_a_wall_has_half_the_depth() -> None:
    scene = plane_scene(1.0, 128, 96, seed=3)
    rgb = scene.rgb.copy()
    rgb[:, 64:] = 140
    result = DepthEstimator(config_of()).estimate(render_stack(rgb, scene.depth_m, CAMERA, FOCUS, rng=2))
    known = np.isfinite(result.depth_m)
    assert known[:, :56].mean() > 0.95 and known[:, 80:].mean() < 0.02


@pytest.mark.parametrize("textured", [True, False])
def test_dense_means_depth_everywhere(textured: bool) -> None:
    stack = plane_stack(0.8)
    if not textured:
        stack = dataclasses.replace(stack, images=np.full_like(stack.images, 140))
    result = DepthEstimator(config_of(confidence={"dense": True})).estimate(stack)
    near_m, far_m = (result.report["hypotheses_m"][end] for end in ("min", "max"))
    assert result.coverage == 1.0 and result.report["hypotheses"] == 48
    assert near_m * (1 - 1e-6) <= result.depth_m.min() and result.depth_m.max() <= far_m * (1 + 1e-6)
    assert np.isfinite(result.sigma_m).all() and (result.sigma_m > 0).all()
    both = DepthEstimator(config_of()).estimate(stack)
    np.testing.assert_array_equal(both.dense_depth_m, result.depth_m)
    np.testing.assert_array_equal(both.dense_sigma_m, result.sigma_m)
    assert both.coverage == DepthEstimator(config_of()).estimate(stack).coverage


def test_depth_and_sigma_are_known_together_and_sigma_grows_with_the_noise() -> None:
    sigmas = []
    for noise in (0.002, 0.02, 0.06):
        result = DepthEstimator(config_of()).estimate(plane_stack(1.1, noise=noise))
        known = np.isfinite(result.depth_m)
        np.testing.assert_array_equal(known, np.isfinite(result.sigma_m))
        assert np.isfinite(result.confidence).all() and result.confidence.min() >= 0 and result.confidence.max() <= 1
        assert (result.sigma_m[known] > 0).all()
        assert (np.abs(result.depth_m - 1.1)[known] < 2 * result.sigma_m[known]).mean() > 0.95
        sigmas.append(float(np.median(result.sigma_m[known])))
    assert sigmas[0] < 0.5 * sigmas[2] and sigmas == sorted(sigmas)


def test_sigma_holds_the_doubt_about_the_focus_of_nominal_stacks_and_none_of_exact_ones() -> None:
    exact = plane_stack(0.8)
    assert (exact.focus_sigma_diopters == 0).all()
    given = config_of(lens={"aperture": "given"})
    sure = DepthEstimator(given).estimate(exact)
    report = sure.report["sigma"]
    assert report["aperture"] == report["gain"] == report["offset"] == 0.0
    known = np.isfinite(sure.depth_m)
    relative = sure.sigma_m[known] / sure.depth_m[known]
    assert report["local"] == pytest.approx(float(np.median(relative)), rel=1e-4)

    nominal = dataclasses.replace(exact, focus_sigma_diopters=np.full(5, np.nan))
    unsure = DepthEstimator(given.updated({"lens": {"aperture_sigma": 0.05}})).estimate(nominal)
    np.testing.assert_array_equal(unsure.depth_m, sure.depth_m)
    calibrated = dataclasses.replace(nominal, camera=dataclasses.replace(nominal.camera, aperture_sigma=0.05))
    of_the_stack = DepthEstimator(config_of(lens={"aperture": "fitted"})).estimate(calibrated)
    np.testing.assert_array_equal(of_the_stack.sigma_m, unsure.sigma_m)
    diopters = 1.0 / sure.depth_m[known]
    added = (0.05 * (diopters - 1.32)) ** 2 + (0.05 * diopters) ** 2 + 0.1**2
    together = np.hypot(relative, np.sqrt(added) / diopters)
    np.testing.assert_allclose(unsure.sigma_m[known] / unsure.depth_m[known], together, rtol=1e-4)
    report = unsure.report["sigma"]
    assert (report["gain"], report["offset"]) == pytest.approx((0.05, 0.08), rel=0.02)
    lens = {"aperture": 0.05, "gain": 0.05, "offset_diopters": 0.1, "focus_diopters": 1.32}
    assert report["lens"] == pytest.approx(lens)


def test_the_sharp_image_is_sharper_than_any_of_the_stack() -> None:
    scene = plane_scene(0.57, 128, 96, seed=3)
    stack = render_stack(scene.rgb, scene.depth_m, CAMERA, [2.2, 1.3, 0.5], rng=1)  # 3 px of blur at least
    result = DepthEstimator(config_of()).estimate(stack)

    def difference(image: NDArray[np.uint8]) -> float:
        return float(np.abs(image[8:-8, 8:-8].astype(float) - scene.rgb[8:-8, 8:-8]).mean())

    assert difference(result.all_in_focus) < 0.8 * min(difference(image) for image in stack.images)


def test_without_sharpening_the_reference_image_stands_in() -> None:
    stack = plane_stack(0.8)
    result = DepthEstimator(config_of()).estimate(stack, sharpen=False, reference=1)
    np.testing.assert_array_equal(result.all_in_focus, stack.images[1])


def test_large_images_are_worked_on_reduced_and_come_out_large() -> None:
    scene = plane_scene(0.8, 256, 192, seed=3)
    camera = Camera(0.008, 1.4, 3e-6)  # pixels half as large: the same field of view
    stack = render_stack(scene.rgb, scene.depth_m, camera, FOCUS, rng=1)
    result = DepthEstimator(config_of(processing={"max_megapixels": 0.0123})).estimate(stack)
    assert result.depth_m.shape == result.sigma_m.shape == result.confidence.shape == (192, 256)
    assert result.all_in_focus.shape == (192, 256, 3)
    assert result.report["working_size_px"] == {"width": 128, "height": 96}
    assert np.percentile(errors(result, 0.8), 95) < 0.03
    np.testing.assert_allclose(intrinsics(result.camera, (192, 256)), intrinsics(camera, (192, 256)), rtol=1e-6)
    assert result.camera.pixel_pitch_m == pytest.approx(3e-6, rel=1e-6)


def test_reduced_keeps_blur_and_size_in_step() -> None:
    stack = plane_stack(0.8, 250, 130)
    assert reduced(stack, 1.0) is stack
    small = reduced(stack, 0.01)
    height, width = small.size
    assert height * width <= 0.01e6 * 1.01 and abs(width / height - 250 / 130) < 0.02
    before, after = thin_lens.coc_px(0.3, 1.3, stack.camera), thin_lens.coc_px(0.3, 1.3, small.camera)
    assert float(after / before) == pytest.approx(width / 250)


def test_a_frame_of_another_scene_is_left_out_and_told() -> None:
    stack = plane_stack(0.8)
    images = stack.images.copy()
    images[3] = plane_stack(0.8, seed=77).images[3][::-1]
    result = DepthEstimator(config_of()).estimate(dataclasses.replace(stack, images=images))
    assert result.report["alignment"]["kept"] == [0, 1, 2, 4]
    (warning,) = result.report["warnings"]
    assert warning.startswith("image 3 left out: ")
    assert np.percentile(errors(result, 0.8), 95) < 0.03


def test_frames_of_different_scenes_make_no_depth() -> None:
    stacks = [plane_stack(0.8, seed=seed) for seed in (11, 22)]
    images = np.stack([stacks[0].images[0], stacks[1].images[4]])
    mixed = FocalStack(images, np.array([FOCUS[0], FOCUS[4]]), CAMERA)
    with pytest.raises(ValueError, match="expected at least 2 of 2 frames to show the same scene"):
        DepthEstimator(config_of()).estimate(mixed)


BREATHING = Camera(0.025, 4.0, 20e-6)  # 7.8 px a dioptre; 4 % larger images at 2.2 than at 0.5 dioptres


def enlarged(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    return np.asarray(cv2.warpAffine(image, cv2.getRotationMatrix2D(centre, 0, scale), (width, height)), np.uint8)


@pytest.mark.parametrize("reference", [0, 4])
def test_depth_has_the_geometry_of_the_reference_frame(reference: int) -> None:
    scene = plane_scene(0.8, 192, 128, seed=3)
    stack = render_stack(scene.rgb, scene.depth_m, BREATHING, FOCUS, rng=1, breathing=True)
    stack = dataclasses.replace(stack, stamp_ns=1000 + np.arange(5))
    result = DepthEstimator(config_of()).estimate(stack, reference=reference)
    assert result.report["alignment"]["reference"] == reference and result.stamp_ns == 1000 + reference
    assert np.percentile(errors(result, 0.8), 95) < 0.03
    assert result.camera.reference_focus_diopters == FOCUS[reference]
    fx = 0.025 / 20e-6 * float(thin_lens.magnification(FOCUS[reference], BREATHING))
    assert result.camera.fx_px == pytest.approx(fx, rel=0.005)

    def difference(to: int) -> float:
        truth = enlarged(scene.rgb, float(thin_lens.magnification(FOCUS[to], BREATHING)))
        return float(np.abs(truth.astype(float) - result.all_in_focus)[12:-12, 12:-12].mean())

    assert difference(reference) < 0.6 * difference(4 - reference)


def test_the_order_of_the_frames_does_not_matter() -> None:
    stack = plane_stack(1.1)
    order = np.array([3, 0, 4, 2, 1])
    shuffled = FocalStack(
        stack.images[order], stack.focus_diopters[order], CAMERA, magnification=stack.magnification[order]
    )
    a, b = (DepthEstimator(config_of()).estimate(s) for s in (stack, shuffled))
    assert order[b.report["alignment"]["reference"]] == a.report["alignment"]["reference"]
    both = np.isfinite(a.depth_m) & np.isfinite(b.depth_m)
    assert (np.isfinite(a.depth_m) ^ np.isfinite(b.depth_m)).mean() < 0.005
    assert np.percentile(np.abs(a.depth_m[both] / b.depth_m[both] - 1), 99) < 1e-3


def test_the_same_again_gives_the_same_whatever_the_threads() -> None:
    stack = plane_stack(0.8)
    before = stack.images.copy()
    results = [DepthEstimator(config_of(processing={"threads": n})).estimate(stack) for n in (1, 1, 3)]
    for other in results[1:]:
        np.testing.assert_array_equal(other.depth_m, results[0].depth_m)
        np.testing.assert_array_equal(other.sigma_m, results[0].sigma_m)
        np.testing.assert_array_equal(other.all_in_focus, results[0].all_in_focus)
    np.testing.assert_array_equal(stack.images, before)


def test_the_alignment_of_the_stack_before_is_a_start() -> None:
    scene = plane_scene(0.8, 192, 128, seed=3)
    stack = render_stack(scene.rgb, scene.depth_m, BREATHING, FOCUS, rng=1, breathing=True)
    estimator = DepthEstimator(config_of())
    first = estimator.estimate(stack)
    second = estimator.estimate(stack, initial_alignment=first.alignment)
    assert len(first.alignment) == 5
    assert np.percentile(errors(second, 0.8), 95) < 0.03


def test_a_wider_aperture_than_said_is_made_up_for() -> None:
    stack = plane_stack(1.1)
    wrong = dataclasses.replace(stack, camera=dataclasses.replace(CAMERA, f_number=2 * CAMERA.f_number))
    result = DepthEstimator(config_of(lens={"aperture_scale": 2.0})).estimate(wrong)
    assert np.percentile(errors(result, 1.1), 95) < 0.03
    assert result.report["aperture"] is None and result.report["warnings"] == []
    fitted = DepthEstimator(config_of(confidence={"on_contradiction": "warn"})).estimate(wrong)
    assert fitted.report["aperture"]["measured"] == pytest.approx(2.0, rel=0.1)
    assert np.percentile(errors(fitted, 1.1), 50) < 0.05
    (finding,) = fitted.report["findings"]
    assert (finding["cause"], finding["contradiction"], finding["image"]) == ("aperture", True, None)
    assert fitted.report["warnings"] == [finding["text"]] and finding["text"].startswith("blur is about ")


def test_focus_in_wrong_units_gives_no_depth_until_mended() -> None:
    stack = plane_stack(1.1)
    wrong = dataclasses.replace(stack, focus_diopters=2.35 * stack.focus_diopters)
    refused = DepthEstimator(config_of()).estimate(wrong)
    (warning,) = refused.report["warnings"]
    assert refused.coverage == 0.0 and "the unit of the focus" in warning
    assert float(re.findall(r"lens.aperture_scale \((.*?);", warning)[0]) == pytest.approx(1 / 2.35, rel=0.05)
    mended = dataclasses.replace(wrong, focus_diopters=wrong.focus_diopters / 2.35)
    result = DepthEstimator(config_of()).estimate(mended)
    assert np.percentile(errors(result, 1.1), 95) < 0.03 and result.report["warnings"] == []


def test_a_contradiction_takes_the_depth_and_is_told() -> None:
    stack = plane_stack(1.1)
    wrong = dataclasses.replace(stack, focus_diopters=np.roll(stack.focus_diopters, 1))
    result = DepthEstimator(config_of()).estimate(wrong)
    assert result.coverage == 0.0 and np.isnan(result.sigma_m).all()
    (finding,), (warning,) = result.report["findings"], result.report["warnings"]
    assert (finding["contradiction"], warning) == (True, finding["text"])
    told = DepthEstimator(config_of(confidence={"on_contradiction": "warn"})).estimate(wrong)
    assert told.coverage > 0.5 and told.report["warnings"] == [warning]


def test_the_report_says_what_was_done() -> None:
    steps: list[tuple[str, float]] = []
    config = config_of()
    result = DepthEstimator(config).estimate(plane_stack(0.8), progress=lambda step, share: steps.append((step, share)))
    report = json.loads(json.dumps(result.report, allow_nan=False))
    assert report == result.report
    assert Config.from_dict(report["configuration"]) == config
    seconds = dict(report["seconds"])
    assert list(seconds) == [step for step, _ in steps] + ["total"]
    assert seconds.pop("total") == pytest.approx(sum(seconds.values())) and min(seconds.values()) >= 0
    assert [share for _, share in steps] == sorted({share for _, share in steps}) and steps[0][1] == 0.0
    assert report["images"] == 5 and report["ran_on"]["network"] == "none"


@pytest.mark.parametrize("count", [2, 3])
def test_few_hypotheses_are_enough_to_run(count: int) -> None:
    result = DepthEstimator(config_of(hypotheses={"count": count, "min_depth_m": 0.4})).estimate(plane_stack(0.8))
    known = result.depth_m[np.isfinite(result.depth_m)]
    assert ((known >= 0.399) & (known <= 5.001)).all()


def test_what_cannot_be_is_told_before_any_work() -> None:
    with pytest.raises(FileNotFoundError, match="network 'lihgt': unknown model; known: light"):
        DepthEstimator(Config.from_dict({"network": {"name": "lihgt"}}))
    with pytest.raises(ValueError, match=r"this sweep can tell depths of 0\.234 to 1e\+03 m; .* received 0 and 0\.2"):
        DepthEstimator(config_of(hypotheses={"max_depth_m": 0.2})).estimate(plane_stack(0.8))
    for reference in (5, -1):
        with pytest.raises(ValueError, match=f"reference: expected the index of one of 5 frames, .* {reference}"):
            DepthEstimator(config_of()).estimate(plane_stack(0.8), reference=reference)


def test_cuda_is_used_or_refused_before_any_work() -> None:
    config = config_of(processing={"device": "cuda"})
    if cuda.why_not() is not None:
        with pytest.raises(ValueError, match=r"device cuda: it cannot be used: .*; use the device cpu or auto"):
            DepthEstimator(config)
        assert chosen_device("auto") == chosen_device("cpu") == "cpu"
        return
    on_gpu = DepthEstimator(config).estimate(plane_stack(0.8))
    on_cpu = DepthEstimator(config_of(processing={"device": "cpu"})).estimate(plane_stack(0.8))
    assert on_gpu.report["ran_on"]["cost volume"] == "cuda"
    assert np.percentile(errors(on_gpu, 0.8), 95) < 0.03
    assert np.nanpercentile(np.abs(on_gpu.depth_m / on_cpu.depth_m - 1), 99) < 1e-3


def test_infinity_in_the_sweep() -> None:
    """Focus at infinity is the plain number 0."""
    scene = plane_scene(3.0, 128, 96, seed=3)
    camera = Camera(0.015, 1.4, 6e-6)
    stack = render_stack(scene.rgb, scene.depth_m, camera, [1.0, 0.6, 0.3, 0.0], rng=1)
    result = DepthEstimator(config_of(hypotheses={"max_depth_m": 100.0})).estimate(stack)
    assert np.nanmedian(result.depth_m) == pytest.approx(3.0, rel=0.03)
    assert not math.isinf(float(np.nanmax(result.depth_m)))


def test_sliding_stacks_use_the_spectra_of_kept_frames_again() -> None:
    stack = dataclasses.replace(plane_stack(0.9), stamp_ns=np.arange(1, 6))
    settings = {"stack": {"mode": "sliding"}, "alignment": {"mode": "off"}, "network": {"name": "none"}}
    estimator = DepthEstimator(Config.from_dict(settings))
    estimator.estimate(stack, sharpen=False)
    newer = dataclasses.replace(stack, images=np.concatenate([stack.images[1:], stack.images[:1] // 2]))
    newer = dataclasses.replace(newer, focus_diopters=np.roll(stack.focus_diopters, -1), stamp_ns=np.arange(2, 7))
    cache = estimator._cpu.spectra
    assert cache is not None and (cache.hits, cache.misses) == (0, len(stack))
    slid = estimator.estimate(newer, sharpen=False)
    assert (cache.hits, cache.misses) == (len(stack) - 1, len(stack) + 1)
    alone = DepthEstimator(Config.from_dict({**settings, "stack": {"mode": "sweep"}})).estimate(newer, sharpen=False)
    np.testing.assert_array_equal(slid.depth_m, alone.depth_m)

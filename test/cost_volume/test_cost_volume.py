"""Cost volumes: against the DDFS authors' own numbers, fast against reference, and depth against a rendered truth."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from cost_volume_rig import CAMERA, FOCUS_DIOPTERS, GOLDEN, METHODS, plane_stack, random_stack, relative_error, texture
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import (
    SpectraCache,
    all_in_focus,
    bound_and_scale,
    cost_volume,
    cost_volume_from_config,
)
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.cost_volume.problem import make_problem
from dfs_ros.cost_volume.reference import joint_sharp_image, table_psf
from dfs_ros.cost_volume.spectra import stack_spectra
from dfs_ros.optics import thin_lens
from dfs_ros.optics.srgb import encode_linear, linear_table
from dfs_ros.types import Camera, FocalStack

# --- the authors' numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", ["defocusnet", "nyu"])
def test_released_reproduces_the_authors_volume(name: str, backend: str) -> None:
    path = GOLDEN / f"ddfs_released_{name}_camera.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there: the authors' volumes are not part of this repository")
    with np.load(path) as golden:
        camera = Camera(*(float(golden[k]) for k in ("focal_length_m", "f_number", "pixel_pitch_m")))
        stack = FocalStack(golden["images"], 1 / golden["focus_distances_m"], camera)
        cost = CostConfig(method="released", max_coc_px=float(golden["max_coc_px"]), eps=float(golden["balance"]))
        volume = cost_volume_from_config(stack, golden["depth_samples_m"], cost, backend=backend)
        assert volume.dtype == np.float32
        assert relative_error(volume, golden["cost"]) < 2e-5
        # The comparison must see what it is there to see: a flipped image, the paper's 2-D window, another disk.
        assert relative_error(volume[:, ::-1], golden["cost"]) > 0.1
        paper = cost_volume_from_config(stack, golden["depth_samples_m"], CostConfig("paper", max_coc_px=10.0))
        assert relative_error(paper, golden["cost"]) > 0.01


def test_relative_error_rejects_wrong_answers() -> None:
    expected = np.linspace(1, 2, 60).reshape(3, 4, 5)
    assert relative_error(expected, expected) == 0
    assert relative_error(expected * 1.001, expected) == pytest.approx(1e-3)
    assert relative_error(np.where(expected < 2, expected, np.nan), expected) == math.inf
    assert relative_error(expected[:2], expected) == math.inf
    assert relative_error(expected.swapaxes(0, 1).reshape(3, 4, 5), expected) > 0.1


# --- fast path against reference ------------------------------------------------------------------------------------
# float32 against float64: 24 bits, and a few hundred additions in an FFT, leave about 1e-6 of the norm. Pixels that the
# hypothesis explains almost perfectly keep the absolute, not the relative precision: hence the norm.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("count", "shape"), [(2, (33, 47, 3)), (3, (48, 31, 3)), (5, (16, 90, 3)), (8, (40, 40)), (4, (51, 30))]
)
def test_cpu_equals_reference(method: str, count: int, shape: tuple[int, ...]) -> None:
    stack, depths = random_stack(count, shape), [0.4, 0.55, 1.3, 9.0]
    for extra in ({}, {"psf": "gaussian", "channels": "luma", "window_sigma_px": 2.7}):
        cost = CostConfig(method=method, max_coc_px=15.0, **extra)
        expected = cost_volume_from_config(stack, depths, cost, backend="reference")
        volume = cost_volume_from_config(stack, depths, cost)
        assert volume.shape == (4, *shape[:2])
        assert relative_error(volume, expected) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_cpu_equals_reference_for_a_lens_with_aberration(method: str) -> None:
    stack = random_stack(4, (40, 54, 3))
    aberrated = dataclasses.replace(stack, camera=dataclasses.replace(stack.camera, aberration=-0.6))
    for psf in ("disk", "table"):
        cost, depths = CostConfig(method=method, psf=psf, max_coc_px=15.0), [0.4, 0.55, 1.3, 9.0]
        expected = cost_volume_from_config(aberrated, depths, cost, backend="reference")
        assert relative_error(cost_volume_from_config(aberrated, depths, cost), expected) < 1e-5
        changed = relative_error(expected, cost_volume_from_config(stack, depths, cost, backend="reference"))
        assert (changed > 1e-3) == (psf == "disk"), "only the analytic disk has an aberration"


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    psf=st.sampled_from(["auto", "disk", "table", "gaussian"]),
    padding_px=st.sampled_from([-1, 0, 1, 40]),
    transfer_curve=st.sampled_from(["auto", "srgb", "linear"]),
    channels=st.sampled_from(["rgb", "luma"]),
    eps=st.sampled_from([0.0, 0.003, 0.1]),
    height=st.integers(16, 40),
    width=st.integers(16, 40),
    max_coc_px=st.floats(1.0, 60.0),
)
def test_cpu_equals_reference_for_any_settings(height: int, width: int, **settings: Any) -> None:
    stack, cost = random_stack(3, (height, width, 3), seed=height), CostConfig(**settings)
    expected = cost_volume_from_config(stack, [0.35, 2.0], cost, backend="reference")
    assert relative_error(cost_volume_from_config(stack, [0.35, 2.0], cost), expected) < 3e-5


@pytest.mark.parametrize("method", METHODS)
def test_strided_images_and_any_number_of_threads_give_the_same(method: str) -> None:
    stack = random_stack(4, (40, 54, 3))
    wide = np.zeros((8, 80, 108, 3), np.uint8)
    wide[::2, ::2, ::2] = stack.images
    strided = FocalStack(wide[::2, ::2, ::2], stack.focus_diopters, stack.camera)
    assert not strided.images.flags.c_contiguous
    expected = cost_volume(stack, [0.5, 0.7, 1.0], method)
    np.testing.assert_array_equal(cost_volume(strided, [0.5, 0.7, 1.0], method), expected)
    for threads in (1, 3, 7):
        again = cost_volume_from_config(stack, [0.5, 0.7, 1.0], CostConfig(method=method), threads=threads)
        np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("method", METHODS)
def test_order_of_images_and_of_hypotheses_does_not_matter(method: str) -> None:
    stack, depths, order = random_stack(4, (32, 38, 3)), np.array([0.4, 0.8, 3.0]), [2, 0, 3, 1]
    shuffled = FocalStack(stack.images[order], stack.focus_diopters[order], stack.camera)
    volume = cost_volume(stack, depths, method)
    assert relative_error(cost_volume(shuffled, depths[::-1], method)[::-1], volume) < 1e-6


def test_kept_spectra_give_the_same_volume_and_are_used() -> None:
    stack, depths = random_stack(6, (30, 44, 3)), [0.5, 1.5]
    one = stack_spectra(make_problem(stack, depths, CostConfig()))[0].nbytes
    cache = SpectraCache(5 * one + 1)
    for first in (0, 1, 2):
        window = FocalStack(stack.images[first : first + 4], stack.focus_diopters[first : first + 4], stack.camera)
        keys = list(range(first, first + 4))
        volume = cost_volume_from_config(window, depths, CostConfig(), spectra_cache=cache, frame_keys=keys)
        np.testing.assert_array_equal(volume, cost_volume(window, depths))
    assert (cache.misses, cache.hits) == (6, 6)
    # Other settings are other spectra, and an old frame had to go.
    other = "rgb" if CostConfig().resolved().channels == "luma" else "luma"
    cost_volume_from_config(window, depths, CostConfig(channels=other), spectra_cache=cache, frame_keys=keys)
    assert (cache.misses, cache.hits) == (10, 6)
    assert 0 < cache.bytes <= 5 * one + 1
    cache.clear()
    assert cache.bytes == 0
    with pytest.raises(ValueError, match="frame_keys: expected one for each of the 4 images, received 1"):
        cost_volume_from_config(window, depths, CostConfig(), spectra_cache=cache, frame_keys=[1])


# --- depth against truth --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth_m", [0.55, 0.9, 1.5, 3.2])
def test_residual_is_lowest_at_the_depth_of_a_rendered_plane(depth_m: float) -> None:
    hypotheses = depth_hypotheses(0.4, 8.0, 40)
    volume = cost_volume(plane_stack(depth_m), hypotheses)
    step = 1 / hypotheses[0] - 1 / hypotheses[1]
    error = np.abs(1 / hypotheses[volume.argmin(axis=0)] - 1 / depth_m) / step
    assert np.median(error) < 1.0
    assert (error < 2.0).mean() > 0.9
    assert np.abs(1 / hypotheses[volume.mean(axis=(1, 2)).argmin()] - 1 / depth_m) < 0.75 * step


@pytest.mark.parametrize("method", ["released", "paper"])
def test_wiener_volumes_are_lowest_on_average_at_the_depth_of_a_rendered_plane(method: str) -> None:
    hypotheses = depth_hypotheses(0.4, 8.0, 40)
    volume = cost_volume(plane_stack(0.9), hypotheses, method, max_coc_px=20)[:, 8:-8, 8:-8]
    lowest = hypotheses[volume.mean(axis=(1, 2)).argmin()]
    assert abs(1 / lowest - 1 / 0.9) < 0.15


@hypothesis_settings(max_examples=8, deadline=None)
@given(factor=st.floats(0.3, 9.0), method=st.sampled_from(METHODS))
def test_scale_ambiguity(factor: float, method: str) -> None:
    """(d, d_f, f, p) -> (s d, s d_f, s f, s p) leaves the images and so the volume unchanged."""
    stack, depths = random_stack(3, (24, 30, 3)), np.array([0.4, 0.9, 4.0])
    scaled = FocalStack(
        stack.images,
        stack.focus_diopters / factor,
        Camera(CAMERA.focal_length_m * factor, CAMERA.f_number, CAMERA.pixel_pitch_m * factor),
    )
    assert relative_error(cost_volume(scaled, depths * factor, method), cost_volume(stack, depths, method)) < 1e-4


def test_blur_scale_enlarges_the_blur() -> None:
    """An image enlarged by s has s times the blur: the same as a lens with 1 / s of the f-number, frame by frame."""
    stack = random_stack(3, (24, 30, 3))
    enlarged = FocalStack(stack.images, stack.focus_diopters, stack.camera, blur_scale=np.full(3, 1.25))
    wider = FocalStack(stack.images, stack.focus_diopters, Camera(0.015, 2.8 / 1.25, 11.2e-6))
    expected = cost_volume(wider, [0.5, 2.0])
    assert relative_error(cost_volume(enlarged, [0.5, 2.0]), expected) < 1e-6
    assert relative_error(cost_volume(stack, [0.5, 2.0]), expected) > 1e-3


def test_static_blur_is_enlarged_with_the_image() -> None:
    """In focus, an image enlarged by 1.02 beside one that is not has sqrt(16 * 0.39 (1.02^2 - 1)) px of blur."""
    stack = random_stack(3, (24, 30, 3))
    enlarged = dataclasses.replace(stack, blur_scale=np.array([1.02, 1.0, 1.01]))
    focus = float(stack.focus_diopters[0])
    found = make_problem(enlarged, [1.0 / focus], CostConfig()).coc_px[0]
    assert found[0] == pytest.approx(math.sqrt(16 * 0.39 * (1.02**2 - 1)), rel=1e-9)
    defocus = make_problem(stack, [1.0 / focus], CostConfig()).coc_px[0]
    assert found[1] == defocus[1]
    assert found[2] == pytest.approx(math.sqrt((1.01 * defocus[2]) ** 2 + 16 * 0.39 * (1.01**2 - 1)), rel=1e-9)


def test_blur_is_clamped() -> None:
    stack = random_stack(3, (24, 30, 3))
    unclamped, clamped = cost_volume(stack, [0.1], max_coc_px=40), cost_volume(stack, [0.1], max_coc_px=3)
    assert relative_error(clamped, unclamped) > 0.01
    assert make_problem(stack, [0.1], CostConfig(max_coc_px=3.0)).coc_px.max() == 3.0


# --- the parts ------------------------------------------------------------------------------------------------------


def test_tabulated_disk() -> None:
    assert table_psf(0.99).tolist() == [[1.0]]
    np.testing.assert_allclose(table_psf(6.0), thin_lens.disk_psf(6.0, len(table_psf(6.0))), atol=1e-12)
    halfway = table_psf(6.1)
    size = len(halfway)
    np.testing.assert_allclose(halfway, (thin_lens.disk_psf(6.0, size) + thin_lens.disk_psf(6.2, size)) / 2, atol=1e-12)
    for diameter in (1.0, 3.14, 19.95, 40.0):
        assert table_psf(diameter).sum() == pytest.approx(1.0)


def test_srgb_curve_round_trip_and_known_value() -> None:
    levels = np.arange(256, dtype=np.uint8)
    for curve in ("srgb", "linear"):
        np.testing.assert_array_equal(encode_linear(linear_table(curve)[levels], curve), levels)
    assert linear_table("srgb")[128] == pytest.approx(0.2158605)
    assert encode_linear([-1.0, 2.0], "srgb").tolist() == [0, 255]


def test_all_in_focus_is_the_sharp_image() -> None:
    stack, margin = plane_stack(0.9), 24
    truth = encode_linear(texture(72 + 2 * margin, 90 + 2 * margin)[margin:-margin, margin:-margin], "srgb").astype(
        float
    )
    depth = np.full(stack.size, 0.9)
    depth[:20] = np.nan  # borrowed from below
    sharp = all_in_focus(stack, depth)
    assert sharp.shape == (72, 90, 3) and sharp.dtype == np.uint8

    def error(image: NDArray[np.uint8]) -> float:
        return float(np.sqrt(((image - truth)[8:-8, 8:-8] ** 2).mean()))

    assert error(sharp) < 0.7 * min(error(image) for image in stack.images)
    exact = joint_sharp_image(
        make_problem(stack, [0.9], CostConfig(channels="rgb")), thin_lens.coc_px(1 / 0.9, FOCUS_DIOPTERS, CAMERA)
    )
    np.testing.assert_allclose(sharp, encode_linear(np.moveaxis(exact, 0, -1), "srgb"), atol=1)  # float32: a tie


def test_all_in_focus_follows_the_depth_of_each_pixel() -> None:
    near, far = plane_stack(0.55), plane_stack(3.2)
    images = near.images.copy()
    images[:, :, 45:] = far.images[:, :, 45:]
    depth = np.where(np.arange(90) < 45, 0.55, 3.2) * np.ones((72, 1))
    both = all_in_focus(FocalStack(images, FOCUS_DIOPTERS, CAMERA), depth).astype(float)
    for columns, stack, depth_m in ((slice(0, 20), near, 0.55), (slice(70, 90), far, 3.2)):
        alone = all_in_focus(stack, np.full(stack.size, depth_m)).astype(float)
        assert np.abs(both - alone)[:, columns].mean() < 2.0


def test_all_in_focus_of_grey_images_and_unknown_depth() -> None:
    grey = random_stack(3, (20, 26))
    image = all_in_focus(grey, np.full((20, 26), np.nan))
    assert image.shape == (20, 26, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    with pytest.raises(ValueError, match=r"depth_m: expected shape \(20, 26\)"):
        all_in_focus(grey, np.ones((26, 20)))
    with pytest.raises(ValueError, match="metres over 0 or NaN"):
        all_in_focus(grey, np.zeros((20, 26)))
    with pytest.raises(ValueError, match="count"):
        all_in_focus(grey, np.ones((20, 26)), count=0)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_noise_alone_prefers_no_hypothesis(count: int) -> None:
    """The residual volume of white noise is its variance, whatever the blur of the hypothesis."""
    rng = np.random.default_rng(1)
    images = np.clip(128 + 10 * rng.standard_normal((count, 120, 130)), 0, 255).round().astype(np.uint8)
    stack = FocalStack(images, np.linspace(2.0, 0.1, count), CAMERA)
    volume = cost_volume(stack, depth_hypotheses(0.4, 8.0, 12), transfer_curve="linear")
    variance = (100 + 1 / 12) / 255**2  # and that of rounding to 8 bits
    np.testing.assert_allclose(volume[:, 16:-16, 16:-16].mean(axis=(1, 2)), variance, rtol=0.04)


def test_bound_and_scale() -> None:
    volume = np.array([0.0, 0.15, 0.3, 3.0], np.float32).reshape(4, 1, 1) * np.ones((1, 2, 3), np.float32)
    scaled = bound_and_scale(volume)
    expected = np.tanh(12.66734 * np.array([0.0, 0.15, 0.3, 3.0]))
    np.testing.assert_allclose(scaled[:, 1, 2], expected / expected.max(), atol=1e-6)
    assert bound_and_scale(np.ones((3, 2, 2), np.float32)).max() == 0.0  # no hypothesis differs: no division by 0
    with pytest.raises(ValueError, match=r"volume: expected an array \(D, H, W\)"):
        bound_and_scale(np.zeros((2, 2), np.float32))


# --- the border -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths_m": []}, "depths_m: expected shape"),
        ({"depths_m": [[1.0]]}, "depths_m: expected shape"),
        ({"depths_m": [1.0, math.nan]}, "depths_m: expected finite metres over 0, received nan"),
        ({"depths_m": [1.0, math.inf]}, "received inf; for a far limit"),
        ({"depths_m": [0.0, 1.0]}, "depths_m: expected finite metres over 0, received 0"),
        ({"depths_m": [1.0, 3.0, 2.0]}, "strictly ascending or strictly descending"),
        ({"depths_m": [1.0, 1.0]}, "strictly ascending"),
        ({"method": "wiener"}, "cost.method: expected one of released, paper, residual, received 'wiener'"),
        ({"device": "tpu"}, "device: expected one of"),
        ({"max_coc_px": 0.0}, "cost.max_coc_px: expected 1 to 200 px"),
        ({"psf": "square"}, "cost.psf: expected one of"),
        ({"sigma": 2.0}, "unexpected keyword argument 'sigma'; see dfs_ros.config.CostConfig"),
    ],
)
def test_wrong_input_says_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cost_volume(random_stack(2, (16, 16)), **{"depths_m": [1.0], **arguments})


def test_wrong_types_say_what_is_wrong() -> None:
    stack = random_stack(2, (16, 16))
    with pytest.raises(TypeError, match="stack: expected a FocalStack, received ndarray"):
        cost_volume(stack.images, [1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="depths_m: expected numbers in metres"):
        cost_volume(stack, ["far"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="cost: expected a CostConfig, received dict"):
        cost_volume_from_config(stack, [1.0], {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend: expected one of auto, cpu, cuda, reference, received 'gpu'"):
        cost_volume_from_config(stack, [1.0], CostConfig(), backend="gpu")
    with pytest.raises(ValueError, match="most_bytes"):
        SpectraCache(0)


def test_methods_own_settings() -> None:
    """`auto`, 0 and -1 become the method's own; what is set stays, 0 px of padding included."""
    for method in METHODS:
        resolved = CostConfig(method=method).resolved()
        assert "auto" not in vars(resolved).values()
        assert resolved.eps > 0 and resolved.window_sigma_px > 0 and resolved.padding_px >= 0
        assert resolved.resolved() == resolved
    assert CostConfig(padding_px=0).resolved().padding_px == 0
    assert CostConfig(channels="luma", eps=0.5).resolved().channels == "luma"


def test_residual_of_pure_noise_prefers_no_depth() -> None:
    # The camera of DDFS's NYU set: unnormalised, noise alone would favour depths near a focus by half the energy.
    rng = np.random.default_rng(5)
    images = np.clip(np.rint(128 + rng.standard_normal((3, 96, 128, 3))), 0, 255).astype(np.uint8)
    stack = FocalStack(images, np.array([0.5, 0.25, 0.125]), Camera(15e-3, 2.8, 5.6e-6))
    mean_cost = cost_volume(stack, depth_hypotheses(0.31, 10.0, 32)).mean(axis=(1, 2))
    assert mean_cost.max() / mean_cost.min() < 1.06

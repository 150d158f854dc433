"""The renderer against closed forms and against a ray-traced lens."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation_rig import CAMERA, depth_for_coc, flat

from dfs_ros.optics import thin_lens
from dfs_ros.simulation import surfaces, textures
from dfs_ros.simulation.render import (
    blur_psf,
    decode,
    encode,
    encode_uint8,
    layer_knots,
    layer_shares,
    reduce_image,
    render_stack,
)
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera

# ---- blur ----


@pytest.mark.parametrize("diameter", [3.0, 7.0, 12.5, 20.0])
def test_defocused_point_becomes_a_disk(diameter: float) -> None:
    point = np.zeros((48, 64, 3), np.float32)
    point[24, 32] = 0.7 * math.pi * diameter**2 / 4  # a disk of 70 % grey
    stack = render_stack(
        point, flat(depth_for_coc(diameter, 2.0)), CAMERA, [2.0, 0.5], noise=0.0, transfer_curve="linear"
    )
    image = stack.images[0, :, :, 1] / 255.0
    y, x = np.indices(image.shape)
    radius = np.hypot(y - 24, x - 32)
    np.testing.assert_allclose(image[radius < diameter / 2 - 1.0], 0.7, rtol=1.6 / diameter**2 + 0.005)
    assert image[radius < diameter / 2 - 1.0].std() < 1e-6
    assert image[radius > diameter / 2 + 0.8].max() == 0
    assert image.sum() == pytest.approx(point[24, 32, 1], rel=0.02)
    assert (image * (x - 32)).sum() == pytest.approx(0, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, 40.0))
def test_psf_is_a_distribution_with_the_second_moment_of_the_disk(diameter: float) -> None:
    psf = blur_psf(diameter)
    assert psf.shape[0] == psf.shape[1] and psf.shape[0] % 2 == 1
    assert psf.min() >= 0 and psf.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(psf, psf.T, atol=1e-12)
    offset = np.arange(psf.shape[0]) - psf.shape[0] // 2
    variance = float((psf.sum(axis=0) * offset**2).sum())
    assert variance == pytest.approx(diameter**2 / 16, rel=5e-3, abs=1e-3)


def test_light_is_conserved() -> None:
    light = np.zeros((64, 64, 3), np.float32)
    light[24:40, 24:40] = np.random.default_rng(0).uniform(0, 1, (16, 16, 3)).astype(np.float32)
    stack = render_stack(
        light, flat(2.0, (64, 64)), CAMERA, [2.0, 1.2, 0.5], noise=0.0, transfer_curve="linear", oversampling=1
    )
    for image in stack.images:
        assert image.sum() / 255.0 == pytest.approx(light.sum(), rel=2e-3)


def test_plane_in_focus_is_the_photo_itself(texture: np.ndarray) -> None:
    stack = render_stack(texture, flat(0.5), CAMERA, [2.0, 1.2], noise=0.0)
    np.testing.assert_array_equal(stack.images[0], texture)
    assert np.abs(stack.images[1].astype(int) - texture).mean() > 5


def test_every_plane_of_a_scene_is_untouched_when_in_focus(texture: np.ndarray) -> None:
    depth = flat(2.0)
    depth[:, 32:] = 0.5
    depth[30:, :] = 1.0
    stack = render_stack(texture, depth, CAMERA, [0.5, 1.0, 2.0], noise=0.0)
    near_in_focus = depth == 0.5
    np.testing.assert_array_equal(stack.images[2][near_in_focus], texture[near_in_focus])
    far_from_edges = np.s_[0:10, 0:10]
    np.testing.assert_array_equal(stack.images[0][far_from_edges], texture[far_from_edges])


def test_blur_happens_in_linear_light() -> None:
    half = np.zeros((48, 64, 3), np.uint8)
    half[:, 32:] = 255
    image = render_stack(half, flat(depth_for_coc(9.0, 2.0)), CAMERA, [2.0, 0.5], noise=0.0).images[0, 24, :, 0]
    linear = decode(np.repeat(image[None, :, None], 3, axis=2))[0, :, 0]
    assert linear[31] + linear[32] == pytest.approx(1.0, abs=0.02)
    assert 188 < (int(image[31]) + int(image[32])) / 2 + 15 < 215  # a mean of values would be 127


def test_more_exact_blur_by_oversampling() -> None:
    """Against a lens that averages the disk within each pixel, at 8 times the resolution."""
    fine = plane_scene(1.0, 512, 384, seed=6).rgb
    focus = 2.0
    depth = depth_for_coc(2.0, focus)
    truth = reduced_truth(fine, 8, 2.0)

    def error(oversampling: int) -> float:
        scene = encode_uint8(reduce_image(decode(fine), 8 // oversampling))
        stack = render_stack(
            scene, np.full(scene.shape[:2], depth), CAMERA, [focus, 0.5], noise=0.0, oversampling=oversampling
        )
        assert stack.size == (48, 64)
        inside = np.s_[4:-4, 4:-4]
        return float(np.sqrt(np.mean((decode(stack.images[0]) - truth)[inside] ** 2)))

    assert error(2) < 0.004
    assert error(2) < 0.5 * error(1)


def reduced_truth(fine: np.ndarray, factor: int, diameter_px: float) -> np.ndarray:
    light = decode(fine)
    rho = np.hypot(np.fft.fftfreq(light.shape[0])[:, None], np.fft.rfftfreq(light.shape[1]))
    transfer = thin_lens.disk_transfer(diameter_px * factor, rho)[..., None]
    blurred = np.fft.irfft2(np.fft.rfft2(light, axes=(0, 1)) * transfer, light.shape[:2], axes=(0, 1))
    return reduce_image(blurred.astype(np.float32), factor)


# ---- occlusion ----


def card(background: np.ndarray, foreground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A card at 0.5 m before a wall at 2 m."""
    depth = flat(2.0, (64, 96))
    depth[16:48, 32:64] = 0.5
    rgb = background.copy()
    rgb[depth == 0.5] = foreground[depth == 0.5]
    return rgb, depth


@pytest.fixture(scope="module")
def four_textures() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(4)]


def test_background_takes_no_colour_of_a_sharp_foreground(four_textures: list[np.ndarray]) -> None:
    wall, card_1, card_2, _ = four_textures
    images = [
        render_stack(*card(wall, foreground), CAMERA, [2.0, 0.5], noise=0.0).images[0]
        for foreground in (card_1, card_2)
    ]
    is_wall = card(wall, card_1)[1] == 2.0
    np.testing.assert_array_equal(images[0][is_wall], images[1][is_wall])
    assert np.abs(images[0][is_wall].astype(int) - wall[is_wall]).mean() > 10  # and it is blurred


def test_foreground_takes_no_colour_of_the_background_away_from_its_edge(four_textures: list[np.ndarray]) -> None:
    wall_1, wall_2, foreground, _ = four_textures
    images = [
        render_stack(*card(wall, foreground), CAMERA, [0.5, 2.0], noise=0.0).images[0] for wall in (wall_1, wall_2)
    ]
    radius = math.ceil(float(thin_lens.coc_px(2.0, 0.5, CAMERA)) / 2) + 1
    inside = np.s_[16 + radius : 48 - radius, 32 + radius : 64 - radius]
    assert images[0][inside].size > 0
    np.testing.assert_array_equal(images[0][inside], images[1][inside])
    edge = np.s_[16:48, 32:34]
    assert np.abs(images[0][edge].astype(int) - images[1][edge]).mean() > 5  # at the edge it is translucent


def test_blurred_edge_of_the_foreground_is_half_transparent() -> None:
    black, white = np.zeros((64, 96, 3), np.uint8), np.full((64, 96, 3), 255, np.uint8)
    image = render_stack(*card(black, white), CAMERA, [0.5, 2.0], noise=0.0).images[0]
    row = decode(image)[32, :, 0]
    assert row[31] + row[32] == pytest.approx(1.0, abs=0.03)
    assert (np.diff(row[20:48]) >= -0.005).all()  # rises without a halo
    assert row[20] == 0 and row[44] == pytest.approx(1.0, abs=1e-3)


def test_what_the_foreground_hides_is_filled_plausibly() -> None:
    """A wall of one colour stays that colour behind a blurred card of the same colour: no dark rim."""
    grey = np.full((64, 96, 3), 150, np.uint8)
    stack = render_stack(*card(grey, grey), CAMERA, [0.5, 1.0, 2.0], noise=0.0)
    assert np.ptp(stack.images) == 0 and stack.images[0, 0, 0, 0] == 150


def traced_image(
    parts: list[surfaces.Surface], camera: Camera, focus: float, width: int, height: int, rays: int
) -> np.ndarray:
    """What a thin lens sees, by tracing rays from points of its aperture through the plane in focus: linear light."""
    fx = camera.focal_length_m / ((1 - camera.focal_length_m * focus) * camera.pixel_pitch_m)
    aperture_radius = camera.focal_length_m / camera.f_number / 2
    rng = np.random.default_rng(0)
    total = np.zeros((height * width, 3))
    for i in range(rays):
        radius, angle = aperture_radius * math.sqrt((i + 0.5) / rays), i * math.pi * (3 - math.sqrt(5))
        origin = np.array([radius * math.cos(angle), radius * math.sin(angle), 0.0])
        directions = surfaces.pinhole_rays(width, height, fx, *rng.uniform(-0.5, 0.5, 2)) - origin * focus
        depth, index = surfaces.nearest_surface(parts, origin, directions)
        for k in np.unique(index):
            seen = index == k
            total[seen] += parts[k].shade(origin + depth[seen, None] * directions[seen], depth[seen] / fx / 2)
    return (total / rays).reshape(height, width, 3)


@pytest.mark.parametrize("focus", [1 / 0.8, 1 / 2.5])
def test_agrees_with_a_ray_traced_lens_at_occluding_edges(focus: float) -> None:
    rng = np.random.default_rng(3)
    wall = surfaces.Material(textures.clouds(rng), 3.0)
    near = surfaces.Material(textures.blobs(rng), 1.0)
    parts: list[surfaces.Surface] = [
        surfaces.Rectangle((0, 0, 2.5), (4, 0, 0), (0, 4, 0), wall),
        surfaces.Rectangle((-0.06, 0.0, 0.8), (0.06, 0, 0), (0, 0.07, 0), near),
        surfaces.Sphere((0.12, 0.0, 1.2), 0.06, near),
    ]
    camera = Camera(0.025, 1.4, 12.8e-3 / 160)
    fx = camera.focal_length_m / ((1 - camera.focal_length_m * focus) * camera.pixel_pitch_m)
    traced = traced_image(parts, camera, focus, 96, 72, 150)
    sharp = surfaces.cast(parts, 384, 288, 4 * fx, samples=1)
    stack = render_stack(sharp.rgb_linear, sharp.depth_m, camera, [focus, 0.1], noise=0.0, oversampling=4)

    def difference(light: np.ndarray) -> np.ndarray:
        inside = np.s_[4:-4, 4:-4]  # what lies outside the image is unknown to the renderer
        return np.abs(encode(light) - encode(traced.astype(np.float32))).max(axis=2)[inside]

    error, unblurred = difference(decode(stack.images[0])), difference(reduce_image(sharp.rgb_linear, 4))
    assert error.mean() < 0.006 and error.max() < 0.1
    assert error.mean() < 0.25 * unblurred.mean()
    other_lens = replace(camera, f_number=1.25 * camera.f_number)
    other = render_stack(sharp.rgb_linear, sharp.depth_m, other_lens, [focus, 0.1], noise=0.0, oversampling=4)
    assert difference(decode(other.images[0])).mean() > 1.3 * error.mean()


# ---- continuous surfaces ----


def slanted(shape: tuple[int, int] = (64, 96)) -> np.ndarray:
    return 1.0 / np.broadcast_to(np.linspace(2.4, 0.4, shape[1]), shape)


def test_slanted_plane_of_one_colour_shows_no_seams() -> None:
    grey = np.full((64, 96, 3), 133, np.uint8)
    stack = render_stack(grey, slanted(), CAMERA, [2.2, 1.3, 0.5], noise=0.0)
    assert np.ptp(stack.images) == 0


def test_slanted_plane_is_blurred_by_its_own_depth_everywhere() -> None:
    """Against spreading every pixel's light over its own disk, column by column, without any layers."""
    rgb = plane_scene(1.0, 96, 64, seed=9).rgb
    depth = slanted()
    light = decode(rgb)
    spread = np.zeros((64 + 40, 96 + 40, 3))
    weight = np.zeros((64 + 40, 96 + 40, 1))
    for x in range(96):
        psf = blur_psf(float(thin_lens.coc_px(1 / depth[0, x], 1.3, CAMERA)))
        half = psf.shape[0] // 2
        for dy in range(-half, half + 1):
            rows = slice(20 + dy, 20 + dy + 64)
            columns = slice(20 + x - half, 20 + x + half + 1)
            share = psf[half + dy][None, :, None]
            spread[rows, columns] += share * light[:, x : x + 1]
            weight[rows, columns] += share
    expected = (spread / np.maximum(weight, 1e-9))[20:-20, 20:-20]
    image = decode(render_stack(rgb, depth, CAMERA, [1.3, 0.3], noise=0.0).images[0])
    error = (image - expected)[10:-10, 10:-10]
    assert np.sqrt(np.mean(error**2)) < 0.004
    assert np.sqrt(np.mean((light - expected)[10:-10, 10:-10] ** 2)) > 0.02


def test_layers_lie_on_the_planes_of_the_scene_and_within_a_step() -> None:
    inverse_depth = np.array([[0.5, 0.5, 2.0], [1.0, 1.01, 1.02]])
    np.testing.assert_allclose(layer_knots(inverse_depth, 0.1, 64), [0.5, 1.0, 1.02, 2.0])
    ramp = np.linspace(0.4, 2.4, 1000)[None]
    knots = layer_knots(ramp, 0.1, 64)
    assert np.diff(knots).max() <= 0.1 and knots[0] == 0.4 and knots[-1] == 2.4
    farther, share = layer_shares(ramp, knots)
    nearer = np.minimum(farther + 1, len(knots) - 1)
    np.testing.assert_allclose(knots[farther] * (1 - share) + knots[nearer] * share, ramp, atol=1e-6)
    assert len(layer_knots(ramp, 1e-6, 20)) <= 22

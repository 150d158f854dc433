"""What the renderer adds, refuses and fills; the scenes against their own geometry."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation_rig import CAMERA, flat

from dfs_ros.simulation import surfaces, textures
from dfs_ros.simulation.render import (
    decode,
    encode_uint8,
    fill_depth_holes,
    render_stack,
)
from dfs_ros.simulation.scenes import DEMO_FOCUS_DIOPTERS, demo_scene, random_scene
from dfs_ros.types import Camera

# ---- noise, gain, motion, ambiguity ----


def test_seed_reproduces_and_another_seed_differs(texture: np.ndarray) -> None:
    first, again, other = (render_stack(texture, flat(1.0), CAMERA, [2.0, 0.5], rng=seed).images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.2


def test_noise_has_the_strength_and_the_space_it_is_asked_for() -> None:
    grey = np.full((128, 128, 3), 60, np.uint8)
    depth = flat(1.0, (128, 128))

    def spread(noise_space: str) -> float:
        stack = render_stack(grey, depth, CAMERA, [2.0, 0.5], noise=0.02, noise_space=noise_space)
        return float(stack.images.std() / 255.0)

    assert spread("srgb") == pytest.approx(0.02, rel=0.03)
    light = 60 / 255
    slope = 1.055 / 2.4 * (((light + 0.055) / 1.055) ** 2.4) ** (1 / 2.4 - 1)  # of the encoding, there
    assert spread("linear") == pytest.approx(0.02 * slope, rel=0.15)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.5, 9.0))
def test_scale_ambiguity(scale: float) -> None:
    """Depth, focus distance, focal length and pixel pitch times one factor: the same images (f-number as it is)."""
    scene = demo_scene(64, 48)
    scaled = Camera(CAMERA.focal_length_m * scale, CAMERA.f_number, CAMERA.pixel_pitch_m * scale)
    focus = np.array([2.0, 1.0, 0.4])
    one = render_stack(scene.rgb, scene.depth_m.astype(float), CAMERA, focus).images
    other = render_stack(scene.rgb, scene.depth_m.astype(float) * scale, scaled, focus / scale).images
    assert np.abs(one.astype(int) - other).max() <= 1


def test_breathing_scales_by_the_thin_lens_magnification() -> None:
    camera = Camera(0.05, 64.0, 12e-6, reference_focus_diopters=0.5)
    dots = np.zeros((97, 129, 3), np.float32)
    dots[[28, 68], [24, 104]] = 10.0  # 40 px left and right of the centre, 20 px above and below
    stack = render_stack(
        dots, flat(2.0, (97, 129)), camera, [0.5, 2.0, 0.0], breathing=True, noise=0.0, transfer_curve="linear"
    )
    assert np.isnan(stack.magnification).all()
    reference = 1 - 0.05 * 0.5
    for image, focus in zip(stack.images[..., 0].astype(float), stack.focus_diopters, strict=True):
        left, right = np.split(image[:, :128], 2, axis=1)
        x_left = (left.sum(axis=0) * np.arange(64)).sum() / left.sum() - 64
        x_right = (right.sum(axis=0) * np.arange(64)).sum() / right.sum()
        assert x_right - x_left == pytest.approx(80 * reference / (1 - 0.05 * focus), abs=0.1)
    still = render_stack(dots, flat(2.0, (97, 129)), camera, [0.5, 2.0], noise=0.0)
    np.testing.assert_array_equal(still.magnification, 1.0)


def test_shift_and_gain_of_single_images(texture: np.ndarray) -> None:
    stack = render_stack(texture, flat(0.5), CAMERA, [2.0, 1.0], noise=0.0, shift_px=[[3, -2], [0, 0]], gain=[0.5, 1.0])
    moved = decode(stack.images[0])[4:40, 8:56]
    np.testing.assert_allclose(moved, 0.5 * decode(texture)[6:42, 5:53], atol=0.004)


# ---- depth holes ----


def test_hole_beside_a_near_object_becomes_background() -> None:
    depth = flat(3.0, (20, 40))
    depth[:, 10:20] = 1.0
    depth[:, 20:26] = 0.0  # the shadow of a depth camera
    depth[:, 0:2] = np.nan
    filled = fill_depth_holes(depth)
    np.testing.assert_array_equal(filled[:, 20:26], 3.0)
    np.testing.assert_array_equal(filled[:, 0:2], 3.0)
    np.testing.assert_array_equal(filled[:, 10:20], 1.0)


def test_empty_rows_and_single_wrong_pixels_do_not_spoil_the_filling() -> None:
    depth = flat(2.0, (20, 40))
    depth[8:12] = 0.0
    depth[15, 0:10] = 0.0
    depth[15, 10] = 60.0
    filled = fill_depth_holes(depth)
    np.testing.assert_array_equal(filled[8:12], 2.0)
    np.testing.assert_array_equal(filled[15, 0:10], 2.0)
    with pytest.raises(ValueError, match="no pixel has a depth"):
        fill_depth_holes(flat(0.0))


# ---- what cannot be rendered ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth_m": flat(1.0, (48, 63))}, "expected an array of shape"),
        ({"rgb": np.zeros((48, 64), np.uint8)}, r"\(H, W, 3\)"),
        ({"rgb": np.full((48, 64, 3), -1.0, np.float32)}, "0 or more"),
        ({"oversampling": 5}, "divisor"),
        ({"gain": [1.0]}, "gain"),
        ({"shift_px": [[0, 0], [0, np.nan]]}, "shift_px"),
        ({"focus_diopters": [1.0]}, "at least 2"),
        ({"focus_diopters": [1.0, 500.0]}, "inside the focal length"),
    ],
)
def test_bad_input_is_refused(texture: np.ndarray, change: dict, message: str) -> None:
    good = {"rgb": texture, "depth_m": flat(1.0), "camera": CAMERA, "focus_diopters": [2.0, 0.5]}
    render_stack(**good)
    with pytest.raises(ValueError, match=message):
        render_stack(**{**good, **change})


def test_blur_wider_than_the_image_is_haze() -> None:
    bright = np.random.default_rng(0).integers(100, 250, (48, 64, 3), dtype=np.uint8)
    image = render_stack(bright, flat(0.01), CAMERA, [2.0, 0.5], noise=0.0).images[0]
    assert image.std(axis=(0, 1)).max() < 5
    assert decode(image).mean() == pytest.approx(decode(bright).mean(), rel=0.02)


def test_other_pixel_types_are_refused(texture: np.ndarray) -> None:
    with pytest.raises(TypeError, match="uint8"):
        render_stack(texture.astype(np.uint16), flat(1.0), CAMERA, [2.0, 0.5])


def test_decode_and_encode_are_inverse() -> None:
    every = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    for curve in ("srgb", "linear"):
        np.testing.assert_array_equal(encode_uint8(decode(every, curve), curve), every)
    assert decode(every)[188, 0, 0] == pytest.approx(0.5029, abs=1e-4)  # IEC 61966-2-1


# ---- scenes ----


def test_ray_caster_meets_surfaces_where_they_are() -> None:
    material = surfaces.Material(np.full((8, 8, 3), 200, np.uint8))
    wall = surfaces.Rectangle((0, 0, 4), (9, 0, 0), (0, 9, 0), material)
    floor = surfaces.Rectangle((0, 0.5, 2), (9, 0, 0), (0, 0, 2), material)
    ball = surfaces.Sphere((0, 0, 2), 0.25, material)
    pole = surfaces.Cylinder((0.5, 0, 2), 0.05, 0.2, material)
    seen = surfaces.cast([wall, floor, ball, pole], 65, 65, 60.0)
    assert seen.depth_m[32, 32] == pytest.approx(1.75) and seen.surface[32, 32] == 2
    assert seen.depth_m[32, 47] == pytest.approx(1.95, abs=2e-3) and seen.surface[32, 47] == 3
    assert seen.surface[38, 47] == 0  # below the pole's end
    assert seen.depth_m[0, 0] == pytest.approx(4.0) and seen.surface[0, 0] == 0
    assert seen.depth_m[60, 10] == pytest.approx(0.5 * 60 / 28) and seen.surface[60, 10] == 1
    with pytest.raises(ValueError, match="wall"):
        surfaces.cast([ball], 65, 65, 60.0)


def test_box_has_its_size() -> None:
    material = surfaces.Material(np.full((8, 8, 3), 200, np.uint8))
    wall = surfaces.Rectangle((0, 0, 9), (19, 0, 0), (0, 19, 0), material)
    seen = surfaces.cast([wall, *surfaces.box((0, 0, 2), (0.8, 0.4, 0.6), 0.0, material)], 101, 101, 100.0)
    assert seen.depth_m[50, 50] == pytest.approx(1.7)
    on_box = seen.surface > 0
    assert np.flatnonzero(on_box[50]).size == pytest.approx(0.8 / 1.7 * 100, abs=1.1)
    assert np.flatnonzero(on_box[:, 50]).size == pytest.approx(0.4 / 1.7 * 100, abs=1.1)
    turned = surfaces.cast([wall, *surfaces.box((0, 0, 2), (0.8, 0.4, 0.6), math.pi / 4, material)], 101, 101, 100.0)
    assert turned.depth_m[50, 44:57].min() == pytest.approx(2 - math.hypot(0.4, 0.3) * math.cos(0.1419), abs=0.02)


def test_demo_scene_has_its_planes_at_their_depths_while_the_camera_sways() -> None:
    still, later = demo_scene(160, 120), demo_scene(160, 120, time_s=3.0)
    assert (still.rgb != later.rgb).mean() > 0.3
    assert still.plane_depth_m == later.plane_depth_m
    assert set(still.plane_depth_m) == {"wall", "letter", "chart", "poster", "screen"}
    for scene in (still, later):
        for name, depth in scene.plane_depth_m.items():
            mask = scene.mask(name, margin_px=3)
            assert mask.sum() > 200
            np.testing.assert_allclose(scene.depth_m[mask], depth, rtol=1e-6)
    assert 0.4 < still.depth_m.min() <= 0.5 and still.depth_m.max() == 3.0
    with pytest.raises(ValueError, match="wall"):
        still.mask("elephant")


def test_demo_planes_are_sharpest_in_the_image_focused_nearest_to_them(demo_stack) -> None:
    scene = demo_scene(320, 240).reduced(2)
    assert scene.rgb.shape == (120, 160, 3) == (*scene.depth_m.shape, 3)
    for name in ("letter", "chart", "poster"):
        mask = scene.mask(name, margin_px=4)
        detail = [np.abs(np.diff(image.mean(axis=2), axis=1))[mask[:, 1:]].mean() for image in demo_stack.images]
        nearest = np.argmin(np.abs(np.array(DEMO_FOCUS_DIOPTERS) - 1 / scene.plane_depth_m[name]))
        assert np.argmax(detail) == nearest


def test_random_scenes_reproduce_and_keep_their_range() -> None:
    photos = [textures.clouds(np.random.default_rng(0))]
    covered = []
    for seed in range(6):
        scene = random_scene(seed, 80, 60, near_m=0.5, far_m=3.0, photos=photos)
        np.testing.assert_array_equal(scene.rgb, random_scene(seed, 80, 60, near_m=0.5, far_m=3.0, photos=photos).rgb)
        assert scene.depth_m.min() > 0.4
        assert scene.depth_m.max() <= 3.0
        assert scene.rgb.std() > 5
        covered.append(np.ptp(1 / scene.depth_m))
    assert max(covered) > 0.8 and len(set(covered)) == 6
    with pytest.raises(ValueError, match="near_m < far_m"):
        random_scene(0, near_m=2.0, far_m=1.0)


@pytest.mark.parametrize("kind", textures.KINDS)
def test_textures_are_textured_and_reproduce(kind) -> None:
    first, again = (kind(np.random.default_rng(3), 64) for _ in range(2))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert first.std(axis=(0, 1)).max() > (0.2 if kind is textures.plain else 8)

"""focal-stack/1: what is saved comes back bit for bit, whatever the images are like."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from stack_folder_rig import REAL_STACKS, assert_refused, frames, pixels_of, textured, write_folder

import dfs_ros
from dfs_ros.config import LensConfig
from dfs_ros.io.images import ImageFile
from dfs_ros.io.stack_description import read_description
from dfs_ros.io.stack_folder import load_stack, read_reference_depth, save_stack
from dfs_ros.pose import Pose
from dfs_ros.types import Camera, FocalStack

# ---- what is sound ---------------------------------------------------------------------------------------------------


def test_load_gives_the_pixels_the_focus_and_the_lens(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    for path in (folder, str(folder), folder / "stack.yaml"):
        stack = load_stack(path)
        np.testing.assert_array_equal(stack.images, [textured(seed=0), textured(seed=1)])
        np.testing.assert_array_equal(stack.focus_diopters, [0.0, 2.0])
        assert (stack.camera.focal_length_m, stack.camera.f_number, stack.camera.pixel_pitch_m) == (0.004, 2.0, 4e-6)
        assert math.isnan(stack.camera.fx_px) and np.isnan(stack.magnification).all()
    assert dfs_ros.load_stack(folder).size == (24, 32)


@pytest.mark.parametrize(
    ("name", "shape", "focus"),
    [
        ("phone_boxes", (8, 612, 1088, 3), (0.19795, 10.0)),
        ("tablet_keyboard", (10, 768, 1008, 3), (0.0, 7.2327)),
        ("phone_desk", (5, 964, 1280, 3), (4.16667, 0.4)),
    ],
)
def test_the_real_stacks_load(name: str, shape: tuple[int, ...], focus: tuple[float, float]) -> None:
    if not (REAL_STACKS / name).is_dir():
        pytest.skip("the real stacks are not beside this checkout (../shared/data/stacks)")
    stack = load_stack(REAL_STACKS / name)
    assert stack.images.shape == shape
    assert (stack.focus_diopters[0], stack.focus_diopters[-1]) == focus
    assert stack.images.std(axis=(1, 2, 3)).min() > 10
    reference = read_reference_depth(read_description(REAL_STACKS / name))
    if name == "phone_desk":
        assert reference is not None and reference.shape == (90, 160)
        assert np.nanmin(reference) == np.float32(0.538)
    else:
        assert reference is None


def poses() -> st.SearchStrategy[Pose]:
    number, sigma = st.floats(-10, 10), st.one_of(st.just(math.nan), st.floats(0, 1))

    def made(position: tuple[float, float, float], vector: list[float], sigma_m: float, sigma_rad: float) -> Pose:
        x, y, z, w = (np.array(vector) / np.linalg.norm(vector)).tolist()
        return Pose(position, (x, y, z, w), sigma_m, sigma_rad)

    quaternion = st.lists(st.floats(0.1, 1), min_size=4, max_size=4)
    position = st.one_of(st.tuples(number, number, number), st.just((math.nan,) * 3))
    return st.builds(made, position, st.one_of(quaternion, st.just([0.0, 0.0, 0.0, 1.0])), sigma, sigma)


@st.composite
def stacks(draw: st.DrawFn) -> FocalStack:
    count = draw(st.integers(2, 4))
    height, width = draw(st.integers(16, 40)), draw(st.integers(16, 40))
    shape = (count, height, width, 3) if draw(st.booleans()) else (count, height, width)
    number = st.floats(1e-3, 1e3, allow_nan=False)
    unknown_or = st.one_of(st.just(math.nan), number)
    focal_length_m = draw(st.floats(1e-4, 0.1))
    focus = draw(st.lists(st.floats(0, 0.99 / focal_length_m), min_size=count, max_size=count))
    focus[-1] = focus[0] / 2 + 1.0  # two different ones at least
    return FocalStack(
        images=np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, shape, np.uint8),
        focus_diopters=np.array(focus),
        camera=Camera(
            focal_length_m,
            draw(number),
            draw(st.floats(1e-7, 1e-3)),
            *(draw(unknown_or) for _ in range(4)),
            draw(st.floats(0, 0.5 / focal_length_m)),
            aberration=draw(st.floats(-1, 1)),
        ),
        stamp_ns=np.array(draw(st.lists(st.integers(0, 2**63 - 1), min_size=count, max_size=count)), np.int64),
        blur_scale=np.array(draw(st.lists(number, min_size=count, max_size=count))),
        magnification=np.array(draw(st.lists(unknown_or, min_size=count, max_size=count))),
        focus_sigma_diopters=np.array(
            draw(st.lists(st.one_of(unknown_or, st.just(0.0)), min_size=count, max_size=count))
        ),
        poses=tuple(draw(st.lists(st.one_of(st.none(), poses()), min_size=count, max_size=count))),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stack=stacks(), note=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40))
def test_a_saved_stack_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, stack: FocalStack, note: str
) -> None:
    folder = save_stack(stack, tmp_path_factory.mktemp("round") / "trip" / "stack", note)
    again = load_stack(folder)
    np.testing.assert_array_equal(again.images, stack.images)
    for name in ("focus_diopters", "stamp_ns", "blur_scale", "magnification", "focus_sigma_diopters"):
        np.testing.assert_array_equal(getattr(again, name), getattr(stack, name))
    assert again.poses == (stack.poses if any(stack.poses) else ())
    assert repr(again.camera) == repr(stack.camera)  # repr: NaN is not equal to itself


def test_focus_sigma_and_pose_of_a_frame(tmp_path: Path) -> None:
    pose = {"translation_m": [0.1, 0, -0.2], "rotation_xyzw": [0, 0, 0.6, 0.8], "sigma_m": 0.01}
    stack = load_stack(write_folder(tmp_path, frames=frames({"focus_sigma_diopters": 0}, {"pose": pose})))
    np.testing.assert_array_equal(stack.focus_sigma_diopters, [0.0, math.nan])
    assert stack.poses == (None, Pose((0.1, 0.0, -0.2), (0.0, 0.0, 0.6, 0.8), 0.01))
    again = yaml.safe_load((save_stack(stack, tmp_path / "again") / "stack.yaml").read_text())["frames"]
    assert again[0]["focus_sigma_diopters"] == 0.0 and "pose" not in again[0]
    assert "focus_sigma_diopters" not in again[1] and again[1]["pose"] == pose


def test_the_lens_settings_fill_only_what_the_file_lacks(tmp_path: Path) -> None:
    lens = LensConfig(focal_length_m=0.006, f_number=4.0, pixel_pitch_m=1e-6, reference_focus_diopters=1.0)
    partial = load_stack(write_folder(tmp_path / "a", camera={"f_number": 2.0}), lens).camera
    assert (partial.focal_length_m, partial.f_number, partial.pixel_pitch_m) == (0.006, 2.0, 1e-6)
    assert partial.reference_focus_diopters == 1.0
    full = load_stack(write_folder(tmp_path / "b"), lens).camera
    assert (full.focal_length_m, full.f_number, full.pixel_pitch_m) == (0.004, 2.0, 4e-6)


def test_pixel_pitch_follows_from_fx(tmp_path: Path) -> None:
    camera = {"focal_length_m": 0.004, "f_number": 2, "fx_px": 1000, "reference_focus_diopters": 2.0}
    stack = load_stack(write_folder(tmp_path / "s", camera=camera))
    assert stack.camera.pixel_pitch_m == pytest.approx(0.004 / (1 - 0.004 * 2) / 1000, rel=1e-12)


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    text = (folder / "stack.yaml").read_text().replace("4.0e-06", "4e-6")
    assert isinstance(yaml.safe_load(text)["camera"]["pixel_pitch_m"], str)
    (folder / "stack.yaml").write_text(text)
    assert load_stack(folder).camera.pixel_pitch_m == 4e-6


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = textured(20, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for viewing
    folder = write_folder(tmp_path / "s")
    for i in range(2):
        Image.fromarray(image).save(folder / f"{i}.png", exif=exif)
    np.testing.assert_array_equal(load_stack(folder).images[0], np.rot90(image, k=-1))
    Image.fromarray(image).save(folder / "1.png")
    assert_refused(folder, ValueError, "1.png: expected the EXIF orientation of 0.png, 6, received 1", "the same")


def test_16_bit_images_keep_their_upper_byte(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (24, 32, 3)).astype(np.uint16)
    grey, colour = tmp_path / "g.png", tmp_path / "c.png"
    grey.write_bytes(cv2.imencode(".png", values[..., 0])[1].tobytes())
    colour.write_bytes(cv2.imencode(".png", values[..., ::-1])[1].tobytes())
    tiff = tmp_path / "g.tiff"
    tiff.write_bytes(cv2.imencode(".tiff", values[..., 0])[1].tobytes())
    for path in (grey, tiff):
        np.testing.assert_array_equal(pixels_of(path, colour=False), values[..., 0] >> 8)
        with ImageFile(path) as file:
            assert not file.header.colour
    np.testing.assert_array_equal(pixels_of(colour), values >> 8)
    twelve_bit = tmp_path / "twelve.png"
    for data in (values[..., 0] >> 4, values >> 4):
        twelve_bit.write_bytes(cv2.imencode(".png", data)[1].tobytes())
        with pytest.raises(ValueError, match=r"twelve\.png: expected 16-bit values that use the range .* by 16"):
            pixels_of(twelve_bit)


def test_grey_stays_grey_and_mixed_becomes_colour(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    grey = textured()[..., 0]
    for i in range(2):
        Image.fromarray(grey).save(folder / f"{i}.png")
    np.testing.assert_array_equal(load_stack(folder).images, [grey, grey])
    Image.fromarray(textured()).save(folder / "1.png")
    np.testing.assert_array_equal(load_stack(folder).images, [np.repeat(grey[..., None], 3, 2), textured()])


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "LA", "CMYK"])
def test_other_pixel_types_become_grey_or_colour(tmp_path: Path, mode: str) -> None:
    flat = np.full((20, 20, 3), (255, 0, 0) if mode not in ("1", "LA") else 255, np.uint8)
    path = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    Image.fromarray(flat).convert(mode).save(path)
    np.testing.assert_allclose(pixels_of(path).astype(int), flat, atol=1)

"""focal-stack/1: what is saved comes back bit for bit, and everything that can be wrong is said clearly."""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dfs_ros.config import LensConfig
from dfs_ros.io import atomic
from dfs_ros.io.images import read_header, read_image
from dfs_ros.io.stack_folder import load_reference_depth, load_stack, save_stack, validate_stack
from dfs_ros.types import Camera, FocalStack

REAL_STACKS = Path(__file__).parents[2] / "shared" / "data" / "stacks"
CAMERA = {"focal_length_m": 0.004, "f_number": 2.0, "pixel_pitch_m": 4e-6}


def textured(height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_folder(folder: Path, **changes: Any) -> Path:
    """A sound stack of two PNG images, with changes to its top-level keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(2):
        Image.fromarray(textured(seed=i)).save(folder / f"{i}.png")
    document: dict[str, Any] = {
        "format": "focal-stack/1",
        "camera": CAMERA,
        "frames": [{"file": "0.png", "focus_diopters": 0.0}, {"file": "1.png", "focus_diopters": 2.0}],
    }
    document.update(changes)
    (folder / "stack.yaml").write_text(yaml.safe_dump(document))
    return folder


def frames(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    base = [{"file": "0.png", "focus_diopters": 0.0}, {"file": "1.png", "focus_diopters": 2.0}]
    return [{**entry, **change} for entry, change in zip(base, changes, strict=False)]


# ---- what is sound ---------------------------------------------------------------------------------------------------


def test_load_gives_the_pixels_the_focus_and_the_lens(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    for path in (folder, str(folder), folder / "stack.yaml"):
        stack = load_stack(path)
        np.testing.assert_array_equal(stack.images, [textured(seed=0), textured(seed=1)])
        np.testing.assert_array_equal(stack.focus_diopters, [0.0, 2.0])
        assert (stack.camera.focal_length_m, stack.camera.f_number, stack.camera.pixel_pitch_m) == (0.004, 2.0, 4e-6)
        assert math.isnan(stack.camera.fx_px) and np.isnan(stack.magnification).all()
    assert FocalStack.load(folder).size == (24, 32)
    check = validate_stack(folder)
    assert check.problems == ()
    assert check.summary == (
        "2 images of 32 x 24, focus 0 to 2 dioptres (infinity to 0.5 m), lens 4 mm f/2, pixel 4 um"
    )


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
    reference = load_reference_depth(REAL_STACKS / name)
    if name == "phone_desk":
        assert reference is not None and reference.shape == (90, 160)
        assert np.nanmin(reference) == np.float32(0.538)
    else:
        assert reference is None


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
        ),
        stamp_ns=np.array(draw(st.lists(st.integers(0, 2**63 - 1), min_size=count, max_size=count)), np.int64),
        blur_scale=np.array(draw(st.lists(number, min_size=count, max_size=count))),
        magnification=np.array(draw(st.lists(unknown_or, min_size=count, max_size=count))),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stack=stacks(), note=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40))
def test_a_saved_stack_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, stack: FocalStack, note: str
) -> None:
    folder = save_stack(stack, tmp_path_factory.mktemp("round") / "trip" / "stack", note)
    again = load_stack(folder)
    np.testing.assert_array_equal(again.images, stack.images)
    for name in ("focus_diopters", "stamp_ns", "blur_scale", "magnification"):
        np.testing.assert_array_equal(getattr(again, name), getattr(stack, name))
    assert repr(again.camera) == repr(stack.camera)  # repr: NaN is not equal to itself
    assert validate_stack(folder).problems == ()


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
    assert_refused(folder, ValueError, "one EXIF orientation, received [1, 6]", "give all of them the same")


def test_16_bit_images_keep_their_upper_byte(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (24, 32, 3)).astype(np.uint16)
    grey, colour = tmp_path / "g.png", tmp_path / "c.png"
    grey.write_bytes(cv2.imencode(".png", values[..., 0])[1].tobytes())
    colour.write_bytes(cv2.imencode(".png", values[..., ::-1])[1].tobytes())
    tiff = tmp_path / "g.tiff"
    tiff.write_bytes(cv2.imencode(".tiff", values[..., 0])[1].tobytes())
    for path in (grey, tiff):
        np.testing.assert_array_equal(read_image(path, colour=False), values[..., 0] >> 8)
        assert not read_header(path).colour
    np.testing.assert_array_equal(read_image(colour), values >> 8)
    twelve_bit = tmp_path / "twelve.png"
    for data in (values[..., 0] >> 4, values >> 4):
        twelve_bit.write_bytes(cv2.imencode(".png", data)[1].tobytes())
        with pytest.raises(ValueError, match=r"twelve\.png: expected 16-bit values that use the range .* by 16"):
            read_image(twelve_bit)


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
    np.testing.assert_allclose(read_image(path).astype(int), flat, atol=1)


# ---- what is refused -------------------------------------------------------------------------------------------------


def assert_refused(folder: Path, kind: type[Exception], *texts: str) -> None:
    """`load_stack` raises that very kind with these texts, and `validate_stack` reports the same."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_stack(folder)
    assert type(caught.value) is kind or isinstance(caught.value, kind)
    reported = "\n".join(validate_stack(folder).problems)
    for text in texts:
        assert text in str(caught.value)
        assert text in reported


CASES: list[tuple[str, dict[str, Any], type[Exception], tuple[str, ...]]] = [
    (
        "wrong version",
        {"format": "focal-stack/2"},
        ValueError,
        ("expected 'focal-stack/1'", "received 'focal-stack/2'"),
    ),
    ("unknown key", {"fames": []}, ValueError, ("fames: unknown key; did you mean 'frames'?",)),
    (
        "unknown camera key",
        {"camera": {**CAMERA, "focal_lenght_m": 1}},
        ValueError,
        ("did you mean 'focal_length_m'?",),
    ),
    (
        "unknown frame key",
        {"frames": frames({}, {"focus_dioptres": 1})},
        ValueError,
        ("frames[1]", "'focus_diopters'?"),
    ),
    (
        "focal length 0",
        {"camera": {**CAMERA, "focal_length_m": 0}},
        ValueError,
        ("camera.focal_length_m", "over 0", "0.0"),
    ),
    ("millimetres", {"camera": {**CAMERA, "focal_length_m": 4.3}}, ValueError, ("divide millimetres by 1000",)),
    ("negative f-number", {"camera": {**CAMERA, "f_number": -2}}, ValueError, ("camera.f_number", "over 0", "-2.0")),
    (
        "NaN pitch",
        {"camera": {**CAMERA, "pixel_pitch_m": math.nan}},
        ValueError,
        ("pixel_pitch_m: expected a finite", "nan"),
    ),
    ("infinite fx", {"camera": {**CAMERA, "fx_px": math.inf}}, ValueError, ("camera.fx_px: expected a finite", "inf")),
    ("negative fx", {"camera": {**CAMERA, "fx_px": -5}}, ValueError, ("camera.fx_px: expected pixels over 0",)),
    (
        "boolean",
        {"camera": {**CAMERA, "f_number": True}},
        ValueError,
        ("f_number: expected a finite number, received True",),
    ),
    ("lens missing", {"camera": {"f_number": 2}}, ValueError, ("focal_length_m: missing", "set lens.focal_length_m")),
    ("pitch missing", {"camera": {"f_number": 2, "focal_length_m": 0.004}}, ValueError, ("set lens.pixel_pitch_m",)),
    ("camera no mapping", {"camera": [1]}, ValueError, ("camera: expected keys", "received [1]")),
    (
        "NaN focus",
        {"frames": frames({}, {"focus_diopters": math.nan})},
        ValueError,
        ("frames[1].focus_diopters", "nan"),
    ),
    ("infinite focus", {"frames": frames({}, {"focus_diopters": math.inf})}, ValueError, ("expected a finite", "inf")),
    (
        "negative focus",
        {"frames": frames({}, {"focus_diopters": -1})},
        ValueError,
        ("dioptres of 0 (infinity) or more",),
    ),
    ("inside focal length", {"frames": frames({}, {"focus_diopters": 250})}, ValueError, ("inside the focal length",)),
    ("focus missing", {"frames": [{"file": "0.png"}]}, ValueError, ("frames[0].focus_diopters: missing",)),
    ("one focus", {"frames": frames({}, {"focus_diopters": 0})}, ValueError, ("all 2 images are at 0 dioptres",)),
    ("one image", {"frames": frames({})}, ValueError, ("at least 2 images", "received 1")),
    ("no images", {"frames": []}, ValueError, ("frames: expected a list of images",)),
    ("frames no list", {"frames": "0.png"}, ValueError, ("frames: expected a list", "'0.png'")),
    (
        "same file twice",
        {"frames": frames({}, {"file": "0.png"})},
        ValueError,
        ("frames[1].file: '0.png' is listed twice",),
    ),
    (
        "file missing",
        {"frames": frames({}, {"file": "2.png"})},
        FileNotFoundError,
        ("frames[1].file", "2.png: no such file"),
    ),
    (
        "file a number",
        {"frames": frames({}, {"file": 1})},
        ValueError,
        ("expected a file name (in quotes", "received 1"),
    ),
    ("file a folder", {"frames": frames({}, {"file": "."})}, FileNotFoundError, ("no such file",)),
    (
        "leaves the folder",
        {"frames": frames({}, {"file": "../x.png"})},
        ValueError,
        ("'../x.png', which lies outside",),
    ),
    (
        "absolute",
        {"frames": frames({}, {"file": "/etc/hostname"})},
        ValueError,
        ("'/etc/hostname', which lies outside",),
    ),
    (
        "stamp a float",
        {"frames": frames({}, {"stamp_ns": 1.5})},
        ValueError,
        ("stamp_ns: expected whole nanoseconds", "1.5"),
    ),
    (
        "stamp too large",
        {"frames": frames({}, {"stamp_ns": 2**63})},
        ValueError,
        ("stamp_ns: expected whole nanoseconds",),
    ),
    (
        "magnification 0",
        {"frames": frames({}, {"magnification": 0})},
        ValueError,
        ("magnification: expected a number over 0",),
    ),
    ("note no text", {"note": 3}, ValueError, ("note: expected text, received 3",)),
    (
        "reference outside",
        {"reference_depth": "../d.npy"},
        ValueError,
        ("reference_depth", "'../d.npy', which lies outside"),
    ),
    ("reference missing", {"reference_depth": "d.npy"}, FileNotFoundError, ("reference_depth", "no such file")),
]


@pytest.mark.parametrize(("changes", "kind", "texts"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_wrong_stack_yaml_is_refused(
    tmp_path: Path, changes: dict[str, Any], kind: type[Exception], texts: tuple[str, ...]
) -> None:
    (tmp_path / "x.png").write_bytes(b"outside the stack")
    folder = write_folder(tmp_path / "s", **changes)
    assert_refused(folder, kind, str(folder / "stack.yaml"), *texts)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "s", camera={**CAMERA, "f_number": 0}, frames=frames({"file": "a.png"}, {"focus_diopters": "far"})
    )
    assert_refused(folder, ValueError, "camera.f_number", "a.png: no such file", "received 'far'")
    assert len(validate_stack(folder).problems) == 3
    with pytest.raises(ValueError, match="3 problems"):
        load_stack(folder)


def test_a_folder_without_stack_yaml(tmp_path: Path) -> None:
    assert_refused(tmp_path, FileNotFoundError, str(tmp_path / "stack.yaml"), "dfs import FOLDER")
    assert_refused(tmp_path / "nothing", FileNotFoundError, "nothing: no such file")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"format: [", "not readable as YAML"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (b"- 1", "expected keys format, note"),
        (b"", "received nothing"),
        (b"!!python/object/apply:os.getcwd []", "not readable as YAML"),
        (b"#" * 1_000_001, "expected at most 1000000 bytes"),
    ],
)
def test_a_file_that_is_no_description(tmp_path: Path, content: bytes, text: str) -> None:
    folder = write_folder(tmp_path / "s")
    (folder / "stack.yaml").write_bytes(content)
    assert_refused(folder, ValueError, str(folder / "stack.yaml"), text)


def test_nested_yaml_aliases_do_not_explode(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (folder / "stack.yaml").write_text("\n".join([*lines, "format: *a11", "camera: *a11", "frames: *a11"]))
    with pytest.raises(ValueError, match=r"format: expected 'focal-stack/1'") as caught:
        load_stack(folder)
    assert len(str(caught.value)) < 20_000


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    Image.fromarray(textured()).save(outside)
    folder = write_folder(tmp_path / "s")
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to(outside)
    assert_refused(folder, ValueError, "frames[1].file: expected a file inside", "'1.png', which lies outside")
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to("0.png")  # inside: another name for another file, which is allowed
    assert load_stack(folder).images.shape == (2, 24, 32, 3)


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    (folder / "1.png").unlink()
    os.mkfifo(folder / "1.png")
    assert_refused(folder, FileNotFoundError, "1.png: no such file")


def test_images_of_different_size(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    Image.fromarray(textured(24, 33)).save(folder / "1.png")
    assert_refused(folder, ValueError, "1.png: expected 32 x 24 pixels as in 0.png, received 33 x 24")


def test_images_too_small(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    for i in range(2):
        Image.fromarray(textured(15, 32)).save(folder / f"{i}.png")
    assert_refused(folder, ValueError, "0.png: expected at least 16 x 16 pixels, received 32 x 15")


SAVERS: dict[str, Callable[[Path, np.ndarray[Any, np.dtype[np.uint8]]], None]] = {
    "jpg": lambda path, image: Image.fromarray(image).save(path, "JPEG"),
    "progressive.jpg": lambda path, image: Image.fromarray(image).save(path, "JPEG", progressive=True),
    "png": lambda path, image: Image.fromarray(image).save(path, "PNG"),
    "webp": lambda path, image: Image.fromarray(image).save(path, "WEBP"),
    "tiff": lambda path, image: Image.fromarray(image).save(path, "TIFF"),
    "bmp": lambda path, image: Image.fromarray(image).save(path, "BMP"),
    "ppm": lambda path, image: Image.fromarray(image).save(path, "PPM"),
}


@pytest.mark.parametrize("kind", SAVERS)
def test_a_truncated_image_is_refused_wherever_it_ends(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "s", frames=frames({}, {"file": f"image.{kind}"}))
    path = folder / f"image.{kind}"
    SAVERS[kind](path, textured())
    assert read_image(path).shape == (24, 32, 3)
    whole = path.read_bytes()
    for kept in (0, 1, 7, 20, 200, len(whole) // 2, len(whole) - 30, len(whole) - (5 if kind == "png" else 1)):
        path.write_bytes(whole[:kept])  # of a PNG the last four bytes are the check sum of an empty end mark
        with pytest.raises(ValueError, match=r"truncated or damaged|only the start of one"):
            read_image(path)
    assert_refused(folder, ValueError, str(path), "truncated or damaged")


def test_a_damaged_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(textured()).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"image\.png: the image is truncated or damaged"):
        read_image(path)


def test_something_else_under_the_name_of_an_image(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    (folder / "1.png").write_text("<html>404 not found</html>")
    assert_refused(folder, ValueError, "1.png: expected an image (JPEG, PNG, TIFF, WEBP, BMP, PPM)")


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tiff"
    Image.fromarray(np.ones((20, 20), np.float32)).save(path)
    with pytest.raises(ValueError, match=r"float\.tiff: expected 8- or 16-bit grey or colour, .* 'F'"):
        read_image(path)


def write_png_header(path: Path, width: int, height: int) -> None:
    """A PNG that promises a size and holds next to nothing: a decompression bomb before it goes off."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize(
    ("width", "height", "text"),
    [
        (10_000, 6_000, "expected at most 50 megapixels, received 60.0 (10000 x 6000)"),
        (12_000, 10_000, "expected at most 50 megapixels, received 120.0 (12000 x 10000)"),
        (60_000, 60_000, "expected at most 50 megapixels"),
    ],
)
def test_too_large_an_image_is_refused_before_it_is_decoded(tmp_path: Path, width: int, height: int, text: str) -> None:
    folder = write_folder(tmp_path / "s")
    write_png_header(folder / "1.png", width, height)
    assert_refused(folder, ValueError, "1.png", text)


def test_the_megapixel_limit_is_the_callers(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    with pytest.raises(ValueError, match=r"0\.png: expected at most 0\.0005 megapixels.*max_input_megapixels"):
        load_stack(folder, max_megapixels=0.0005)
    assert load_stack(folder, max_megapixels=0.001).size == (24, 32)


# ---- reference depth -------------------------------------------------------------------------------------------------


def test_reference_depth(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s", reference_depth="d.npy")
    np.save(folder / "d.npy", np.array([[1.5, 0.0], [np.nan, np.inf]], np.float64))
    np.testing.assert_array_equal(load_reference_depth(folder), np.array([[1.5, np.nan], [np.nan, np.nan]], np.float32))
    (folder / "d.npy").write_bytes((folder / "d.npy").read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"d\.npy: expected a whole \.npy file"):
        load_reference_depth(folder)
    np.save(folder / "d.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"d\.npy: expected a whole \.npy file"):
        load_reference_depth(folder)
    np.save(folder / "d.npy", np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match=r"expected depth of shape \(height, width\), received \(2, 2, 2\)"):
        load_reference_depth(folder)
    folder = write_folder(tmp_path / "p", reference_depth="d.png")
    (folder / "d.png").write_bytes(cv2.imencode(".png", np.array([[1500, 0]], np.uint16))[1].tobytes())
    np.testing.assert_array_equal(load_reference_depth(folder), np.array([[1.5, np.nan]], np.float32))
    Image.fromarray(textured()).save(folder / "d.png")
    with pytest.raises(ValueError, match=r"16-bit PNG with millimetres"):
        load_reference_depth(folder)


# ---- saving ----------------------------------------------------------------------------------------------------------


def small_stack() -> FocalStack:
    images = np.stack([textured(seed=i) for i in range(3)])
    return FocalStack(images, np.array([0.0, 1.0, 2.0]), Camera(0.004, 2.0, 4e-6))


def test_save_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"photos: expected a new or empty folder"):
        save_stack(small_stack(), folder)
    assert [p.name for p in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    save_stack(small_stack(), folder)
    assert sorted(p.name for p in folder.iterdir()) == ["000.png", "001.png", "002.png", "stack.yaml"]


def test_save_refuses_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/dfs_ros_test/stack")):
        with pytest.raises(ValueError, match=r"output .*: cannot be written \(.*\); choose a folder"):
            save_stack(small_stack(), target)


@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_save_leaves_nothing(tmp_path: Path, existing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stack"
    if existing:
        folder.mkdir()
    written = []
    write_bytes = Path.write_bytes

    def interrupted(self: Path, data: bytes) -> int:
        written.append(self)
        if len(written) == 2:
            write_bytes(self, data[: len(data) // 2])
            raise KeyboardInterrupt
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_stack(small_stack(), folder)
    assert len(written) == 2
    assert list(tmp_path.rglob("*")) == ([folder] if existing else [])


def test_staged_files_replace_older_ones_and_the_mark_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a", "mark", "mine"):
        (folder / name).write_text("old")
    moved = []
    replace = Path.replace

    def recorded(self: Path, target: Path) -> Path:
        assert not (folder / "mark").exists()
        moved.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", recorded)
    with atomic.staged(folder, last="mark") as staging:
        for name in ("mark", "z", "a"):
            (staging / name).write_text("new")
        assert {(folder / name).read_text() for name in ("a", "mark", "mine")} == {"old"}
    assert moved == ["a", "z", "mark"]
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"a": "new", "z": "new", "mark": "new", "mine": "old"}


def test_staged_refuses_to_put_a_file_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out" / "b").mkdir(parents=True)
    with (
        pytest.raises(ValueError, match=r"out/b: expected a file or nothing there, received a folder"),
        atomic.staged(tmp_path / "out", last="a") as staging,
    ):
        for name in ("a", "b"):
            (staging / name).write_text("new")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b"]

"""focal-stack/1: everything that can be wrong is said clearly, and nothing half-written is left."""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stack_folder_rig import CAMERA, assert_refused, frames, pixels_of, textured, write_folder

from dfs_ros.io.stack_folder import load_stack

# ---- what is refused -------------------------------------------------------------------------------------------------


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
    (
        "focus sigma under 0",
        {"frames": frames({}, {"focus_sigma_diopters": -0.1})},
        ValueError,
        ("frames[1].focus_sigma_diopters: expected a number of 0 (exact) or more, received -0.1",),
    ),
    ("pose no mapping", {"frames": frames({"pose": 3})}, ValueError, ("frames[0].pose: expected keys translation_m",)),
    ("pose without place", {"frames": frames({"pose": {}})}, ValueError, ("pose.translation_m: missing",)),
    (
        "pose of two numbers",
        {"frames": frames({"pose": {"translation_m": [1, 2]}})},
        ValueError,
        ("frames[0].pose.translation_m: expected 3 finite numbers, received [1.0, 2.0]",),
    ),
    (
        "pose of text",
        {"frames": frames({"pose": {"translation_m": [1, 2, "x"]}})},
        ValueError,
        ("pose.translation_m[2]: expected a finite number, received 'x'",),
    ),
    (
        "pose of a long quaternion",
        {"frames": frames({"pose": {"translation_m": [0, 0, 0], "rotation_xyzw": [0, 0, 1, 1]}})},
        ValueError,
        ("pose.rotation_xyzw: expected a quaternion of length 1 (x, y, z, w), received length 1.414",),
    ),
    (
        "pose with sigma under 0",
        {"frames": frames({"pose": {"translation_m": [0, 0, 0], "sigma_rad": -1}})},
        ValueError,
        ("pose.sigma_rad: expected a finite number of 0 or more, received -1.0",),
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
    with pytest.raises(ValueError, match=r"expected at most 100000 values, received .* aliases expanded") as caught:
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
    assert pixels_of(path).shape == (24, 32, 3)
    whole = path.read_bytes()
    for kept in (0, 1, 7, 20, 200, len(whole) // 2, len(whole) - 30, len(whole) - (5 if kind == "png" else 1)):
        path.write_bytes(whole[:kept])  # of a PNG the last four bytes are the check sum of an empty end mark
        with pytest.raises(ValueError, match=r"truncated or damaged|only the start of one"):
            pixels_of(path)
    assert_refused(folder, ValueError, str(path), "truncated or damaged")


def test_a_jpeg_with_a_hole_of_gigabytes_is_read_in_no_time(tmp_path: Path) -> None:
    """A byte at a time, as Pillow skips what is no segment, it would take an hour."""
    path = tmp_path / "image.jpg"
    Image.fromarray(textured()).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:300])
    os.truncate(path, 4 << 30)
    with pytest.raises(ValueError, match=r"truncated or damaged|only the start of one"):
        pixels_of(path)


def test_a_damaged_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(textured()).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"image\.png: the image is truncated or damaged"):
        pixels_of(path)


def test_something_else_under_the_name_of_an_image(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s")
    (folder / "1.png").write_text("<html>404 not found</html>")
    assert_refused(folder, ValueError, "1.png: expected an image (JPEG, PNG, TIFF, WEBP, BMP, PPM)")


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tiff"
    Image.fromarray(np.ones((20, 20), np.float32)).save(path)
    with pytest.raises(ValueError, match=r"float\.tiff: expected 8- or 16-bit grey or colour, .* 'F'"):
        pixels_of(path)


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
    with pytest.raises(ValueError, match=r"0\.png: expected at most 0\.0005 megapixels.*image_megapixels"):
        load_stack(folder, max_megapixels=0.0005)
    assert load_stack(folder, max_megapixels=0.001).size == (24, 32)

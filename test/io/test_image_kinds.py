"""Image files of unusual layouts: their right pixels, or a refusal that names the kind."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from stack_folder_rig import pixels_of

from dfs_ros.io.images import ImageFile


def tiff(
    path: Path, samples: NDArray[Any], *, order: str = "<", rows: int = 0, form: int = 1, orientation: int = 1
) -> Path:
    """An uncompressed planar TIFF of samples (planes, H, W), by the specification."""
    planes, height, width = samples.shape
    rows = rows or height
    data = samples.astype(samples.dtype.newbyteorder(order))
    strips = [data[p, y : y + rows].tobytes() for p in range(planes) for y in range(0, height, rows)]
    bits = samples.dtype.itemsize * 8
    body, offsets = b"", []
    for strip in strips:
        offsets.append(8 + len(body))
        body += strip
    tags = [
        (256, 3, [width]),
        (257, 3, [height]),
        (258, 3, [bits] * planes),
        (259, 3, [1]),
        (262, 3, [2]),
        (273, 4, offsets),
        (274, 3, [orientation]),
        (277, 3, [planes]),
        (278, 3, [rows]),
        (279, 4, [len(strip) for strip in strips]),
        (284, 3, [2]),
        (339, 3, [form] * planes),
    ]
    start = 8 + len(body)
    directory, extra = b"", b""
    extra_at = start + 2 + 12 * len(tags) + 4
    for tag, kind, values in tags:
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            where = extra_at + len(extra)
            extra += packed + bytes(len(packed) % 2)
            packed = struct.pack(order + "I", where)
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    path.write_bytes(head + body + struct.pack(order + "H", len(tags)) + directory + bytes(4) + extra)
    return path


def noise(dtype: Any, planes: int = 3) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (planes, 30, 40), dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("rows", [0, 7])
def test_planes_of_16_bits(tmp_path: Path, order: str, rows: int) -> None:
    samples = noise(np.uint16)
    path = tiff(tmp_path / "p.tif", samples, order=order, rows=rows)
    np.testing.assert_array_equal(pixels_of(path), (samples >> 8).transpose(1, 2, 0))
    turned = tiff(tmp_path / "t.tif", samples, order=order, rows=rows, orientation=3)
    np.testing.assert_array_equal(pixels_of(turned), (samples >> 8).transpose(1, 2, 0)[::-1, ::-1])
    with ImageFile(turned) as file:
        file.pixels()
        assert file.orientation == 3
    grey = pixels_of(path, colour=False)
    assert grey.shape == (30, 40) and np.abs(grey.astype(int) - (samples >> 8).mean(axis=0)).mean() < 30


def test_planes_of_8_bits(tmp_path: Path) -> None:
    samples = noise(np.uint8)
    np.testing.assert_array_equal(pixels_of(tiff(tmp_path / "p.tif", samples)), samples.transpose(1, 2, 0))


def test_truncated_and_dark_planes_are_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "p.tif", noise(np.uint16) >> 4)
    with pytest.raises(ValueError, match="12-bit data must be multiplied by 16"):
        pixels_of(path)
    data = path.read_bytes()
    path.write_bytes(data[:8] + data[8:2000] + bytes(0) + data[2008:])
    with pytest.raises(ValueError, match=r"p\.tif: "):
        pixels_of(path)


def test_float_samples_are_named(tmp_path: Path) -> None:
    path = tiff(tmp_path / "f.tif", np.ones((3, 30, 40), np.float32), form=3)
    with pytest.raises(ValueError, match=r"received a TIFF of 32-bit float samples; save it as 16-bit"):
        pixels_of(path)


def test_pages_are_counted(tmp_path: Path) -> None:
    images = [Image.fromarray(noise(np.uint8).transpose(1, 2, 0).copy()) for _ in range(5)]
    for name in ("z.tif", "z.webp", "z.png"):
        images[1].putpixel((0, 0), (1, 2, 3))
        images[0].save(tmp_path / name, save_all=True, append_images=images[1:3])
        with pytest.raises(ValueError, match=rf"{name}: expected one image, received a file of [23] pages; split it"):
            pixels_of(tmp_path / name)
    # A thumbnail is no page.
    images[0].save(tmp_path / "t.tif", save_all=True, append_images=[images[1].resize((10, 8))])
    np.testing.assert_array_equal(pixels_of(tmp_path / "t.tif"), np.asarray(images[0]))
    # ImageJ describes one page, and has more images behind it.
    images[0].save(tmp_path / "ij.tif", description="ImageJ=1.54f\nimages=7\nslices=7\n")
    with pytest.raises(ValueError, match="a file of 7 pages"):
        pixels_of(tmp_path / "ij.tif")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(99), "received HEIC; convert it to JPEG, PNG or TIFF (heif-convert)"),
        (b"\0\0\0\x18ftypavif" + bytes(99), "received AVIF; convert it"),
        (b"\0\0\0\x18ftypcrx " + bytes(99), "received raw; convert it"),
        (b"GIF89a" + bytes(99), "received GIF; convert it"),
        (b"v/1\x01" + bytes(99), "received OpenEXR; convert it"),
        (b"II*\0" + bytes(99), "received something else or only the start of one"),
        (b"<html>", "received something else or only the start of one"),
    ],
)
def test_other_kinds_under_the_name_of_a_photo(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        ImageFile(tmp_path / "a.jpg")
    assert words in str(caught.value)

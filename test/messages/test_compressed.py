"""Compressed images: what is in them, what is not an image, and depth from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from node_rig import CAMERA, ERROR, PLANE_M, SIZE, Rig

from dfs_ros.config import Config, ProcessingConfig
from dfs_ros.messages.compressed import (
    compressed_depth_message,
    compressed_message,
    compressed_size,
    image_from_compressed,
)
from dfs_ros.messages.convert import (
    COMPRESSED,
    camera_info_message,
    depth_from_message,
    focus_message,
    image_from_message,
    image_message,
    message,
)
from dfs_ros.messages.definitions import deserialize, serialize
from dfs_ros.node.images import decoded
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import Frame, reduced_frame


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """Asymmetric in place and colour."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return np.stack([240 * x, 210 * y, 255 - 120 * x - 100 * y], axis=-1).astype(np.uint8)


def encoded(suffix: str, array: np.ndarray, text: str, *options: int) -> Any:
    data = cv2.imencode(suffix, array, list(options))[1]
    return message(COMPRESSED, format=text, data=data.reshape(-1))


def test_png_is_exact_and_jpeg_is_close() -> None:
    image = photo()
    for colour in (image, image[..., 1]):
        png, jpeg = (compressed_message(colour, 5, "eye", form) for form in ("png", "jpeg"))
        assert (png.header.frame_id, png.header.stamp.nanosec) == ("eye", 5)
        np.testing.assert_array_equal(image_from_compressed(png), colour)
        np.testing.assert_allclose(image_from_compressed(jpeg).astype(int), colour, atol=12)
        assert compressed_size(png) == compressed_size(jpeg) == (40, 60)
    assert compressed_message(image, 0, "").format == "rgb8; jpeg compressed bgr8"


def test_it_survives_the_wire() -> None:
    sent = compressed_message(photo(), 7, "eye", "png")
    received = deserialize(bytes(serialize(sent, COMPRESSED)), COMPRESSED)
    np.testing.assert_array_equal(image_from_compressed(received), photo())


@pytest.mark.parametrize("text", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed ", ""])
def test_the_format_text_does_not_matter_where_the_data_tell(text: str) -> None:
    np.testing.assert_array_equal(image_from_compressed(encoded(".png", photo()[..., ::-1], text)), photo())


def test_other_depths_of_png() -> None:
    image = photo()
    deep = image.astype(np.uint16) * 257
    np.testing.assert_array_equal(image_from_compressed(encoded(".png", deep[..., ::-1], "rgb16; png")), image)
    np.testing.assert_array_equal(image_from_compressed(encoded(".png", deep[..., 0], "mono16; png")), image[..., 0])
    alpha = np.dstack([image[..., ::-1], np.full(image.shape[:2], 7, np.uint8)])
    np.testing.assert_array_equal(image_from_compressed(encoded(".png", alpha, "rgba8; png")), image)


@pytest.mark.parametrize("pattern", ["bayer_rggb8", "bayer_grbg8"])
def test_bayer_patterns_become_colour(pattern: str) -> None:
    mosaic = np.random.default_rng(3).integers(0, 255, (20, 30), np.uint8)
    found = image_from_compressed(encoded(".png", mosaic, f"{pattern}; png compressed {pattern}"))
    np.testing.assert_array_equal(found, image_from_message(image_message(mosaic, 0, "", pattern)))
    assert found.shape == (20, 30, 3)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("colour", [True, False])
def test_jpegs_are_reduced_as_they_are_decoded(factor: int, colour: bool) -> None:
    image = photo(88, 64) if colour else photo(88, 64)[..., 0]
    msg = compressed_message(image, 0, "", "jpeg", quality=98)
    height, width = 88 // factor, 64 // factor
    found = image_from_compressed(msg, (height, width))
    whole = image_from_compressed(msg)
    blocks = whole.reshape(height, factor, width, factor, *whole.shape[2:])
    assert found.shape == (height, width, 3)[: image.ndim]
    np.testing.assert_allclose(found, blocks.mean(axis=(1, 3)), atol=5)
    assert np.abs(found - blocks.mean(axis=(1, 3))).mean() < 1.0
    # Not below the least size, and no factor that would leave rows or columns over.
    assert image_from_compressed(msg, (height + 1, width)).shape[0] == 88 * 2 // factor
    odd = compressed_message(image[:-1], 0, "", "jpeg")
    assert image_from_compressed(odd, (16, 16)).shape == (87, *image.shape[1:])
    png = compressed_message(image, 0, "", "png")
    np.testing.assert_array_equal(image_from_compressed(png, (height, width)), image)


def test_a_jpeg_of_a_bayer_pattern_is_not_reduced_as_it_is_decoded() -> None:
    """Means of its blocks are grey."""
    red = np.zeros((64, 64), np.uint8)
    red[::2, ::2] = 250
    found = image_from_compressed(encoded(".jpg", red, "bayer_rggb8; jpeg compressed bayer_rggb8"), (16, 16))
    assert found.shape == (64, 64, 3)
    assert found[8:-8, 8:-8, 0].mean() > 200 > 50 > found[8:-8, 8:-8, 1:].mean()


@pytest.mark.parametrize(("form", "reduction"), [("jpeg", 2), ("jpeg", 3.3), ("png", 2), ("jpeg", 1)])
def test_the_node_reduces_compressed_images_as_raw_ones(form: str, reduction: float) -> None:
    big = photo(360, 272)
    settings = ProcessingConfig(max_megapixels=360 * 272 * 1e-6 / reduction**2)
    found, raw = (
        Frame(image, 1.0, original_size_px=size)
        for image, size in (
            decoded(compressed_message(big, 0, "", form, 98), Config().limits, settings.max_megapixels),
            decoded(image_message(big, 0, ""), Config().limits, settings.max_megapixels),
        )
    )
    assert found.original_size_px == raw.original_size_px == (360, 272)
    assert found.image.shape[0] == 360 // (2 if form == "jpeg" and reduction >= 2 else 1)
    small, expected = (reduced_frame(frame, settings.max_megapixels) for frame in (found, raw))
    assert small.image.shape == expected.image.shape == (round(360 / reduction), round(272 / reduction), 3)
    assert small.scale == expected.scale == pytest.approx(1 / reduction, rel=0.01)
    assert np.abs(small.image.astype(int) - expected.image).mean() < 1.0


def test_an_orientation_tag_is_not_followed() -> None:
    """Intrinsics are of the image as it is stored."""
    data = bytes(cv2.imencode(".jpg", photo()[..., ::-1])[1])
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    msg = message(COMPRESSED, format="jpeg", data=np.frombuffer(turned, np.uint8))
    assert image_from_compressed(msg).shape == (40, 60, 3)


def with_data(msg: Any, data: bytes) -> Any:
    return dataclasses.replace(msg, data=np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("padding", [bytes(16), bytes(600), bytes(100_000), b"\xff" * 70, b"stale \xff\xd9" * 40])
@pytest.mark.parametrize("file_format", ["jpeg", "png"])
def test_padding_behind_the_end_is_no_damage(file_format: str, padding: bytes) -> None:
    msg = compressed_message(photo(), 0, "", file_format)
    padded = with_data(msg, bytes(np.asarray(msg.data)) + padding)
    np.testing.assert_array_equal(image_from_compressed(padded), image_from_compressed(msg))
    assert compressed_size(padded) == compressed_size(msg)


def test_the_end_of_a_thumbnail_is_not_that_of_the_image() -> None:
    msg = compressed_message(photo(), 0, "")
    whole, thumbnail = bytes(np.asarray(msg.data)), bytes(np.asarray(compressed_message(photo()[::4, ::4], 0, "").data))
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    tagged = whole[:2] + segment + whole[2:]
    np.testing.assert_array_equal(image_from_compressed(with_data(msg, tagged)), image_from_compressed(msg))
    with pytest.raises(ValueError, match="are not the whole image"):
        image_from_compressed(with_data(msg, tagged[: len(tagged) - 40]))


def bad() -> dict[str, tuple[Any, str]]:
    jpeg, png = compressed_message(photo(), 0, ""), compressed_message(photo(), 0, "", "png")
    whole = bytes(np.asarray(jpeg.data))
    return {
        "half a jpeg": (with_data(jpeg, whole[: len(whole) // 2]), "are not the whole image"),
        "half a png": (with_data(png, bytes(np.asarray(png.data))[:-40]), "are not the whole image"),
        "nothing": (with_data(jpeg, b""), "with data that begins nowhere"),
        "h264": (
            with_data(dataclasses.replace(jpeg, format="h264"), b"\0\0\0\1gB\0\x1f"),
            "expected jpeg or png, received format 'h264' with data that begins 00 00 00 01 67",
        ),
        "depth": (
            dataclasses.replace(png, format="16UC1; compressedDepth"),
            "expected a photo, received a depth image",
        ),
        "no header": (with_data(jpeg, b"\xff\xd8\xff" + bytes(50) + b"\xff\xd9"), "jpeg"),
        "damaged": (with_data(png, bytes(np.asarray(png.data))[:30] + bytes(60) + b"IEND"), "png"),
    }


@pytest.mark.parametrize("what", list(bad()))
def test_what_is_no_image_is_refused(what: str) -> None:
    msg, words = bad()[what]
    with pytest.raises(ValueError, match="compressed image") as error:
        compressed_size(msg)
        image_from_compressed(msg)
    assert words in str(error.value)


def test_what_cannot_be_compressed() -> None:
    with pytest.raises(ValueError, match="file_format: expected one of jpeg, png, received 'gif'"):
        compressed_message(photo(), 0, "", "gif")


# -- in the node -------------------------------------------------------------------------------------------------------


def compressed_rig(make_rig: Callable[..., Rig], **settings: Any) -> Rig:
    rig = make_rig({"node": {"image_transport": "compressed"}, **settings})
    rig.listen("depth/image")
    rig.publishers["image/compressed"] = rig.camera.create_publisher("image/compressed", COMPRESSED)
    return rig


def send_sweep(rig: Rig, form: str) -> None:
    for i in range(3):
        stamp = rig.bus.now_ns()
        rig.send("camera_info", camera_info_message(intrinsics(CAMERA, SIZE), SIZE, stamp, "lens"))
        rig.send("focus", focus_message(rig.focus(i, stamp), "lens"))
        rig.send("image/compressed", compressed_message(rig.stack.images[i], stamp, "lens", form))
        rig.advance(33)
    rig.sweeps += 1


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_depth_from_compressed_images(make_rig: Callable[..., Rig], form: str) -> None:
    rig = compressed_rig(make_rig)
    send_sweep(rig, form)
    (depth,) = rig.depths()
    assert depth.header.frame_id == "lens"
    assert np.nanmedian(depth_from_message(depth)) == pytest.approx(PLANE_M, rel=0.03)


def test_compressed_images_that_cannot_be_read_are_counted(make_rig: Callable[..., Rig]) -> None:
    rig = compressed_rig(make_rig)
    for msg, _ in bad().values():
        rig.send("image/compressed", msg)
    level, text, values = rig.status()
    assert level == ERROR
    assert "compressed image" in text and f"({len(bad())} times)" in text
    assert (values["bad_image"], values["received"]) == (str(len(bad())), "0")
    send_sweep(rig, "png")
    assert len(rig.depths()) == 1


def test_large_compressed_images_are_refused_before_they_are_decoded(make_rig: Callable[..., Rig]) -> None:
    rig = compressed_rig(make_rig, limits={"image_megapixels": 0.05})
    rig.send("image/compressed", compressed_message(np.zeros((300, 400), np.uint8), 0, "lens"))
    level, text, _ = rig.status()
    assert (level, "at most 0.05 megapixels, received 400 x 300" in text) == (ERROR, True)


def test_raw_images_are_not_taken_where_compressed_ones_are_expected(make_rig: Callable[..., Rig]) -> None:
    rig = compressed_rig(make_rig)
    rig.send_sweep()
    assert rig.depths() == []
    for _ in range(4):
        rig.advance(1000)
    assert "no image on /image/compressed" in rig.status()[1]


def decoded_as_by_the_plugin(msg: Any) -> np.ndarray:
    """decodeCompressedDepthImage of image_transport_plugins, in its single precision."""
    encoding, _, rest = msg.format.partition(";")
    assert "compressedDepth png" in rest
    data = np.asarray(msg.data, np.uint8)
    a, b = data[4:12].view("<f4")
    codes = np.asarray(cv2.imdecode(data[12:], cv2.IMREAD_UNCHANGED))
    assert codes.dtype == np.uint16
    if encoding == "16UC1":
        return codes
    codes = codes.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(codes > 0, a / (codes - b), np.float32(np.nan))


@pytest.mark.parametrize(("near_m", "far_m"), [(0.05, 80.0), (0.9, 0.9), (0.9, 0.9001), (0.2, 4.0)])
def test_compressed_depth_is_what_the_plugin_reads(near_m: float, far_m: float) -> None:
    depth = (1 / np.linspace(1 / near_m, 1 / far_m, 35 * 21)).astype(np.float32).reshape(21, 35)
    depth[3, 5:9] = np.nan
    msg = compressed_depth_message(depth, 7, "lens")
    found = decoded_as_by_the_plugin(msg)
    assert (msg.format, msg.header.frame_id) == ("32FC1; compressedDepth png", "lens")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(depth))
    known = ~np.isnan(depth)
    step = max((1 / near_m - 1 / far_m) / 65534, 2**-22 / far_m)
    assert np.abs(1 / found[known] - 1 / depth[known]).max() <= 0.51 * step + 3e-7 / near_m
    with pytest.raises(ValueError, match="expected a photo"):
        image_from_compressed(msg)


def test_compressed_depth_of_nothing_and_in_millimetres() -> None:
    unknown = np.full((4, 6), np.nan, np.float32)
    assert np.isnan(decoded_as_by_the_plugin(compressed_depth_message(unknown, 0, ""))).all()
    depth = np.array([[0.5, 1.2345, np.nan]], np.float32)
    assert decoded_as_by_the_plugin(compressed_depth_message(depth, 0, "", "16UC1")).tolist() == [[500, 1234, 0]]


def test_the_node_offers_compressed_images(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"node": {"compressed_outputs": True}})
    got: dict[str, list[Any]] = {"depth/image/compressedDepth": [], "all_in_focus/image/compressed": []}
    for topic, messages in got.items():
        rig.listener.create_subscription(topic, COMPRESSED, messages.append)
    rig.listen("depth/image", "all_in_focus/image")
    rig.send_sweep()
    (depth,), (sharp,) = got.values()
    exact = depth_from_message(rig.received["depth/image"][0])
    np.testing.assert_allclose(decoded_as_by_the_plugin(depth), exact, rtol=1e-4)
    assert np.isfinite(exact).mean() > 0.5
    shown = image_from_message(rig.received["all_in_focus/image"][0]).astype(int)
    assert np.abs(image_from_compressed(sharp).astype(int) - shown).mean() < 3
    assert depth.header.stamp == sharp.header.stamp == rig.received["depth/image"][0].header.stamp

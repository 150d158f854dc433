"""Images and depth as messages: encodings with hand-checked pixels, and refusal of what makes no sense."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from message_rig import STAMP, raw_image

from dfs_ros.messages.convert import (
    IMAGE,
    IMAGE_ENCODINGS,
    depth_from_message,
    depth_message,
    image_from_message,
    image_message,
    stamp_ns,
)
from dfs_ros.messages.definitions import deserialize, serialize
from dfs_ros.messages.images import UNORDERED, bits_in_use

# --- images in -------------------------------------------------------------------------------------------------------

RED_GREEN = [[[255, 0, 1], [2, 254, 3]]]  # one row of two RGB pixels


@pytest.mark.parametrize(
    ("encoding", "step", "data", "expected"),
    [
        ("rgb8", 6, bytes([255, 0, 1, 2, 254, 3]), RED_GREEN),
        ("bgr8", 6, bytes([1, 0, 255, 3, 254, 2]), RED_GREEN),
        ("rgba8", 8, bytes([255, 0, 1, 9, 2, 254, 3, 9]), RED_GREEN),
        ("bgra8", 8, bytes([1, 0, 255, 9, 3, 254, 2, 9]), RED_GREEN),
        ("rgb16", 12, struct.pack("<6H", 65535, 0, 257, 514, 254 * 257, 771), RED_GREEN),
        ("bgr16", 12, struct.pack("<6H", 257, 0, 65535, 771, 254 * 257, 514), RED_GREEN),
        ("mono8", 2, bytes([7, 200]), [[7, 200]]),
        ("8UC1", 2, bytes([7, 200]), [[7, 200]]),
        ("mono16", 6, struct.pack("<3H", 128, 129, 65535), [[0, 1, 255]]),  # 128 / 257 rounds down, 129 / 257 up
        ("8UC3", 6, bytes([1, 0, 255, 3, 254, 2]), RED_GREEN),  # OpenCV's order
        ("8UC4", 8, bytes([1, 0, 255, 9, 3, 254, 2, 9]), RED_GREEN),
        ("16UC1", 4, struct.pack("<2H", 65535, 32896), [[255, 128]]),
    ],
)
def test_pixels_of_plain_encodings(encoding, step, data, expected):
    height, width = np.shape(expected)[:2]
    image = image_from_message(raw_image(encoding, height, width, step, data))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.array(expected))


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "bayer_rggb16"])
def test_16_bit_samples_of_fewer_bits(encoding, bits):
    most = 2**bits - 1
    channels = 3 if encoding == "rgb16" else 1
    samples = np.full((6, 8, channels), most // 3, np.uint16)
    samples[3] = most
    msg = image_message(samples if channels == 3 else samples[..., 0], STAMP, "cam", encoding)
    image = image_from_message(msg, bits)
    assert (image[:2].min(), image[:2].max()) == (85, 85) and image[3].max() == 255
    assert bits_in_use(msg) == bits
    if bits <= 12:
        with pytest.raises(ValueError, match=rf"{encoding}: .* samples of {bits} bits; set node.sample_bits"):
            image_from_message(msg)
    if bits < 16:
        samples[:3] = most + 1
        msg = image_message(samples if channels == 3 else samples[..., 0], STAMP, "cam", encoding)
        with pytest.raises(ValueError, match=rf"up to {most} \(node.sample_bits\), received {most + 1}"):
            image_from_message(msg, bits)


def test_row_padding_and_byte_order_are_honoured():
    padded = raw_image("rgb8", 2, 1, 5, bytes([1, 2, 3, 99, 99, 4, 5, 6, 99, 99]))
    np.testing.assert_array_equal(image_from_message(padded), [[[1, 2, 3]], [[4, 5, 6]]])
    assert image_from_message(padded).flags.c_contiguous
    big = raw_image("mono16", 2, 1, 3, struct.pack(">H", 257) + b"?" + struct.pack(">H", 65535) + b"?", big_endian=True)
    np.testing.assert_array_equal(image_from_message(big), [[1], [255]])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_named_by_their_first_four_pixels(pattern, bits):
    colour = {"r": 200, "g": 100, "b": 50}
    tile = np.array([colour[c] for c in pattern]).reshape(2, 2) * (257 if bits == 16 else 1)
    mosaic = np.tile(tile, (4, 5)).astype(np.uint16 if bits == 16 else np.uint8)
    image = image_from_message(image_message(mosaic, 0, "cam", f"bayer_{pattern}{bits}"))
    assert image.shape == (8, 10, 3)
    assert (image == (200, 100, 50)).all()


def yuv(encoding: str, y: int, u: int, v: int) -> np.ndarray:
    """A 4 x 6 image of one colour, as the encoding lays it out by its definition."""
    if encoding in ("yuv422", "uyvy"):
        pairs = np.array([[u, y], [v, y]])
    elif encoding in ("yuv422_yuy2", "yuyv"):
        pairs = np.array([[y, u], [y, v]])
    else:
        chroma = [u, v] if encoding == "nv12" else [v, u]
        return np.vstack([np.full((4, 6), y), np.tile(chroma, (2, 3))]).astype(np.uint8)
    return np.tile(pairs, (4, 3, 1)).astype(np.uint8)


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"])
@pytest.mark.parametrize(
    ("yuv_colour", "rgb"),  # ITU-R BT.601, Y from 16 to 235
    [
        ((82, 90, 240), (255, 0, 0)),
        ((145, 54, 34), (0, 255, 0)),
        ((41, 240, 110), (0, 0, 255)),
        ((126, 128, 128), [128] * 3),
    ],
)
def test_yuv_is_bt601(encoding, yuv_colour, rgb):
    msg = image_message(yuv(encoding, *yuv_colour), 0, "cam", encoding)
    assert (msg.height, msg.width) == (4, 6)
    image = image_from_message(msg)
    assert image.shape == (4, 6, 3)
    assert np.abs(image.astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("encoding", IMAGE_ENCODINGS)
def test_every_encoding_survives_the_wire(encoding):
    layout = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}.get(UNORDERED.get(encoding, encoding).rstrip("0168"), 1)
    layout = 2 if encoding.startswith(("yuv", "uyvy", "yuyv")) else layout
    dtype = np.uint16 if "16" in encoding else np.uint8
    samples = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (12, 8, layout), dtype, endpoint=True)
    msg = image_message(samples[..., 0] if layout == 1 else samples, STAMP, "cam", encoding)
    received = deserialize(bytes(serialize(msg, IMAGE)), IMAGE)
    assert (received.encoding, received.header.frame_id, stamp_ns(received.header.stamp)) == (encoding, "cam", STAMP)
    np.testing.assert_array_equal(received.data, samples.reshape(-1).view(np.uint8))
    np.testing.assert_array_equal(image_from_message(received), image_from_message(msg))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"encoding": "jpeg"}, r"expected one of rgb8, .*16UC3, received 'jpeg'"),
        ({"encoding": ""}, "expected one of rgb8"),
        ({"encoding": "32FC3"}, "expected one of rgb8"),
        ({"step": 5}, "step of at least 6 bytes, received a step of 5"),
        ({"height": 3}, "3 rows"),
        ({"height": 0}, "image: 2 x 0"),
        ({"width": 0}, "image: 0 x 2"),
        ({"width": 2**32 - 1}, "step of at least"),
        ({"height": 2**32 - 1, "step": 2**32 - 1}, "rows of a step"),
        ({"step": 7}, "received a step of 7 and 12 bytes"),
        ({"data": np.zeros(11, np.uint8)}, "11 bytes"),
        ({"data": np.zeros(13, np.uint8)}, "13 bytes"),
        ({"data": np.zeros(0, np.uint8)}, "and 0 bytes"),
        ({"encoding": "nv12", "height": 3, "step": 4}, "even size"),
        ({"encoding": "yuyv", "width": 3, "height": 2}, "in pairs"),
        ({"encoding": "bayer_rggb8", "width": 12, "height": 1, "step": 12}, "4 x 4 pixels or more, received 12 x 1"),
    ],
)
def test_images_that_make_no_sense_are_refused(change, match):
    good = raw_image("rgb8", 2, 2, 6, bytes(range(12)))
    assert image_from_message(good).shape == (2, 2, 3)
    with pytest.raises(ValueError, match=match):
        image_from_message(replace(good, **change))


# --- images out ------------------------------------------------------------------------------------------------------


def test_image_message_shares_the_memory_and_names_the_encoding():
    rgb = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    msg = image_message(rgb, STAMP, "optical")
    assert (msg.encoding, msg.height, msg.width, msg.step, msg.is_bigendian) == ("rgb8", 2, 5, 15, 0)
    assert np.shares_memory(msg.data, rgb)
    assert image_message(rgb[..., 0], 0, "").encoding == "mono8"
    np.testing.assert_array_equal(image_message(rgb[..., 0], 0, "").data, rgb[..., 0].reshape(-1))


@pytest.mark.parametrize(
    ("image", "encoding"),
    [
        (np.zeros((4, 4, 3), np.uint8), "mono8"),
        (np.zeros((4, 4), np.uint8), "mono16"),
        (np.zeros((4, 4, 2), np.uint8), ""),
        (np.zeros((4, 4), np.float32), ""),
        (np.zeros(4, np.uint8), ""),
        (np.zeros((5, 4), np.uint8), "nv12"),
        ([[1, 2]], "mono8"),
    ],
)
def test_arrays_that_an_encoding_cannot_hold_are_refused(image, encoding):
    with pytest.raises(ValueError, match=r"^(image|encoding): "):
        image_message(image, 0, "cam", encoding)


def test_depth_in_metres_and_millimetres():
    depth = np.array([[1.234, np.nan, 65.535], [65.5356, 0.0004, np.inf]], np.float32)
    metres = depth_message(depth, STAMP, "optical")
    assert (metres.encoding, metres.step, bytes(metres.data[:4])) == ("32FC1", 12, struct.pack("<f", 1.234))
    np.testing.assert_array_equal(depth_from_message(metres), depth)
    millimetres = depth_message(depth, STAMP, "optical", "16UC1")
    assert (millimetres.step, bytes(millimetres.data)) == (6, struct.pack("<6H", 1234, 0, 65535, 0, 0, 0))
    back = depth_from_message(millimetres)
    np.testing.assert_allclose(back, [[1.234, np.nan, 65.535], [np.nan] * 3], atol=1e-6)
    assert back.dtype == np.float32
    big = raw_image("32FC1", 1, 1, 4, struct.pack(">f", 2.5), big_endian=True)
    assert depth_from_message(big) == 2.5
    for wrong in (np.ones((2, 3), int), depth[0]):
        with pytest.raises(ValueError, match="expected metres of shape"):
            depth_message(wrong, 0, "")
    with pytest.raises(ValueError, match="32FC1, 16UC1, received 'mono8'"):
        depth_message(depth, 0, "", "mono8")
    with pytest.raises(ValueError, match="32FC1, 16UC1, received 'rgb8'"):
        depth_from_message(raw_image("rgb8", 2, 2, 6, bytes(range(12))))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_images_with_changed_bytes_are_refused_or_decoded(data):
    whole = bytearray(serialize(raw_image("rgb8", 3, 4, 12, bytes(range(36))), IMAGE))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = image_from_message(deserialize(bytes(whole), IMAGE))
    except ValueError:
        return
    assert image.dtype == np.uint8 and image.size <= 3 * 36


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_every_sample_is_rounded_to_its_nearest_value_of_8_bits(bits: int) -> None:
    most = 2**bits - 1
    samples = np.arange(most + 1, dtype=np.uint16).reshape(32, -1)
    image = image_from_message(image_message(samples, 0, "", "mono16"), bits)
    np.testing.assert_array_equal(image, (samples.astype(np.int64) * 510 + most) // (2 * most))

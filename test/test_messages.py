"""Messages: encodings with hand-checked pixels, byte-exact wire formats, and refusal of what makes no sense."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.geometry import Intrinsics
from dfs_ros.transport import definitions
from dfs_ros.transport.definitions import deserialize, serialize, type_store
from dfs_ros.transport.messages import (
    CAMERA_INFO,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    IMAGE_ENCODINGS,
    POINTS,
    Diagnostic,
    camera_info_from_message,
    camera_info_message,
    depth_from_message,
    depth_message,
    diagnostics_message,
    focus_from_diagnostics,
    focus_from_message,
    focus_message,
    image_from_message,
    image_message,
    message,
    message_class,
    points_message,
    stamp_ns,
    time_message,
    trigger_response,
)
from dfs_ros.types import FocusMetadata, LensState

STAMP = 1_700_000_000_123_456_789


def raw_image(encoding: str, height: int, width: int, step: int, data: bytes, big_endian: bool = False) -> object:
    return message(
        IMAGE,
        height=height,
        width=width,
        encoding=encoding,
        step=step,
        is_bigendian=int(big_endian),
        data=np.frombuffer(data, np.uint8),
    )


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
        ("mono16", 4, struct.pack("<2H", 128, 129), [[0, 1]]),  # 128 / 257 rounds down, 129 / 257 up
        ("16UC1", 4, struct.pack("<2H", 65535, 32896), [[255, 128]]),
    ],
)
def test_pixels_of_plain_encodings(encoding, step, data, expected):
    height, width = np.shape(expected)[:2]
    image = image_from_message(raw_image(encoding, height, width, step, data))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.array(expected))


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
    layout = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}.get(encoding.rstrip("0168"), 1)
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
        ({"encoding": "jpeg"}, r"expected one of rgb8, .*nv21, received 'jpeg'"),
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


# --- point clouds ----------------------------------------------------------------------------------------------------


def test_point_cloud_is_byte_exact():
    points = np.array([[[1, 2, 3], [np.nan] * 3]], np.float32)
    plain = points_message(points, STAMP, "optical")
    nan = struct.pack("<f", math.nan)
    assert bytes(plain.data) == struct.pack("<3f", 1, 2, 3) + bytes(4) + nan * 3 + bytes(4)
    assert [(f.name, f.offset, f.datatype, f.count) for f in plain.fields] == [
        ("x", 0, 7, 1),
        ("y", 4, 7, 1),
        ("z", 8, 7, 1),
    ]
    assert (plain.height, plain.width, plain.point_step, plain.row_step) == (1, 2, 16, 32)
    assert (plain.is_bigendian, plain.is_dense) == (False, False)
    colour = points_message(points, STAMP, "optical", np.array([[[10, 20, 30], [255, 0, 1]]], np.uint8))
    first = struct.pack("<3f", 1, 2, 3) + bytes(4) + bytes([30, 20, 10, 0]) + bytes(12)
    assert bytes(colour.data[:32]) == first
    assert bytes(colour.data[48:52]) == bytes([1, 0, 255, 0])
    assert (colour.fields[3].name, colour.fields[3].offset, colour.point_step, colour.row_step) == ("rgb", 16, 32, 64)
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        points_message(points[0], 0, "optical")


def test_the_whole_point_cloud_on_the_wire():
    msg = points_message(np.array([[[1, 2, 3]]], np.float32), 5 * 10**9 + 7, "ab")
    expected = b"\0\1\0\0" + struct.pack("<iI", 5, 7) + struct.pack("<I", 3) + b"ab\0\0"
    expected += struct.pack("<II", 1, 1) + struct.pack("<I", 3)
    for name, offset in ((b"x", 0), (b"y", 4), (b"z", 8)):
        expected += struct.pack("<I", 2) + name + b"\0\0\0" + struct.pack("<IB3xI", offset, 7, 1)
    expected += struct.pack("<B3xII", 0, 16, 16) + struct.pack("<I", 16) + struct.pack("<3f", 1, 2, 3) + bytes(4)
    expected += b"\0" + bytes(3)  # is_dense, and padding to a multiple of 4
    assert bytes(serialize(msg, POINTS)) == expected


# --- focus -----------------------------------------------------------------------------------------------------------

FOCUS_FIELDS = (
    "header focus_diopters focus_start_diopters focus_end_diopters focus_sigma_diopters raw_position raw_unit "
    "calibration source lens_state focal_length_m f_number magnification exposure sweep_id index count"
)


def test_frame_focus_has_the_fields_and_constants_that_others_rely_on():
    names = [name for name, _ in type_store().fielddefs[FOCUS][1]]
    assert " ".join(names) == FOCUS_FIELDS
    constants = message_class(FOCUS)
    assert (constants.UNCALIBRATED, constants.APPROXIMATE, constants.CALIBRATED) == (0, 1, 2)
    assert (constants.REPORTED, constants.COMMANDED, constants.INTERPOLATED) == (0, 1, 2)
    assert [getattr(constants, state.name) for state in LensState] == [int(state) for state in LensState]


def test_focus_survives_the_wire():
    focus = FocusMetadata(
        stamp_ns=STAMP,
        focus_diopters=1.5,
        focus_start_diopters=1.25,
        focus_end_diopters=1.75,
        focus_sigma_diopters=0.125,
        lens_state=LensState.MOVING,
        focal_length_m=0.0625,
        f_number=1.75,
        magnification=1.0625,
        exposure_ns=1_016_666_667,
        sweep_id=4_000_000_000,
        index=60_000,
        count=65_535,
    )
    msg = focus_message(
        focus, "optical", calibration="APPROXIMATE", source="COMMANDED", raw_position=512, raw_unit="dac"
    )
    received = deserialize(bytes(serialize(msg, FOCUS)), FOCUS)
    assert focus_from_message(received) == focus
    assert (received.calibration, received.source, received.raw_unit, received.raw_position) == (1, 1, "dac", 512)
    assert received.header.frame_id == "optical"


def test_unknown_focus_stays_unknown():
    nothing = focus_from_message(focus_message(FocusMetadata(STAMP, math.nan), ""))
    floats = {f.name: getattr(nothing, f.name) for f in fields(nothing) if f.type == "float"}
    assert len(floats) == 7 and all(map(math.isnan, floats.values()))
    assert nothing.count == 0
    raw_only = focus_message(FocusMetadata(STAMP, 2.0, 2.0, 2.0), "", calibration="UNCALIBRATED")
    assert math.isnan(focus_from_message(raw_only).focus_diopters)
    assert math.isnan(focus_from_message(raw_only).focus_start_diopters)
    strange = replace(raw_only, lens_state=77)
    assert focus_from_message(strange).lens_state is LensState.UNKNOWN
    with pytest.raises(ValueError, match="calibration: expected one of UNCALIBRATED, APPROXIMATE, CALIBRATED"):
        focus_message(nothing, "", calibration="MOVING")
    with pytest.raises(ValueError, match="source: expected one of REPORTED"):
        focus_message(nothing, "", source="good")


def test_focus_of_camera_ros_comes_from_diagnostics():
    values = {"LensPosition": "2.250000", "ExposureTime": "16666", "AfState": "0"}
    array = diagnostics_message({"camera": Diagnostic("OK", "", values)}, STAMP)
    focus = focus_from_diagnostics(array)
    assert focus == replace(FocusMetadata(STAMP, 2.25, exposure_ns=16_666_000), **nan_like(focus))
    scanning = diagnostics_message({"camera": Diagnostic("OK", "", values | {"AfState": "1"})}, STAMP)
    assert focus_from_diagnostics(scanning).lens_state is LensState.MOVING
    assert focus_from_diagnostics(diagnostics_message({"fan": Diagnostic("OK", "", {"rpm": 9})}, STAMP)) is None
    broken = diagnostics_message({"camera": Diagnostic("OK", "", {"LensPosition": "x", "ExposureTime": "nan"})}, STAMP)
    assert math.isnan(focus_from_diagnostics(broken).focus_diopters)
    assert focus_from_diagnostics(broken).exposure_ns == 0


def nan_like(focus: FocusMetadata) -> dict[str, float]:
    """The very NaN objects of `focus`, as a dataclass holding another NaN is not equal to it."""
    return {f.name: v for f in fields(focus) if isinstance(v := getattr(focus, f.name), float) and math.isnan(v)}


# --- camera info, diagnostics, stamps --------------------------------------------------------------------------------


def test_camera_info_matrices():
    msg = camera_info_message(
        Intrinsics(500, 510, 320.5, 240.25), (480, 640), STAMP, "optical", [0.1, -0.2, 0, 0, 0.05]
    )
    np.testing.assert_array_equal(msg.k, [500, 0, 320.5, 0, 510, 240.25, 0, 0, 1])
    np.testing.assert_array_equal(msg.p, [500, 0, 320.5, 0, 0, 510, 240.25, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(msg.r, np.eye(3).ravel())
    info = camera_info_from_message(deserialize(bytes(serialize(msg, CAMERA_INFO)), CAMERA_INFO))
    assert info.size == (480, 640)
    assert info.intrinsics == Intrinsics(500, 510, 320.5, 240.25)
    assert (info.stamp_ns, info.frame_id, info.distortion_model) == (STAMP, "optical", "plumb_bob")
    assert info.distortion == (0.1, -0.2, 0, 0, 0.05)


def test_camera_info_of_binned_and_cropped_images():
    msg = camera_info_message(Intrinsics(500, 510, 320, 240), (480, 640), 0, "")
    msg.binning_x, msg.binning_y = 2, 2
    msg.roi = replace(msg.roi, x_offset=100, y_offset=40, width=400, height=300)
    info = camera_info_from_message(msg)
    assert (info.size, info.intrinsics) == ((150, 200), Intrinsics(250, 255, 110, 100))
    msg.roi.width = 541
    with pytest.raises(ValueError, match="beyond the sensor of 640 x 480"):
        camera_info_from_message(msg)


def test_uncalibrated_camera_info_is_refused():
    with pytest.raises(ValueError, match="expected a calibrated camera, received fx = 0"):
        camera_info_from_message(message(CAMERA_INFO, height=480, width=640))
    for broken in (Intrinsics(math.nan, 500, 1, 1), Intrinsics(500, math.inf, 1, 1), Intrinsics(500, 500, math.nan, 1)):
        with pytest.raises(ValueError, match="expected a calibrated camera"):
            camera_info_from_message(camera_info_message(broken, (480, 640), 0, ""))
    with pytest.raises(ValueError, match="0 x 480"):
        camera_info_from_message(camera_info_message(Intrinsics(500, 500, 1, 1), (480, 0), 0, ""))


def test_diagnostics_and_trigger():
    array = diagnostics_message({"dfs: rate": Diagnostic("WARN", "slow", {"Hz": 3.5})}, STAMP, "/dfs")
    received = deserialize(bytes(serialize(array, DIAGNOSTICS)), DIAGNOSTICS)
    (status,) = received.status
    assert (status.level, status.name, status.message, status.hardware_id) == (1, "dfs: rate", "slow", "/dfs")
    assert [(v.key, v.value) for v in status.values] == [("Hz", "3.5")]
    assert bytes(serialize(trigger_response(True, "a"), "std_srvs/srv/Trigger_Response")) == (
        b"\0\1\0\0" + b"\1\0\0\0" + struct.pack("<I", 2) + b"a\0" + bytes(2)
    )


@given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
def test_stamps_are_exact(nanoseconds):
    time = time_message(nanoseconds)
    assert 0 <= time.nanosec < 10**9
    assert stamp_ns(time) == nanoseconds


def test_stamps_beyond_32_bits_of_seconds_are_refused():
    with pytest.raises(ValueError, match="seconds fit 32 bits"):
        time_message(2**31 * 10**9)


# --- definitions and CDR ---------------------------------------------------------------------------------------------


def test_type_hashes_are_those_of_ros():
    # as `ros2 topic info -v` of Jazzy prints them
    assert type_store().hash_rihs01("std_msgs/msg/String") == (
        "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"
    )
    assert type_store().hash_rihs01(IMAGE) == "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"


WIRE_TYPES = [
    IMAGE,
    CAMERA_INFO,
    POINTS,
    FOCUS,
    DIAGNOSTICS,
    "rmw_dds_common/msg/ParticipantEntitiesInfo",
    "rcl_interfaces/msg/Log",
    "std_srvs/srv/Trigger_Request",
    "std_srvs/srv/Trigger_Response",
    "rcl_interfaces/srv/DescribeParameters_Response",
    "rcl_interfaces/srv/SetParameters_Request",
]


def filled(type_name: str, rng: np.random.Generator, depth: int = 0) -> object:
    """A message with something in every field; sequences of one to three."""
    values = {}
    for name, (kind, detail) in type_store().fielddefs[type_name][1]:
        values[name] = filled_field(int(kind), detail, rng, depth)
    return message(type_name, **values)


def filled_field(kind: int, detail, rng, depth):
    base, named, array = 1, 2, 3
    if kind == base:
        name = detail[0]
        if name == "string":
            return "grün"[: int(rng.integers(0, 5))]
        if name == "bool":
            return bool(rng.integers(0, 2))
        return float(rng.integers(-9, 9)) / 4 if name.startswith("float") else int(rng.integers(0, 100))
    if kind == named:
        return filled(detail, rng, depth + 1)
    (element_kind, element), length = detail
    count = length if kind == array else int(rng.integers(1, 1 + (length or 3)))
    items = [filled_field(int(element_kind), element, rng, depth + 1) for _ in range(count)]
    if int(element_kind) == base and element[0] != "string":
        return np.array(items, {"char": "uint8", "byte": "uint8"}.get(element[0], element[0]))
    return items


@pytest.mark.parametrize("type_name", WIRE_TYPES)
def test_cdr_is_that_of_another_implementation(type_name):
    pytest.importorskip("cyclonedds", reason="the other implementation is cyclonedds' serialiser")
    from dfs_ros.transport.dds_types import idl_type

    def plain(value, kind):
        if hasattr(value, "__msgtype__"):
            wanted = idl_type(value.__msgtype__)
            names = [name for name, _ in type_store().fielddefs[value.__msgtype__][1]]
            return wanted(**{name: plain(getattr(value, name), None) for name in names})
        if isinstance(value, np.ndarray):
            return value.tolist()
        return [plain(item, None) for item in value] if isinstance(value, list) else value

    for seed in range(5):
        msg = filled(type_name, np.random.default_rng(seed))
        theirs = plain(msg, None).serialize(use_version_2=False)
        ours = bytes(serialize(msg, type_name))
        assert ours == theirs.ljust(len(ours), b"\0")
        assert len(ours) % 4 == 0 and len(ours) - len(theirs) < 4
        assert bytes(serialize(deserialize(ours, type_name), type_name)) == ours


@pytest.mark.parametrize("type_name", WIRE_TYPES)
def test_big_endian_cdr_is_read(type_name):
    msg = filled(type_name, np.random.default_rng(0))
    big = bytes(type_store().serialize_cdr(msg, type_name, little_endian=False))
    assert bytes(serialize(deserialize(big, type_name), type_name)) == bytes(serialize(msg, type_name))


@pytest.mark.parametrize("type_name", WIRE_TYPES)
def test_truncated_cdr_is_a_value_error(type_name):
    whole = bytes(serialize(filled(type_name, np.random.default_rng(3)), type_name))
    for length in range(len(whole) - 4):
        with pytest.raises(ValueError, match="not a "):
            deserialize(whole[:length], type_name)
    with pytest.raises(ValueError, match="not a "):
        deserialize(whole + bytes(8), type_name)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WIRE_TYPES), st.binary(max_size=200), st.booleans())
def test_garbage_is_a_value_error_or_a_message(type_name, garbage, with_header):
    data = (b"\0\1\0\0" if with_header else b"") + garbage
    try:
        received = deserialize(data, type_name)
    except ValueError:
        return
    assert isinstance(received, message_class(type_name))


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


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"height": -1}, "does not fit its field"),
        ({"height": 2**32}, "does not fit its field"),
        ({"encoding": 8}, "does not fit its field"),
        ({"data": [1, 2]}, "does not fit its field"),
        ({"header": None}, "does not fit its field"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_they_are_sent(change, match):
    with pytest.raises(ValueError, match=match):
        serialize(replace(raw_image("rgb8", 1, 1, 3, b"abc"), **change), IMAGE)
    with pytest.raises(ValueError, match="expected a sensor_msgs/msg/CameraInfo"):
        serialize(raw_image("rgb8", 1, 1, 3, b"abc"), CAMERA_INFO)


def test_unknown_types_and_fields_are_refused():
    with pytest.raises(ValueError, match="expected a ROS 2 type such as sensor_msgs/msg/Image, received 'Image'"):
        message("Image")
    with pytest.raises(ValueError, match="expected fields stamp, frame_id, received frameid"):
        message("std_msgs/msg/Header", frameid="x")
    with pytest.raises(ValueError, match="received 'std_srvs/srv/Nothing_Request'"):
        definitions.service_parts("std_srvs/srv/Nothing")


@pytest.mark.parametrize(("distro", "expected"), [("humble", "humble 24"), ("nonsense", "jazzy 16"), ("", "jazzy 16")])
def test_definitions_are_of_the_distribution_that_is_set(distro, expected):
    code = (
        "from dfs_ros.transport.definitions import message, ros_distro\n"
        "print(ros_distro(), len(message('rmw_dds_common/msg/Gid').data))"
    )
    environment = os.environ | {"ROS_DISTRO": distro, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert output.stdout.strip() == expected

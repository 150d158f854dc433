"""Point clouds, focus, camera info, diagnostics and stamps: byte-exact, and refused where they make no sense."""

from __future__ import annotations

import math
import struct
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_rig import STAMP

from dfs_ros.messages.convert import (
    CAMERA_INFO,
    DIAGNOSTICS,
    FOCUS,
    POINTS,
    Diagnostic,
    camera_info_from_message,
    camera_info_message,
    diagnostics_from_message,
    diagnostics_message,
    focus_from_diagnostics,
    focus_from_message,
    focus_message,
    message,
    message_class,
    points_message,
    stamp_ns,
    time_message,
    trigger_response,
)
from dfs_ros.messages.definitions import deserialize, serialize, type_store
from dfs_ros.messages.node_status import drops, number
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.types import FocusMetadata, LensState

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
        index=60,
        count=64,
        raw_position=512.0,
        raw_unit="dac",
    )
    msg = focus_message(
        focus, "optical", calibration="APPROXIMATE", source="COMMANDED", raw_position=512, raw_unit="dac"
    )
    received = deserialize(bytes(serialize(msg, FOCUS)), FOCUS)
    assert focus_from_message(received) == focus
    assert (received.calibration, received.source, received.raw_unit, received.raw_position) == (1, 1, "dac", 512)
    received.calibration = 2  # the focus needs no calibration
    assert math.isnan(focus_from_message(received).raw_position)
    assert received.header.frame_id == "optical"


@pytest.mark.parametrize(
    ("calibration", "sigma", "meant"),
    [
        ("CALIBRATED", 0.0, 0.0),
        ("APPROXIMATE", 0.0, math.nan),  # as a driver leaves it that does not know the field
        ("APPROXIMATE", 0.25, 0.25),
        ("CALIBRATED", math.nan, math.nan),
        ("CALIBRATED", -1.0, math.nan),
    ],
)
def test_a_sigma_of_zero_is_that_of_a_calibrated_lens_only(calibration, sigma, meant):
    focus = FocusMetadata(STAMP, 2.0, focus_sigma_diopters=sigma)
    np.testing.assert_equal(
        focus_from_message(focus_message(focus, "", calibration=calibration)).focus_sigma_diopters, meant
    )


def test_unknown_focus_stays_unknown():
    nothing = focus_from_message(focus_message(FocusMetadata(STAMP, math.nan), ""))
    floats = {f.name: getattr(nothing, f.name) for f in fields(nothing) if f.type == "float"}
    assert len(floats) == 8 and all(map(math.isnan, floats.values()))
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
    expected = FocusMetadata(STAMP, 2.25, exposure_ns=16_666_000, raw_position=2.25, raw_unit="LensPosition")
    assert focus == replace(expected, **nan_like(focus))
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


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact(nanoseconds):
    time = time_message(nanoseconds)
    assert 0 <= time.nanosec < 10**9
    assert stamp_ns(time) == nanoseconds


@pytest.mark.parametrize("fields", [{"sec": -1}, {"nanosec": 10**9}, {"sec": 2**31 - 1, "nanosec": 2**32 - 1}])
def test_times_that_no_clock_gives_are_refused(fields):
    with pytest.raises(ValueError, match="time: expected seconds of 0 or more"):
        stamp_ns(message("builtin_interfaces/msg/Time", **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 65},
        {"count": 3, "index": 3},
        {"f_number": 129.0},
        {"focal_length_m": math.inf},
        {"magnification": 0.01},
        {"magnification": 11.0},
    ],
)
def test_focus_messages_beyond_the_limits_are_refused(fields):
    good = focus_message(FocusMetadata(STAMP, 2.0), "")
    assert focus_from_message(good).focus_diopters == 2.0
    for name, value in fields.items():
        setattr(good, name, value)
    with pytest.raises(ValueError, match=f"focus: expected .*{next(iter(fields))}"):
        focus_from_message(good)


@pytest.mark.parametrize(
    ("k", "words"),
    [
        ({0: 30.0}, "expected fx of 141 to 1.6e"),
        ({4: 1e9}, "expected fy of"),
        ({2: -1601.0}, "expected cx of -1600 to 3200"),
        ({5: 2401.0}, "expected cy of -1200 to 2400"),
    ],
)
def test_intrinsics_of_no_pinhole_are_refused(k, words):
    msg = camera_info_message(Intrinsics(1500.0, 1500.0, 800.0, 600.0), (1200, 1600), STAMP, "")
    assert camera_info_from_message(msg).size == (1200, 1600)
    for index, value in k.items():
        msg.k[index] = value
    with pytest.raises(ValueError, match=words):
        camera_info_from_message(msg)


def test_texts_and_numbers_of_diagnostics_are_made_harmless():
    values = {"dropped": "inf", "late": "9" * 5000, "used": "3", "key\n": "a\x1b[2J"}
    msg = diagnostics_message({"dfs: \ndepth": Diagnostic("OK", "all\nis well", values)}, STAMP)
    ((name, status),) = diagnostics_from_message(msg).items()
    assert (name, status.message, status.values["key\\n"]) == ("dfs: \\ndepth", "all\\nis well", "a\\x1b[2J")
    assert drops(status) == {}
    assert number(status, "used") == 3


def test_stamps_beyond_32_bits_of_seconds_are_refused():
    with pytest.raises(ValueError, match="seconds fit 32 bits"):
        time_message(2**31 * 10**9)

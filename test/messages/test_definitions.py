"""Definitions and CDR: hashes and bytes as others have them, and refusal of what does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from message_rig import raw_image

from dfs_ros.messages import definitions
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    POINTS,
    message,
    message_class,
)
from dfs_ros.messages.definitions import deserialize, serialize, type_store
from dfs_ros.messages.motion import IMU, TF


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
    TF,
    IMU,
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
    from dfs_ros.transport.dds.types import idl_type

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
        "from dfs_ros.messages.definitions import message, ros_distro\n"
        "print(ros_distro(), len(message('rmw_dds_common/msg/Gid').data))"
    )
    environment = os.environ | {"ROS_DISTRO": distro, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240, check=True
    )
    assert output.stdout.strip() == expected

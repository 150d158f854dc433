"""Conversion of our types <-> ROS messages; import message functions from here.

Messages are built from the definitions of :mod:`dfs_ros.messages.definitions`; images are in
:mod:`dfs_ros.messages.images`. Invalid received values are refused with ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfs_ros.messages import points
from dfs_ros.messages.definitions import (
    Message,
    header,
    message,
    message_class,
    ros_distro,
    stamp_ns,
    time_message,
)
from dfs_ros.messages.images import (
    DEPTH_ENCODINGS,
    IMAGE_ENCODINGS,
    depth_from_message,
    depth_message,
    image_from_message,
    image_message,
)
from dfs_ros.messages.limits import check_intrinsics
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.system.printable import printable
from dfs_ros.types import MAX_FRAMES, FocusMetadata, LensState

__all__ = [
    "CAMERA_INFO",
    "COMPRESSED",
    "DEPTH_ENCODINGS",
    "DIAGNOSTICS",
    "FOCUS",
    "IMAGE",
    "IMAGE_ENCODINGS",
    "POINTS",
    "TRIGGER",
    "CameraInfo",
    "Diagnostic",
    "Message",
    "camera_info_from_message",
    "camera_info_message",
    "depth_from_message",
    "depth_message",
    "diagnostics_from_message",
    "diagnostics_message",
    "focus_from_diagnostics",
    "focus_from_message",
    "focus_message",
    "header",
    "image_from_message",
    "image_message",
    "message",
    "message_class",
    "points_message",
    "ros_distro",
    "stamp_ns",
    "time_message",
    "trigger_response",
]

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POINTS = "sensor_msgs/msg/PointCloud2"
FOCUS = "dfs_ros/msg/FrameFocus"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
TRIGGER = "std_srvs/srv/Trigger"


# A thin-prism and tilted model has 14, and some drivers pad them with zeros.
_MOST_COEFFICIENTS = 64
_MOST_OF_LENS = {"focal_length_m": 2.0, "f_number": 128.0, "magnification": 10.0}
_LEAST_MAGNIFICATION = 0.1
_MOST_EXPOSURE_US = 3600e6


class CameraInfo(NamedTuple):
    """Content of a sensor_msgs/CameraInfo: image size in pixels, pinhole, distortion."""

    stamp_ns: int
    frame_id: str
    size: tuple[int, int]  # (height, width)
    intrinsics: Intrinsics
    distortion_model: str = ""
    distortion: tuple[float, ...] = ()


def camera_info_message(
    intrinsics: Intrinsics, size: tuple[int, int], stamp_ns: int, frame_id: str, distortion: Iterable[float] = ()
) -> Message:
    """Make a sensor_msgs/CameraInfo of images of `size` (height, width).

    `distortion`: plumb_bob k1, k2, t1, t2, k3.
    """
    fx, fy, cx, cy = (float(v) for v in intrinsics)
    coefficients = np.array(list(distortion) or [0.0] * 5, np.float64)
    return message(
        CAMERA_INFO,
        header=header(stamp_ns, frame_id),
        height=size[0],
        width=size[1],
        distortion_model="plumb_bob",
        d=coefficients,
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], np.float64),
        r=np.eye(3).reshape(-1),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0], np.float64),
    )


def camera_info_from_message(msg: Message, rectified: bool = False) -> CameraInfo:
    """Size and intrinsics from a sensor_msgs/CameraInfo, after binning and region of interest.

    Intrinsics are those of the raw images, K with the distortion, or of the `rectified` ones, P without distortion.

    Raises ValueError for an uncalibrated camera (k of zeros, as drivers without a calibration publish) and for invalid
    numbers.
    """
    fx, fy, cx, cy = (float(msg.p[i]) for i in (0, 5, 2, 6)) if rectified else (float(msg.k[i]) for i in (0, 4, 2, 5))
    height, width = int(msg.height), int(msg.width)
    if not (fx > 0 and fy > 0 and all(map(math.isfinite, (fx, fy, cx, cy)))):
        raise ValueError(
            f"camera_info: expected a calibrated camera, received fx = {fx:g}, fy = {fy:g}, cx = {cx:g}, cy = {cy:g}; "
            "calibrate the camera, or give its driver a calibration file"
        )
    if height < 1 or width < 1:
        raise ValueError(f"camera_info: expected a size over 0, received {width} x {height}")
    if len(msg.d) > _MOST_COEFFICIENTS:
        raise ValueError(f"camera_info: expected at most {_MOST_COEFFICIENTS} coefficients d, received {len(msg.d)}")
    roi = msg.roi
    if roi.width and roi.height:
        if roi.x_offset + roi.width > width or roi.y_offset + roi.height > height:
            raise ValueError(f"camera_info: region of interest {roi} beyond the sensor of {width} x {height} px")
        height, width = int(roi.height), int(roi.width)
        cx, cy = cx - roi.x_offset, cy - roi.y_offset
    across, down = max(1, int(msg.binning_x)), max(1, int(msg.binning_y))
    pinhole = Intrinsics(fx / across, fy / down, cx / across, cy / down)
    check_intrinsics(pinhole, (height // down, width // across), "camera_info")
    return CameraInfo(
        stamp_ns(msg.header.stamp),
        msg.header.frame_id,
        (height // down, width // across),
        pinhole,
        msg.distortion_model,
        () if rectified else tuple(float(v) for v in msg.d),
    )


def focus_message(
    focus: FocusMetadata,
    frame_id: str,
    *,
    calibration: str = "CALIBRATED",
    source: str = "REPORTED",
    raw_position: float = math.nan,
    raw_unit: str = "",
) -> Message:
    """Make a dfs_ros/FrameFocus.

    `calibration` and `source`: names of the constants in msg/FrameFocus.msg.
    """
    constants = message_class(FOCUS)
    for name, value, known in (
        ("calibration", calibration, ("UNCALIBRATED", "APPROXIMATE", "CALIBRATED")),
        ("source", source, ("REPORTED", "COMMANDED", "INTERPOLATED")),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, received {value!r}")
    seconds, nanoseconds = divmod(int(focus.exposure_ns), 10**9)
    return message(
        FOCUS,
        header=header(focus.stamp_ns, frame_id),
        focus_diopters=focus.focus_diopters,
        focus_start_diopters=focus.focus_start_diopters,
        focus_end_diopters=focus.focus_end_diopters,
        focus_sigma_diopters=focus.focus_sigma_diopters,
        raw_position=raw_position,
        raw_unit=raw_unit,
        calibration=getattr(constants, calibration),
        source=getattr(constants, source),
        lens_state=int(focus.lens_state),
        focal_length_m=focus.focal_length_m,
        f_number=focus.f_number,
        magnification=focus.magnification,
        exposure=message("builtin_interfaces/msg/Duration", sec=seconds, nanosec=nanoseconds),
        sweep_id=focus.sweep_id,
        index=focus.index,
        count=focus.count,
    )


def focus_from_message(msg: Message, most_images: int = MAX_FRAMES) -> FocusMetadata:
    """Focus metadata of a dfs_ros/FrameFocus. The focus of an UNCALIBRATED lens is NaN.

    A standard deviation of 0, the initial value of messages, is one only of a CALIBRATED lens, else NaN.

    Raises ValueError for a sweep of over `most_images`, an index beyond it, and a lens that none is; the focus itself
    is checked by the assembler.
    """
    if msg.count > most_images or 0 < msg.count <= msg.index:
        raise ValueError(
            f"focus: expected count of 0 to {most_images} and an index below it, received count {msg.count} and index "
            f"{msg.index}"
        )
    for name, most in _MOST_OF_LENS.items():
        if getattr(msg, name) > most:
            raise ValueError(f"focus: expected {name} of at most {most:g}, received {getattr(msg, name):g}")
    if 0 < msg.magnification < _LEAST_MAGNIFICATION:
        raise ValueError(
            f"focus: expected a magnification of {_LEAST_MAGNIFICATION:g} or more, received {msg.magnification:g}"
        )
    constants, unknown = message_class(FOCUS), math.nan
    uncalibrated = msg.calibration == constants.UNCALIBRATED  # type: ignore[attr-defined]
    calibrated = msg.calibration == constants.CALIBRATED  # type: ignore[attr-defined]
    sigma = float(msg.focus_sigma_diopters)
    return FocusMetadata(
        stamp_ns=stamp_ns(msg.header.stamp),
        focus_diopters=unknown if uncalibrated else float(msg.focus_diopters),
        focus_start_diopters=unknown if uncalibrated else float(msg.focus_start_diopters),
        focus_end_diopters=unknown if uncalibrated else float(msg.focus_end_diopters),
        focus_sigma_diopters=sigma if sigma > 0 or (calibrated and sigma == 0) else unknown,
        lens_state=LensState(msg.lens_state),
        focal_length_m=float(msg.focal_length_m),
        f_number=float(msg.f_number),
        magnification=float(msg.magnification),
        exposure_ns=stamp_ns(msg.exposure),
        sweep_id=int(msg.sweep_id),
        index=int(msg.index),
        count=int(msg.count),
        raw_position=float(msg.raw_position) if msg.raw_unit and not calibrated else unknown,
        raw_unit=str(msg.raw_unit),
    )


def focus_from_diagnostics(msg: Message) -> FocusMetadata | None:
    """Focus metadata from camera_ros' DiagnosticArray; None without a lens position.

    camera_ros publishes one with each image. The header is the image's; the values are libcamera's metadata by name:
    LensPosition in dioptres, ExposureTime in microseconds, AfState 1 during an autofocus scan.
    """
    values = {pair.key: pair.value for status in msg.status for pair in status.values}
    if "LensPosition" not in values:
        return None
    focus = _number(values["LensPosition"])
    exposure_us = _number(values.get("ExposureTime", "0"))
    return FocusMetadata(
        stamp_ns=stamp_ns(msg.header.stamp),
        focus_diopters=focus,
        lens_state=LensState.MOVING if values.get("AfState") == "1" else LensState.UNKNOWN,
        exposure_ns=round(exposure_us * 1000) if 0 <= exposure_us <= _MOST_EXPOSURE_US else 0,
        raw_position=focus,
        raw_unit="LensPosition",
    )


def points_message(
    points_m: NDArray[np.float32], stamp_ns: int, frame_id: str, rgb: NDArray[np.uint8] | None = None
) -> Message:
    """Make an organised sensor_msgs/PointCloud2 of points (H, W, 3) in metres.

    NaN = no point; `rgb` (H, W, 3) or None.

    16 bytes a point (x y z and padding), 32 with colour (rgb at offset 16), little endian.
    """
    if points_m.ndim != 3:
        raise ValueError(f"points_m: expected shape (H, W, 3), received {points_m.shape}")
    coloured = rgb is not None
    data = points.pack_xyz(points_m) if rgb is None else points.pack_xyzrgb(points_m, rgb)
    step = points.XYZRGB_POINT_STEP if coloured else points.XYZ_POINT_STEP
    fields = points.XYZRGB_FIELDS if coloured else points.XYZ_FIELDS
    height, width = points_m.shape[:2]
    return message(
        POINTS,
        header=header(stamp_ns, frame_id),
        height=height,
        width=width,
        fields=[
            message("sensor_msgs/msg/PointField", name=name, offset=offset, datatype=datatype, count=count)
            for name, offset, datatype, count in fields
        ],
        is_bigendian=False,
        point_step=step,
        row_step=step * width,
        data=data,
        is_dense=False,
    )


_MOST_NAME, _MOST_VALUE = 200, 500  # characters
_LEVELS = ("OK", "WARN", "ERROR", "STALE")  # as DiagnosticStatus numbers them


class Diagnostic(NamedTuple):
    """State of a part of a node: level, line of text, named values.

    `level`: OK, WARN, ERROR or STALE.
    """

    level: str
    message: str
    values: Mapping[str, object] = {}


def diagnostics_message(diagnostics: Mapping[str, Diagnostic], stamp_ns: int, hardware_id: str = "") -> Message:
    """Make a diagnostic_msgs/DiagnosticArray of diagnostics by name."""
    return message(
        DIAGNOSTICS,
        header=header(stamp_ns, ""),
        status=[
            message(
                "diagnostic_msgs/msg/DiagnosticStatus",
                level=_LEVELS.index(diagnostic.level),
                name=name,
                message=diagnostic.message,
                hardware_id=hardware_id,
                values=[
                    message("diagnostic_msgs/msg/KeyValue", key=key, value=str(value))
                    for key, value in diagnostic.values.items()
                ],
            )
            for name, diagnostic in diagnostics.items()
        ],
    )


def diagnostics_from_message(msg: Message) -> dict[str, Diagnostic]:
    """Diagnostics by name; values as text. All text is escaped, and cut where it is long."""
    return {
        printable(status.name, _MOST_NAME): Diagnostic(
            _LEVELS[min(int(status.level), len(_LEVELS) - 1)],
            printable(status.message),
            {printable(pair.key, _MOST_NAME): printable(pair.value, _MOST_VALUE) for pair in status.values},
        )
        for status in msg.status
    }


def trigger_response(success: bool, text: str = "") -> Message:
    """Make the answer of a std_srvs/Trigger service."""
    return message(f"{TRIGGER}_Response", success=success, message=text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

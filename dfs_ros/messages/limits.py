"""Limits of what is taken from outside, checked once where it enters: settings of section `limits`, and those below."""

from __future__ import annotations

import math

from dfs_ros.config import LimitsConfig
from dfs_ros.optics.pinhole import Intrinsics

SMALL_MESSAGE_BYTES = 2**18
"""Largest message of a type without pixels or points; /diagnostics of a whole robot has some 10,000."""
_LARGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2")

MAX_HALF_FIELD_DEG = 80.0
"""Largest angle from the optical axis to the edge of a pinhole image; fisheye lenses are no pinholes."""
MAX_FOCAL_LENGTH_SIDES = 1000.0
"""Largest focal length in lengths of the image side; a field of view of 0.06 degrees."""


def check_bytes(count: int, type_name: str, limits: LimitsConfig) -> None:
    """Raise ValueError for a message of type `type_name` with over its largest number of bytes."""
    large = type_name in _LARGE_TYPES
    most = limits.message_megabytes * 1e6 if large else SMALL_MESSAGE_BYTES
    if count > most:
        remedy = "; raise limits.message_megabytes if that is meant" if large else ""
        raise ValueError(f"{type_name}: expected at most {most:.0f} bytes, received {count}{remedy}")


def check_size(size: tuple[int, int], name: str, limits: LimitsConfig) -> None:
    """Raise ValueError for an image of `size` (height, width) with too many pixels, or too long a side."""
    height, width = size
    if height * width > limits.image_megapixels * 1e6:
        raise ValueError(
            f"{name}: expected at most {limits.image_megapixels:g} megapixels, received {width} x {height}; raise "
            "limits.image_megapixels if that is meant"
        )
    if max(size) > limits.image_side_px:
        raise ValueError(
            f"{name}: expected sides of at most {limits.image_side_px} pixels, received {width} x {height}; raise "
            "limits.image_side_px if that is meant"
        )


def check_intrinsics(pinhole: Intrinsics, size: tuple[int, int], name: str) -> None:
    """Raise ValueError for intrinsics that no pinhole camera of images of `size` (height, width) has.

    Refused are half fields of view over :data:`MAX_HALF_FIELD_DEG`, focal lengths over :data:`MAX_FOCAL_LENGTH_SIDES`
    sides, and principal points over one side beyond the image.
    """
    height, width = size
    shortest = 0.5 / math.tan(math.radians(MAX_HALF_FIELD_DEG))
    for axis, focal_px, centre_px, side_px in (
        ("x", pinhole.fx, pinhole.cx, width),
        ("y", pinhole.fy, pinhole.cy, height),
    ):
        if not shortest * side_px <= focal_px <= MAX_FOCAL_LENGTH_SIDES * side_px:
            raise ValueError(
                f"{name}: expected f{axis} of {shortest * side_px:.3g} to {MAX_FOCAL_LENGTH_SIDES * side_px:.3g} for "
                f"{side_px} pixels, received {focal_px:g}; publish the camera_info of these very images"
            )
        if not -side_px <= centre_px <= 2 * side_px:
            raise ValueError(
                f"{name}: expected c{axis} of {-side_px} to {2 * side_px} for {side_px} pixels, received {centre_px:g}"
            )

"""PointCloud2 bytes of points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

XYZ_POINT_STEP = 16


XYZRGB_POINT_STEP = 32


FLOAT32 = 7  # sensor_msgs/PointField.FLOAT32


# (name, offset, datatype, count) of each sensor_msgs/PointField, in order.
XYZ_FIELDS = (("x", 0, FLOAT32, 1), ("y", 4, FLOAT32, 1), ("z", 8, FLOAT32, 1))


XYZRGB_FIELDS = (*XYZ_FIELDS, ("rgb", 16, FLOAT32, 1))


def pack_xyz(points_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pack points into the `data` of a PointCloud2 with :data:`XYZ_FIELDS`.

    x, y, z and 4 bytes of padding for each point, little endian. `points_m` (..., 3), e.g. (H, W, 3) for an organised
    cloud; returns uint8 (number of points * 16,).
    """
    points = _as_points(points_m)
    packed = np.zeros((len(points), XYZ_POINT_STEP // 4), "<f4")
    packed[:, :3] = points
    return packed.view(np.uint8).reshape(-1)


def pack_xyzrgb(points_m: NDArray[np.float32], rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack coloured points into the `data` of a PointCloud2 with :data:`XYZRGB_FIELDS`.

    32 bytes for each point, little endian: x, y, z at offset 0, 4, 8; colour at offset 16 as the bytes b, g, r, 0,
    which RViz and PCL read from a float field `rgb`. `points_m` (..., 3), `rgb` uint8 of the same shape; returns uint8
    (number of points * 32,).
    """
    points = _as_points(points_m)
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8:
        raise TypeError(f"rgb: expected a uint8 array, received {getattr(rgb, 'dtype', type(rgb).__name__)}")
    if rgb.shape != np.shape(points_m):
        raise ValueError(f"rgb: expected the shape of the points, {np.shape(points_m)}, received {rgb.shape}")
    packed = np.zeros((len(points), XYZRGB_POINT_STEP // 4), "<f4")
    packed[:, :3] = points
    colours = rgb.reshape(-1, 3).astype("<u4")
    packed.view("<u4")[:, 4] = colours[:, 0] << 16 | colours[:, 1] << 8 | colours[:, 2]
    return packed.view(np.uint8).reshape(-1)


def _as_points(points_m: NDArray[np.float32]) -> NDArray[np.float32]:
    points = np.asarray(points_m, np.float32)
    if points.ndim < 2 or points.shape[-1] != 3:
        raise ValueError(f"points_m: expected shape (..., 3), received {points.shape}")
    return points.reshape(-1, 3)

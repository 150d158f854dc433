#!/usr/bin/env python3
"""Find the height of an object above its table, and a pose to grasp it at, from depth.

    ros2 launch dfs_ros depth.launch.py
    python3 grasp_height.py --rectangle 120 104 24 28

`--rectangle`: left, top, width and height in pixels of the depth image, on the object. For each depth image it
publishes `grasp` (geometry_msgs/PoseStamped): in the middle of the object's front, at half of its height, in `--frame`,
whose z axis points up. MoveIt takes it as the goal of an approach from above or from the front.

The table is the height at which most points lie; heights are differences along z, so that an error of the depth itself,
which is along the line of sight, hardly counts for a camera that looks at the object from the side.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
import rclpy
import tf2_ros
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from dfs_ros.messages.convert import camera_info_from_message, depth_from_message
from dfs_ros.optics.pinhole import points_from_depth
from dfs_ros.transforms.rigid import transform

_BIN_M = 0.01
_FRONT_M = 0.05
"""Points this far behind the middle depth of the rectangle still belong to the object."""


class Grasp(NamedTuple):
    """Middle of the object's front (3,), height of its top over the table, and height of the table, in metres."""

    middle_m: NDArray[np.float64]
    height_m: float
    table_m: float


def grasp_of(depth_m: NDArray[np.float32], points: NDArray[np.float64], rectangle: tuple[int, int, int, int]) -> Grasp:
    """Grasp of the object in a rectangle of the image.

    `depth_m` (H, W), NaN = unknown; `points` (H, W, 3) in a frame with z up. Raises ValueError without an object there.
    """
    up = points[..., 2][np.isfinite(points[..., 2])]
    counts, edges = np.histogram(up, np.arange(up.min(), up.max() + 2 * _BIN_M, _BIN_M)) if up.size else ([0], [0.0])
    level = edges[int(np.argmax(counts))]
    table_m = float(np.median(up[np.abs(up - level - _BIN_M / 2) < _BIN_M])) if up.size else float("nan")
    left, top, width, height = rectangle
    inside = np.zeros(depth_m.shape, bool)
    inside[top : top + height, left : left + width] = True
    inside &= points[..., 2] > table_m + _BIN_M
    if not inside.any():
        raise ValueError(f"rectangle {rectangle}: no point over the table, which is at {table_m:.3f} m")
    inside &= np.abs(depth_m - np.median(depth_m[inside])) < _FRONT_M
    object_points = points[inside]
    top_m = float(np.percentile(object_points[:, 2], 98))
    middle = np.median(object_points, axis=0)
    middle[2] = (top_m + table_m) / 2
    return Grasp(middle, top_m - table_m, table_m)


class GraspHeight(Node):
    """Publisher of `grasp` for each depth image."""

    def __init__(self, frame: str, rectangle: tuple[int, int, int, int]) -> None:
        super().__init__("grasp_height")
        self._frame, self._rectangle = frame, rectangle
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, self)
        self._publisher = self.create_publisher(PoseStamped, "grasp", 10)
        self._info: Any = None
        self.create_subscription(CameraInfo, "depth/camera_info", self._on_info, 10)
        self.create_subscription(Image, "depth/image", self._on_depth, 10)

    def _on_info(self, info: Any) -> None:
        self._info = info

    def _on_depth(self, depth: Any) -> None:
        if self._info is None:
            return
        try:
            moved = self._buffer.lookup_transform(self._frame, depth.header.frame_id, depth.header.stamp).transform
        except tf2_ros.TransformException as error:
            self.get_logger().warning(f"no transform yet: {error}", throttle_duration_sec=5.0)
            return
        place, turn = moved.translation, moved.rotation
        in_frame = transform((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))
        depth_m = depth_from_message(depth)
        optical = points_from_depth(depth_m, camera_info_from_message(self._info).intrinsics)
        try:
            grasp = grasp_of(depth_m, optical @ in_frame.rotation.T + in_frame.translation_m, self._rectangle)
        except ValueError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        self._send(grasp, depth.header.stamp)

    def _send(self, grasp: Grasp, stamp: Any) -> None:
        pose = PoseStamped()
        pose.header.frame_id, pose.header.stamp = self._frame, stamp
        x, y, z = grasp.middle_m.tolist()
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = x, y, z
        self._publisher.publish(pose)
        where = f"at {x:.3f} {y:.3f} {z:.3f} m in {self._frame}"
        self.get_logger().info(f"object {1e3 * grasp.height_m:.0f} mm high, grasp {where}", throttle_duration_sec=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish a grasp for the object in a rectangle of the depth image.")
    names = ("LEFT", "TOP", "WIDTH", "HEIGHT")
    parser.add_argument("--rectangle", metavar=names, type=int, nargs=4, required=True, help="pixels on the object")
    parser.add_argument("--frame", default="camera_link", help="frame of the grasp, z up (default: camera_link)")
    args, ros = parser.parse_known_args()
    rclpy.init(args=ros)
    node = GraspHeight(args.frame, tuple(args.rectangle))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()

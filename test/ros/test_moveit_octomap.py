"""MoveIt's updaters for point clouds and depth images, set as in examples/moveit_sensors_3d.yaml, each with its map.

They run in `moveit_ros_occupancy_map_server`. As released (up to MoveIt 2.12) it reads no parameters, and takes nothing
as nobody tells it where the robot's links are: there the test is skipped, for move_group would be needed.
"""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
import yaml
from ament_index_python.packages import get_package_share_directory
from display import XVFB, start_display
from launch.actions import GroupAction, IncludeLaunchDescription, SetLaunchConfiguration
from launch_ros.actions import Node
from listening import Listener, wait_until
from numpy.typing import NDArray
from octomap_msgs.msg import Octomap
from planes import check_planes
from sensor_msgs.msg import CameraInfo

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
CELL_M = 0.05
LEVELS = 16
"""Depth of octomap's trees."""
MAPS = 3
"""Clouds or images that have to be in the map."""
SENSORS = {"points": "dfs_points", "depth": "dfs_depth"}
"""Namespace and entry of the example."""


def generate_test_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"))
    servers = [server("points"), *([server("depth")] if XVFB else [])]
    windows = start_display(640, 480).environment() if XVFB else []  # the updater for images draws by OpenGL
    patience = SetLaunchConfiguration("sigterm_timeout", "60")  # a busy machine takes over 5 s to end a node
    ready = launch_testing.actions.ReadyToTest()
    return LaunchDescription([patience, depth, GroupAction([*windows, *servers]), ready])


def server(namespace: str) -> Node:
    """MoveIt's server of an octomap, with one sensor of the example, which sees the whole scene."""
    example = yaml.safe_load((SHARE / "examples" / "moveit_sensors_3d.yaml").read_text())
    sensor = SENSORS[namespace]
    farthest = "max_range" if namespace == "points" else "far_clipping_plane_distance"
    settings = {**example[sensor], farthest: 4.0}
    return Node(
        package="moveit_ros_occupancy_map_monitor",
        executable="moveit_ros_occupancy_map_server",
        namespace=namespace,
        parameters=[
            {"octomap_frame": "camera_link", "octomap_resolution": CELL_M, "sensors": [sensor], sensor: settings}
        ],
        output="screen",
    )


def occupied_cells(file: bytes) -> NDArray[np.float64]:
    """Centres (N, 3) in metres of the occupied cells of octomap's binary file, larger leaves filled.

    Some lines of text, then a tree: a node is two bytes, two bits a child, 1 free, 2 occupied, 3 with children of its
    own, which follow in this order.
    """
    head, _, data = file.partition(b"\ndata\n")
    (cell_m,) = (float(line.split()[1]) for line in head.decode().splitlines() if line.startswith("res "))
    if cell_m != CELL_M:
        raise AssertionError(f"resolution: expected {CELL_M} m, received {cell_m} m")
    nodes = iter(np.frombuffer(data, "<u2").tolist())
    found: list[NDArray[np.float64]] = []

    def read(corner: NDArray[np.int64], side: int) -> None:
        bits, half = next(nodes), side // 2
        inner = []
        for child in range(8):
            at = corner + half * np.array([child & 1, child >> 1 & 1, child >> 2])
            kind = bits >> 2 * child & 3
            if kind == 2:
                found.append(at + np.stack(np.meshgrid(*[np.arange(half)] * 3), axis=-1).reshape(-1, 3) + 0.5)
            elif kind == 3:
                inner.append(at)
        for at in inner:
            read(at, half)

    read(np.full(3, -(2 ** (LEVELS - 1)), np.int64), 2**LEVELS)
    return CELL_M * np.concatenate(found)


class TestMoveItOctomap(unittest.TestCase):
    def test_points(self) -> None:
        self.check("points")

    @unittest.skipUnless(XVFB, "needs Xvfb: the updater for depth images draws by OpenGL")
    def test_depth_image(self) -> None:
        self.check("depth")

    def check(self, namespace: str) -> None:
        with Listener() as listener:
            node = f"/{namespace}/occupancy_map_server"
            if "octomap_resolution" not in listener.parameter_names(node):
                self.skipTest("this moveit_ros_occupancy_map_server reads no parameters, as released up to MoveIt 2.12")
            infos = listener.listen("depth/camera_info", CameraInfo)
            maps = listener.listen(f"{namespace}/octomap_binary", Octomap)
            wait_until(lambda: infos and len(maps) >= MAPS, f"{MAPS} maps of MoveIt's updater for {namespace}")
            info, newest = infos[-1], maps[-1]
        self.assertEqual(newest.header.frame_id, "camera_link")
        cells_m = occupied_cells(bytes(np.array(newest.data, np.int8)))
        print(f"{namespace}: {len(cells_m)} occupied cells")
        check_planes(self, cells_m, info, CELL_M)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)

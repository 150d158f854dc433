"""examples/octomap.launch.py: octomap_server finds the simulated planes occupied, and nothing before them."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import launch_testing
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from listening import Listener, points_of, wait_until
from planes import check_planes
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, PointCloud2

from launch import LaunchDescription

EXAMPLE = Path(get_package_share_directory("dfs_ros")) / "examples" / "octomap.launch.py"
CELL_M = 0.05
SCANS = 3
"""Clouds that have to be in the map."""


def generate_test_description() -> LaunchDescription:
    example = IncludeLaunchDescription(str(EXAMPLE))
    patience = SetLaunchConfiguration("sigterm_timeout", "60")  # a busy machine takes over 5 s to end a node
    return LaunchDescription([patience, example, launch_testing.actions.ReadyToTest()])


class TestOctomap(unittest.TestCase):
    def test_planes_are_occupied_and_nothing_before_them(self) -> None:
        with Listener() as listener:
            infos = listener.listen("depth/camera_info", CameraInfo)
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            maps = listener.listen("octomap_point_cloud_centers", PointCloud2, latched)
            wait_until(lambda: infos and len(maps) >= SCANS, f"{SCANS} maps of octomap_server")
            info, occupied = infos[-1], maps[-1]
        self.assertEqual(occupied.header.frame_id, "camera_link")
        check_planes(self, points_of(occupied).reshape(-1, 3), info, CELL_M)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)

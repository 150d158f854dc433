"""examples/octomap.launch.py: octomap_server finds the simulated planes occupied, and nothing before them."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import cv2
import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from listening import Listener, points_of, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial import cKDTree
from sensor_msgs.msg import CameraInfo, PointCloud2

from dfs_ros.simulation.scenes import demo_scene
from launch import LaunchDescription

EXAMPLE = Path(get_package_share_directory("dfs_ros")) / "examples" / "octomap.launch.py"
CELL_M = 0.05
SCANS = 3
"""Clouds that have to be in the map."""
WITHIN = 0.03


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
        forward, left, up = points_of(occupied).reshape(-1, 3).T
        cells = np.stack([-left, -up, forward], axis=-1)  # optical axes
        fx, cx, cy = info.k[0], info.k[2], info.k[5]
        column = np.rint(fx * cells[:, 0] / cells[:, 2] + cx).astype(int)
        row = np.rint(fx * cells[:, 1] / cells[:, 2] + cy).astype(int)
        inside = (column >= 0) & (column < info.width) & (row >= 0) & (row < info.height)
        nearest, scene = cKDTree(cells), demo_scene(info.width, info.height)
        for name, true_m in scene.plane_depth_m.items():
            mask = scene.mask(name, margin_px=6)
            v, u = np.nonzero(mask)
            plane = np.stack([(u - cx) / fx * true_m, (v - cy) / fx * true_m, np.full(len(u), true_m)], axis=-1)
            # Half the diagonal of a cell lies between a point in it and its centre, and 3 % of the depth is allowed.
            tolerance_m = CELL_M * np.sqrt(0.75) + WITHIN * true_m
            occupied_share = float((nearest.query(plane)[0] < tolerance_m).mean())
            # Over the plane as a whole: a cell of a nearer plane reaches over its edge.
            within_px = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
            over = np.zeros(len(cells), bool)
            over[inside] = within_px[row[inside], column[inside]] > fx * CELL_M * np.sqrt(0.75) / cells[inside, 2]
            before = over & (cells[:, 2] < true_m - tolerance_m)
            print(f"{name} at {true_m} m: {100 * occupied_share:.0f} % occupied, {before.sum()} cells before it")
            self.assertGreater(occupied_share, 0.8, name)
            self.assertEqual(int(before.sum()), 0, f"{name}: occupied at {cells[before]} before {true_m} m")


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)

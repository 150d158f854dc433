"""examples/laserscan.launch.py: the scan of depthimage_to_laserscan has the distances of the simulated planes."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from listening import Listener, stamp_ns, wait_until
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, LaserScan

from dfs_ros.simulation.scenes import demo_scene
from launch import LaunchDescription

EXAMPLE = Path(get_package_share_directory("dfs_ros")) / "examples" / "laserscan.launch.py"
ROWS = 5
WITHIN = 0.03


def generate_test_description() -> LaunchDescription:
    example = IncludeLaunchDescription(str(EXAMPLE))
    patience = SetLaunchConfiguration("sigterm_timeout", "60")  # a busy machine takes over 5 s to end a node
    return LaunchDescription([patience, example, launch_testing.actions.ReadyToTest()])


class TestLaserScan(unittest.TestCase):
    def test_planes_stand_at_their_distance(self) -> None:
        with Listener() as listener:
            infos = listener.listen("depth/camera_info", CameraInfo)
            scans = listener.listen("scan", LaserScan, qos_profile_sensor_data)

            def pair() -> tuple[Any, Any] | None:
                """A scan of the geometry that came with it; the first depth image may come before any camera_info."""
                known = {stamp_ns(info): info for info in list(infos)}
                return next(((s, known[stamp_ns(s)]) for s in list(scans)[1:] if stamp_ns(s) in known), None)

            wait_until(pair, "a scan and the camera_info of its depth image")
            found = pair()
        assert found is not None
        scan, info = found
        self.assertEqual(scan.header.frame_id, "camera_link")
        columns = np.arange(info.width)
        angle = -np.arctan2(columns - info.k[2], info.k[0])  # to the left is positive
        beam = ((angle - scan.angle_min) / scan.angle_increment).astype(int)
        inside = (beam >= 0) & (beam < len(scan.ranges))
        self.assertGreater(inside.mean(), 0.95)
        range_m = np.where(inside, np.asarray(scan.ranges)[np.clip(beam, 0, len(scan.ranges) - 1)], np.nan)
        depth_m = range_m * np.cos(angle)
        scene = demo_scene(info.width, info.height)
        top = int(info.k[5] - ROWS / 2)
        met = {}
        for name, true_m in scene.plane_depth_m.items():
            seen = depth_m[scene.mask(name, margin_px=6)[top : top + ROWS].all(axis=0)]
            if len(seen) >= 10:
                met[name] = float(np.nanmedian(seen)) / true_m - 1
                print(f"{name}: {len(seen)} columns, {100 * met[name]:+.1f} % off {true_m} m")
                self.assertGreater(np.isfinite(seen).mean(), 0.7, name)
                self.assertLess(abs(met[name]), WITHIN, name)
        self.assertIn("wall", met)
        self.assertGreaterEqual(len(met), 3)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)

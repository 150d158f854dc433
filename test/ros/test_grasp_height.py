"""examples/grasp_height.py: the simulated can on its table, 0.1 m high, from the depth image and tf."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from geometry_msgs.msg import PoseStamped
from launch.actions import ExecuteProcess, IncludeLaunchDescription, SetLaunchConfiguration
from listening import Listener, wait_until

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
RECTANGLE = (144, 128, 32, 76)
"""Pixels on the can of the simulated scene."""
FRONT_M, RADIUS_M, TABLE_M, HEIGHT_M = 0.724, 0.026, -0.105, 0.1


def generate_test_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"))
    script = [sys.executable, str(SHARE / "examples" / "grasp_height.py"), "--rectangle", *map(str, RECTANGLE)]
    grasp = ExecuteProcess(cmd=script, output="screen")
    patience = SetLaunchConfiguration("sigterm_timeout", "60")  # a busy machine takes over 5 s to end a node
    return LaunchDescription([patience, depth, grasp, launch_testing.actions.ReadyToTest()])


class TestGraspHeight(unittest.TestCase):
    def test_grasp_is_at_half_the_height_of_the_object(self) -> None:
        with Listener() as listener:
            grasps = listener.listen("grasp", PoseStamped)
            wait_until(lambda: grasps, "a grasp")
            grasp = grasps[-1]
        self.assertEqual(grasp.header.frame_id, "camera_link")
        place = grasp.pose.position
        print(f"grasp at {place.x:.3f} {place.y:.3f} {place.z:.3f} m")
        # The middle of the visible front of the can lies between its nearest line and its axis.
        self.assertLess(abs(place.x - (FRONT_M + RADIUS_M / 4)), 0.03 * FRONT_M)
        self.assertLess(abs(place.y), 0.01)
        self.assertLess(abs(place.z - (TABLE_M + HEIGHT_M / 2)), 0.005)
        turn = grasp.pose.orientation
        np.testing.assert_allclose([turn.x, turn.y, turn.z, turn.w], [0, 0, 0, 1])


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)

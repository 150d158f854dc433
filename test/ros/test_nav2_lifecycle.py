"""nav2's lifecycle_manager brings the nodes up, keeps their bonds, pauses them, and brings a killed one up again."""

from __future__ import annotations

import os
import signal
import time
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from launch_ros.actions import Node
from listening import Listener, pixels, wait_until
from nav2_msgs.srv import ManageLifecycleNodes
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from dfs_ros.simulation.scenes import demo_scene
from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
NODES = ["dfs_camera", "dfs"]
BOND_TIMEOUT_S = 4.0
"""Default of nav2."""


def generate_test_description() -> LaunchDescription:
    arguments = {"autostart": "false", "network": "none", "publish_tf": "false"}
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"), launch_arguments=arguments.items())
    manager = Node(
        package="nav2_lifecycle_manager",
        executable="lifecycle_manager",
        name="lifecycle_manager",
        parameters=[{"autostart": True, "node_names": NODES, "bond_timeout": BOND_TIMEOUT_S}],
        output="screen",
    )
    return LaunchDescription([depth, manager, launch_testing.actions.ReadyToTest()])


class TestNav2Lifecycle(unittest.TestCase):
    def test_up_paused_killed_and_up_again(self, proc_info: Any) -> None:
        with Manager() as manager:
            depth = manager.listen("depth/image", Image)
            wait_until(manager.is_active, "nav2's word that its nodes are active")
            self.assertEqual(manager.states(), ["active", "active"])
            wait_until(lambda: len(depth) > 1, "depth")
            self.assert_depth_is_right(depth[-1])

            time.sleep(1.5 * BOND_TIMEOUT_S)  # a bond without heartbeats would be broken by now
            self.assertTrue(manager.is_active())

            self.assertTrue(manager.manage("PAUSE"))
            self.assertEqual(manager.states(), ["inactive", "inactive"])
            self.assertFalse(manager.is_active())
            time.sleep(1.0)  # what was under way
            so_far = len(depth)
            time.sleep(2.0)
            self.assertEqual(len(depth), so_far, "depth of a paused node")
            self.assertTrue(manager.manage("RESUME"))
            wait_until(lambda: len(depth) > so_far, "depth after the pause")

            os.kill(process(proc_info, "depth_node"), signal.SIGKILL)
            wait_until(lambda: not manager.is_active(), "nav2's word that a bond is broken")
            so_far = len(depth)
            wait_until(manager.is_active, "nav2's word that the restarted node is active")
            wait_until(lambda: len(depth) > so_far, "depth of the restarted node")
            self.assert_depth_is_right(depth[-1])

            self.assertTrue(manager.manage("SHUTDOWN"))
            self.assertEqual(manager.states(), ["finalized", "finalized"])

    def assert_depth_is_right(self, image: Image) -> None:
        depth_m, scene = pixels(image), demo_scene(image.width, image.height)
        for name in ("poster", "chart"):
            found_m = float(np.nanmedian(depth_m[scene.mask(name, margin_px=6)]))
            self.assertLess(abs(found_m / scene.plane_depth_m[name] - 1), 0.03, f"{name}: {found_m} m")


class Manager(Listener):
    """Asks nav2's manager, and the nodes themselves."""

    def is_active(self) -> bool:
        return bool(self.call("lifecycle_manager/is_active", Trigger).success)

    def manage(self, command: str) -> bool:
        number = getattr(ManageLifecycleNodes.Request, command)
        return bool(self.call("lifecycle_manager/manage_nodes", ManageLifecycleNodes, command=number).success)

    def states(self) -> list[str]:
        return [self.state(f"/{node}") for node in NODES]


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well_but_the_killed_one(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info, allowable_exit_codes=[0, -signal.SIGKILL])


def process(proc_info: Any, executable: str) -> int:
    """Number of the process of an executable."""
    (name,) = [name for name in proc_info.process_names() if name.startswith(executable)]
    return int(proc_info[name].pid)

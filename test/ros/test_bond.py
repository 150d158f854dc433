"""Bonds to a manager of the lifecycle, as nav2's: formed by activation, ended by deactivation, broken by death."""

from __future__ import annotations

import os
import signal
import time
import unittest
from pathlib import Path
from typing import Any

import launch_testing
from ament_index_python.packages import get_package_share_directory
from bond.msg import Status
from bondpy.bondpy import Bond
from launch.actions import IncludeLaunchDescription
from listening import Listener, wait_until
from rclpy.duration import Duration

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
NODES = {"/dfs_camera": "sweep_camera", "/dfs": "depth_node"}
TIMEOUT_S = 4.0
"""As nav2's lifecycle_manager has it."""


def generate_test_description() -> LaunchDescription:
    arguments = {"autostart": "false", "network": "none", "publish_tf": "false", "respawn": "false"}
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"), launch_arguments=arguments.items())
    return LaunchDescription([depth, launch_testing.actions.ReadyToTest()])


class TestBond(unittest.TestCase):
    def test_formed_ended_and_broken(self, proc_info: Any) -> None:
        with Manager() as manager:
            heard = manager.listen("bond", Status)
            for node in NODES:
                self.assertTrue(manager.change_state(node, "configure"), node)
            self.assertEqual(heard, [], "heartbeats of a node that is not active")
            bonds = {node: manager.activate(node) for node in NODES}
            of_depth = [msg for msg in heard if msg.id == "dfs" and msg.instance_id != bonds["/dfs"].instance_id]
            self.assertEqual({msg.active for msg in of_depth}, {True})
            self.assertAlmostEqual(of_depth[0].heartbeat_period, 0.1, places=6)

            # Somebody else deactivates a node: the manager is told at once.
            self.assertTrue(manager.change_state("/dfs_camera", "deactivate"))
            wait_until(bonds["/dfs_camera"].is_broken, "the end of the bond", TIMEOUT_S / 2)
            self.assertFalse(bonds["/dfs"].is_broken())

            # The manager takes leave: the node answers, and sends no more.
            bonds["/dfs"].break_bond()
            instance = of_depth[0].instance_id
            wait_until(lambda: any(m.instance_id == instance and not m.active for m in heard), "the node's answer")
            self.assertTrue(manager.change_state("/dfs", "deactivate"))
            self.assertFalse([m for m in heard if m.instance_id == instance][-1].active)

        with Manager() as manager:
            bond = manager.activate("/dfs")
            time.sleep(1.0)
            self.assertFalse(bond.is_broken())
            os.kill(process(proc_info, "depth_node"), signal.SIGKILL)
            wait_until(bond.is_broken, "a broken bond to the killed node", TIMEOUT_S + 2.0)


class Manager(Listener):
    """Asks for transitions, and keeps bonds, as nav2's lifecycle_manager does."""

    def __init__(self) -> None:
        super().__init__()
        self._bonds: list[Bond] = []

    def activate(self, node: str) -> Bond:
        """Activate a node; the bond that is formed."""
        if not self.change_state(node, "activate"):
            raise AssertionError(f"{node} was not activated")
        bond = Bond(self.node, "bond", node.removeprefix("/"))
        bond.heartbeat_period = 0.1
        bond.heartbeat_timeout = TIMEOUT_S
        bond.start()
        self._bonds.append(bond)
        if not bond.wait_until_formed(Duration(seconds=TIMEOUT_S / 2)):
            raise AssertionError(f"no bond to {node}")
        return bond

    def close(self) -> None:
        super().close()
        for bond in self._bonds:
            bond.is_shutdown = True  # its own shutdown would publish, and destroy what an executor waits for


def process(proc_info: Any, executable: str) -> int:
    """Number of the process of an executable."""
    (name,) = [name for name in proc_info.process_names() if name.startswith(executable)]
    return int(proc_info[name].pid)

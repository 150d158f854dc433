"""Lifecycle of the nodes: depth while they are active and not else, twice over."""

from __future__ import annotations

import time
import unittest
from pathlib import Path
from typing import Any

import launch_testing
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from listening import Listener, stamp_ns, wait_until

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
QUIET_S = 3.0
"""Longer than a sweep and its computation take: what is not silent within this is active."""


def generate_test_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(
        str(SHARE / "launch" / "depth.launch.py"),
        launch_arguments={"autostart": "false", "network": "none", "publish_tf": "false"}.items(),
    )
    return LaunchDescription([depth, launch_testing.actions.ReadyToTest()])


class TestLifecycle(unittest.TestCase):
    listener: Listener

    @classmethod
    def setUpClass(cls) -> None:
        cls.listener = Listener()
        cls.listener.listen_to_results()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.listener.close()

    def test_all_transitions_twice(self) -> None:
        listener = self.listener
        for node in ("/dfs_camera", "/dfs"):
            self.assertEqual(listener.state(node), "unconfigured", node)
        for _ in range(2):
            self.through("configure", "inactive")
            self.assert_silent("while the nodes are inactive")
            self.through("activate", "active")
            before = self.newest_ns()
            wait_until(lambda before=before: self.newest_ns() > before, "depth of an active node")
            self.through("deactivate", "inactive")
            self.assert_silent("after the nodes were deactivated")
            self.through("cleanup", "unconfigured")

    def test_transitions_that_make_no_sense_are_refused(self) -> None:
        wait_until(lambda: self.listener.state("/dfs") == "unconfigured", "the other test's end")
        self.assertFalse(self.listener.change_state("/dfs", "activate"))
        self.assertEqual(self.listener.state("/dfs"), "unconfigured")

    def through(self, transition: str, state: str) -> None:
        for node in ("/dfs_camera", "/dfs"):
            self.assertTrue(self.listener.change_state(node, transition), f"{transition} {node}")
            self.assertEqual(self.listener.state(node), state)

    def newest_ns(self) -> int:
        results = self.listener.results()
        return stamp_ns(results[-1]["depth/image"]) if results else 0

    def assert_silent(self, when: str) -> None:
        time.sleep(0.5)  # what was on its way arrives
        before = len(self.listener.received["depth/image"]), len(self.listener.received["image"])
        time.sleep(QUIET_S)
        after = len(self.listener.received["depth/image"]), len(self.listener.received["image"])
        self.assertEqual(after, before, f"depth and images {when}")


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)

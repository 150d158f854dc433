"""Nodes that are started with nonsense end with status 2 and say what was expected; signals end them with 0."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

import launch_testing
from ament_index_python.packages import get_package_prefix
from launch.actions import TimerAction
from listening import PATIENCE_S, Listener, wait_until

from launch import LaunchDescription

PROGRAMS = Path(get_package_prefix("dfs_ros")) / "lib" / "dfs_ros"


def generate_test_description() -> LaunchDescription:
    """Nothing but time: each test starts its own process and looks at its end."""
    return LaunchDescription([TimerAction(period=600.0, actions=[]), launch_testing.actions.ReadyToTest()])


def start(program: str, *ros_arguments: str) -> subprocess.Popen[str]:
    command = [str(PROGRAMS / program), "--ros-args", *ros_arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def parameters(*assignments: str) -> list[str]:
    return [text for assignment in assignments for text in ("-p", assignment)]


class TestRefusals(unittest.TestCase):
    def assert_refused(self, program: str, arguments: list[str], *said: str) -> None:
        process = start(program, *arguments)
        try:
            printed, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        self.assertEqual(process.returncode, 2, printed)
        for text in said:
            self.assertIn(text, printed)
        self.assertNotIn("Traceback", printed)

    def test_values_that_make_no_sense(self) -> None:
        self.assert_refused(
            "depth_node", parameters("hypotheses.count:=100000"), "hypotheses.count", "2 to 512", "100000"
        )
        self.assert_refused("depth_node", parameters("hypotheses.count:=many"), "hypotheses.count", "many")
        self.assert_refused("depth_node", parameters("node.depth_encoding:=64FC1"), "node.depth_encoding", "16UC1")
        together = parameters("hypotheses.min_depth_m:=5.0", "hypotheses.max_depth_m:=1.0")
        self.assert_refused("depth_node", together, "min_depth_m < max_depth_m")

    def test_names_that_nobody_knows(self) -> None:
        self.assert_refused("depth_node", parameters("hypotheses.cuont:=32"), "hypotheses.cuont")
        self.assert_refused("sweep_camera", parameters("camera.widht:=320"), "camera.widht")

    def test_a_network_that_is_not_there(self) -> None:
        self.assert_refused("depth_node", parameters("network.name:=nosuchnetwork"), "nosuchnetwork")

    def test_a_stack_that_is_not_there(self) -> None:
        missing = parameters("camera.source:=stack", "camera.stack:=/nowhere/stack")
        self.assert_refused("sweep_camera", missing, "/nowhere/stack")

    def test_a_parameter_file_with_a_mistake(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mistake.yaml"
            file.write_text("/**:\n  ros__parameters:\n    cost:\n      methud: paper\n")
            self.assert_refused("depth_node", ["--params-file", str(file)], "cost.methud")


class TestSignals(unittest.TestCase):
    def test_sigterm_and_sigint_end_a_node_with_status_0(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            for program, node in (("depth_node", "/dfs"), ("sweep_camera", "/dfs_camera")):
                process = start(program, *parameters("network.name:=none", "camera.width:=64", "camera.height:=48"))
                try:
                    with Listener() as listener:
                        wait_until(lambda x=listener, n=node: x.state(n) == "active", f"{program} to be active")
                    process.send_signal(number)
                    printed, _ = process.communicate(timeout=PATIENCE_S)
                finally:
                    process.kill()
                self.assertEqual(process.returncode, 0, f"{program}, {number!r}: {printed}")
                self.assertNotIn("Traceback", printed)

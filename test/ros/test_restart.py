"""A node that is killed is back with depth; one that refuses its settings is not started again."""

from __future__ import annotations

import os
import signal
import tempfile
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import GroupAction, IncludeLaunchDescription
from listening import Listener, wait_until

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
GOOD = {
    "camera": {"width": 96, "height": 72, "rate_hz": 5.0},
    "hypotheses": {"count": 16, "interpolate_to": 0},
    "alignment": {"mode": "off"},
    "stack": {"max_span_s": 10.0},
}
WRONG = {"hypotheses": {"count": 100000}}
_FOLDER = tempfile.TemporaryDirectory()


def generate_test_description() -> LaunchDescription:
    nodes = [robot_eye("good", GOOD, "sim"), robot_eye("wrong", WRONG, "none")]
    return LaunchDescription([*nodes, launch_testing.actions.ReadyToTest()])


def robot_eye(name: str, parameters: dict[str, Any], camera: str) -> GroupAction:
    file = Path(_FOLDER.name) / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    arguments = {
        "namespace": name,
        "params_file": str(file),
        "network": "none",
        "camera": camera,
        "publish_tf": "false",
    }
    launch_file = str(SHARE / "launch" / "depth.launch.py")
    return GroupAction([IncludeLaunchDescription(launch_file, launch_arguments=arguments.items())])


def depth_nodes() -> list[int]:
    """Processes of depth nodes that this launch has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # has ended meanwhile
            continue
        if parent == os.getpid() and any(word.endswith(b"/depth_node") for word in words):
            found.append(int(folder.name))
    return found


class TestRestart(unittest.TestCase):
    def test_killed_and_refused(self, proc_info: Any) -> None:
        def ended() -> list[int]:
            states = [proc_info[name] for name in proc_info.process_names() if name.startswith("depth_node")]
            return sorted(state.returncode for state in states if hasattr(state, "returncode"))

        with Listener("/good") as listener:
            listener.listen_to_results()
            listener.wait_for_results()
            wait_until(lambda: ended() == [2], "the refusal of the settings")
            (alive,) = depth_nodes()
            os.kill(alive, signal.SIGKILL)
            wait_until(lambda: len(ended()) == 2, "the end of the killed node")
            before = len(listener.results())
            listener.wait_for_results(before + 1)
            self.assertEqual(ended(), [-signal.SIGKILL, 2])

"""Two cameras with a depth node each, in two namespaces of one domain, and neither hears the other."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import GroupAction, IncludeLaunchDescription
from listening import TOPICS, Listener, wait_until

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
SIZES = {"left": (160, 120), "right": (128, 96)}
_FOLDER = tempfile.TemporaryDirectory()


def generate_test_description() -> LaunchDescription:
    return LaunchDescription([*(robot_eye(name) for name in SIZES), launch_testing.actions.ReadyToTest()])


def robot_eye(name: str) -> GroupAction:
    """The launch file in a namespace, with a parameter file of its own."""
    width, height = SIZES[name]
    parameters = {"camera": {"width": width, "height": height, "rate_hz": 15.0}, "hypotheses": {"count": 24}}
    file = Path(_FOLDER.name) / f"{name}.yaml"
    file.write_text(yaml.safe_dump({f"/{name}/**": {"ros__parameters": parameters}}))
    arguments = {
        "namespace": name,
        "params_file": str(file),
        "network": "none",
        "camera_frame": f"{name}_link",
        "optical_frame": f"{name}_optical_frame",
    }
    launch_file = str(SHARE / "launch" / "depth.launch.py")
    return GroupAction([IncludeLaunchDescription(launch_file, launch_arguments=arguments.items())])


class TestNamespaces(unittest.TestCase):
    def test_each_has_its_own_camera(self) -> None:
        for name, (width, height) in SIZES.items():
            with Listener(f"/{name}") as listener:
                listener.listen_to_results()
                for result in listener.wait_for_results(3):
                    for topic, message in result.items():
                        self.assertEqual((message.width, message.height), (width, height), topic)
                        self.assertEqual(message.header.frame_id, f"{name}_optical_frame", topic)

    def test_names(self) -> None:
        with Listener() as listener:
            wanted = {(node, f"/{name}") for name in SIZES for node in ("dfs", "dfs_camera")}
            wait_until(lambda: wanted <= set(listener.node.get_node_names_and_namespaces()), f"nodes {wanted}")
            topics = dict(listener.node.get_topic_names_and_types())
            for name in SIZES:
                for topic in (*TOPICS, "image", "camera_info", "focus"):
                    self.assertIn(f"/{name}/{topic}", topics)
            strays = [topic for topic in topics if topic.strip("/") in (*TOPICS, "image", "camera_info", "focus")]
            self.assertEqual(strays, [])
            self.assertEqual(listener.get_parameters("/left/dfs_camera", "camera.width"), [160])
            self.assertEqual(listener.get_parameters("/right/dfs_camera", "camera.width"), [128])


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
        _FOLDER.cleanup()

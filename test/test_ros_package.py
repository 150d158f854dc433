"""The files of the ROS 2 package fit together; what they do on ROS 2 is tested in test/ros."""

from __future__ import annotations

import ast
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from dfs_ros.camera.source import OPTICAL_IN_BODY
from dfs_ros.config import CameraConfig
from dfs_ros.node.outputs import Outputs
from dfs_ros.transport.local import LocalBus, LocalTransport

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILES = sorted([*ROOT.glob("launch/*.py"), *ROOT.glob("examples/*.launch.py")])
DISPLAYED = {
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
}
NOT_OURS_TO_INSTALL = {
    *("depth_image_proc", "depthimage_to_laserscan", "octomap_server"),
    *("rclcpp_components", "rtabmap_odom", "rtabmap_slam"),
    *("nav2_lifecycle_manager", "nav2_msgs"),
    *("moveit_ros_occupancy_map_monitor", "octomap_msgs"),
}
"""What the examples feed, and the tests start beside us."""


def dependencies() -> set[str]:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    return {element.text or "" for element in package if element.tag.endswith("depend")}


def test_every_ros_package_that_is_used_is_a_dependency() -> None:
    used = set()
    for file in [
        *LAUNCH_FILES,
        *ROOT.glob("examples/*.py"),
        *ROOT.glob("test/ros/*.py"),
        *ROOT.glob("dfs_ros/transport/ros/*.py"),
    ]:
        text = file.read_text()
        used |= set(re.findall(r'package="(\w+)"', text))
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            used |= {name.split(".")[0] for name in names}
    ros = {
        name
        for name in used
        if name.endswith(("_msgs", "_srvs", "_interfaces", "_ros")) or name.startswith(("rcl", "rviz", "launch"))
    }
    assert {"rclpy", "sensor_msgs", "launch_ros", "tf2_ros", "rviz2"} <= ros
    missing = ros - dependencies() - NOT_OURS_TO_INSTALL - {"dfs_ros"}
    assert not missing, f"package.xml lacks {', '.join(sorted(missing))}"


def test_every_script_is_installed_and_calls_something_that_is_there() -> None:
    installed = (ROOT / "CMakeLists.txt").read_text()
    scripts = sorted((ROOT / "scripts").iterdir())
    assert [script.name for script in scripts] == ["depth_node", "dfs", "focus_sweeper", "sweep_camera"]
    for script in scripts:
        assert os.access(script, os.X_OK), f"{script}: chmod +x"
        text = script.read_text()
        assert text.startswith("#!/usr/bin/env python3\n")
        assert f"scripts/{script.name}\n" in installed
        (module,) = re.findall(r"^from (dfs_ros\.\S+) import main$", text, re.MULTILINE)
        assert "def main(" in (ROOT / (module.replace(".", "/") + ".py")).read_text()


def test_every_folder_that_nodes_look_for_is_installed() -> None:
    (folders,) = re.findall(r"install\(DIRECTORY (.*)\n  DESTINATION share", (ROOT / "CMakeLists.txt").read_text())
    assert folders.split() == ["config", "examples", "launch", "models", "msg", "rviz", "urdf"]
    assert all((ROOT / folder).is_dir() for folder in folders.split())


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_launch_files_are_python_and_say_how_they_are_called(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert f"ros2 launch dfs_ros {file.name}" in (ast.get_docstring(tree) or "")
    assert "generate_launch_description" in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def rviz_displays() -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load((ROOT / "rviz" / "depth.rviz").read_text())["Visualization Manager"]["Displays"]


def test_rviz_shows_what_the_node_publishes_as_it_publishes_it() -> None:
    with LocalTransport("dfs", LocalBus()) as transport:
        Outputs(transport)
        types = {publisher.topic: publisher.type_name for publisher in transport.publishers}
    shown = {}
    for display in rviz_displays():
        if display["Class"] in DISPLAYED:
            topic = display["Topic"]
            assert types[topic["Value"]] == DISPLAYED[display["Class"]]
            # We offer reliable and volatile: a durable subscription would get nothing.
            assert topic["Reliability Policy"] in ("Reliable", "Best Effort")
            assert topic["Durability Policy"] == "Volatile"
            shown[topic["Value"]] = display["Enabled"]
    assert shown == dict.fromkeys(["/depth/points", "/depth/image", "/all_in_focus/image", "/depth/sigma"], True)
    # The launch file remaps them, so that a namespace needs no other file.
    launch = (ROOT / "launch" / "depth.launch.py").read_text()
    assert all(f'"{topic[1:]}"' in launch for topic in shown)


def test_frames_are_the_same_everywhere() -> None:
    launch = (ROOT / "launch" / "depth.launch.py").read_text()
    (body,) = re.findall(r'argument\("camera_frame", "(\w+)"', launch)
    (optical,) = re.findall(r'argument\("optical_frame", "(\w+)"', launch)
    assert optical == CameraConfig().frame_id
    content = yaml.safe_load((ROOT / "rviz" / "depth.rviz").read_text())["Visualization Manager"]
    assert content["Global Options"]["Fixed Frame"] == body == content["Views"]["Current"]["Target Frame"]


def test_the_description_of_a_camera_has_its_optical_frame(tmp_path: Path) -> None:
    xacro = pytest.importorskip("xacro")
    robot = tmp_path / "robot.urdf.xacro"
    robot.write_text(
        f"""<robot name="robot" xmlns:xacro="http://www.ros.org/wiki/xacro">
        <xacro:include filename="{ROOT}/urdf/focus_camera.urdf.xacro"/>
        <link name="base_link"/>
        <xacro:focus_camera name="front" parent="base_link"><origin xyz="0.1 0 0.3"/></xacro:focus_camera>
        </robot>"""
    )
    urdf = ElementTree.fromstring(xacro.process_file(str(robot)).toxml())
    joints = {str(joint.get("name")): joint for joint in urdf.findall("joint")}
    tree = {name: [str(joint.find(end).get("link")) for end in ("parent", "child")] for name, joint in joints.items()}
    assert tree == {
        "front_joint": ["base_link", "front_link"],
        "front_optical_joint": ["front_link", "front_optical_frame"],
    }
    assert {link.get("name") for link in urdf.findall("link")} == {"base_link", "front_link", "front_optical_frame"}
    turn = Rotation.from_euler(
        "xyz", [float(part) for part in joints["front_optical_joint"].find("origin").get("rpy").split()]
    )
    np.testing.assert_allclose(turn.as_matrix(), OPTICAL_IN_BODY.rotation, atol=1e-12)


def test_moveit_takes_our_topics_and_misses_no_parameter() -> None:
    sensors = yaml.safe_load((ROOT / "examples" / "moveit_sensors_3d.yaml").read_text())
    assert set(sensors["sensors"]) <= set(sensors)
    assert sensors["dfs_points"]["point_cloud_topic"] == "/depth/points"
    assert sensors["dfs_depth"]["image_topic"] == "/depth/image"
    # MoveIt refuses a sensor that lacks any of these.
    common = {"sensor_plugin", "padding_scale", "padding_offset", "max_update_rate", "filtered_cloud_topic"}
    assert {"max_range", "point_subsample"} | common <= set(sensors["dfs_points"])
    assert {
        *("queue_size", "near_clipping_plane_distance", "far_clipping_plane_distance", "shadow_threshold", "ns"),
        *("skip_vertical_pixels", "skip_horizontal_pixels"),
        *common,
    } <= set(sensors["dfs_depth"])

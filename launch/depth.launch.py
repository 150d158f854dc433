"""Launch camera, depth node, static transform of the optical frame and, optionally, RViz.

ros2 launch dfs_ros depth.launch.py                                  simulated camera: depth without hardware
ros2 launch dfs_ros depth.launch.py rviz:=true                       the same with RViz
ros2 launch dfs_ros depth.launch.py camera:=stack stack:=FOLDER      images of a focal stack, repeated
ros2 launch dfs_ros depth.launch.py camera:=v4l2 lens_table:=FILE    UVC camera with a focus control
ros2 launch dfs_ros depth.launch.py camera:=none image:=/cam/image_raw camera_info:=/cam/camera_info focus:=/cam/focus
                                                                     camera of another driver
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
YES_NO = ["true", "false"]


def argument(name: str, default: str, description: str, choices: list[str] | None = None) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)


ARGUMENTS = [
    argument(
        "camera",
        "sim",
        "Camera. sim: simulated; stack: images of a focal stack; v4l2: UVC camera; none: that of another driver",
        ["sim", "stack", "v4l2", "none"],
    ),
    argument("stack", "", "Folder of the focal stack (camera:=stack)"),
    argument("video_device", "", "Device file of the camera (camera:=v4l2); empty: from params_file"),
    argument("lens_table", "", "Lens table of `dfs focus-table` (camera:=v4l2); empty: from params_file"),
    argument("namespace", "", "Namespace of nodes and topics"),
    argument("params_file", str(SHARE / "config" / "parameters.yaml"), "Parameter file of the nodes"),
    argument("network", "", "Network over the cost volume: none or a model; empty: from params_file"),
    argument("runner", "", "Inference engine: auto, torch, onnx, tensorrt, tensorrt_rtx; empty: from params_file"),
    argument("device", "", "Device of cost volume and network: auto, cpu, cuda; empty: from params_file"),
    argument("image", "image", "Topic of the images (sensor_msgs/Image)"),
    argument("camera_info", "camera_info", "Topic of the intrinsics (sensor_msgs/CameraInfo)"),
    argument("focus", "focus", "Topic of the focus of each image (dfs_ros/FrameFocus)"),
    argument("publish_tf", "true", "Publish the static transform from camera_frame to optical_frame", YES_NO),
    argument("camera_frame", "camera_link", "Body frame of the camera: x forward, y left, z up"),
    argument("optical_frame", "camera_optical_frame", "Optical frame of the images: x right, y down, z forward"),
    argument(
        "autostart",
        "true",
        "Configure and activate the nodes at start; false: wait for `ros2 lifecycle set`; true: from params_file",
        YES_NO,
    ),
    argument("respawn", "false", "Restart a node that has ended by itself", YES_NO),
    argument("use_sim_time", "false", "Use the time of topic /clock", YES_NO),
    argument("log_level", "info", "Minimum level of log messages", ["debug", "info", "warn", "error", "fatal"]),
    argument("rviz", "false", "Start RViz with depth, point cloud and all-in-focus image", YES_NO),
    argument("rviz_config", str(SHARE / "rviz" / "depth.rviz"), "Configuration file of RViz"),
]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list[Node]:
    """Nodes for the given arguments."""
    values = {each.name: LaunchConfiguration(each.name).perform(context) for each in ARGUMENTS}
    if values["camera"] == "stack" and not values["stack"]:
        raise ValueError("camera:=stack: expected stack:=FOLDER, the folder of a focal stack; received none")
    if not Path(values["params_file"]).is_file():  # ROS would go on without it
        raise FileNotFoundError(f"params_file:={values['params_file']}: no such file")
    topics = [(name, values[name]) for name in ("image", "camera_info", "focus") if values[name] != name]
    started = [
        own_node(
            values,
            "depth_node",
            "dfs",
            topics,
            {
                "network.name": values["network"],
                "network.runner": values["runner"],
                "processing.device": values["device"],
            },
        )
    ]
    if values["camera"] != "none":
        source = {
            "camera.source": values["camera"],
            "camera.stack": values["stack"],
            "v4l2.device": values["video_device"],
            "v4l2.calibration": values["lens_table"],
            "camera.frame_id": values["optical_frame"],
        }
        started.append(own_node(values, "sweep_camera", "dfs_camera", topics, source))
    if values["publish_tf"] == "true":
        started.append(optical_transform(values))
    if values["rviz"] == "true":
        started.append(rviz(values))
    return started


def own_node(
    values: dict[str, str], executable: str, name: str, topics: list[tuple[str, str]], parameters: dict[str, str]
) -> Node:
    """Node of this package; launch arguments override the parameter file."""
    given: dict[str, Any] = {key: ParameterValue(text, value_type=str) for key, text in parameters.items() if text}
    if values["autostart"] == "false":
        given["node.autostart"] = False
    return Node(
        package="dfs_ros",
        executable=executable,
        name=name,
        namespace=values["namespace"],
        parameters=[
            values["params_file"],
            {"use_sim_time": values["use_sim_time"] == "true", **given},
        ],
        remappings=topics,
        ros_arguments=["--log-level", f"{name}:={values['log_level']}"],
        respawn=values["respawn"] == "true",
        respawn_delay=2.0,
        output="screen",
    )


def optical_transform(values: dict[str, str]) -> Node:
    """Static transform from the body frame of REP 103 (x forward) to its optical frame (z forward)."""
    rotation = {"--qx": "-0.5", "--qy": "0.5", "--qz": "-0.5", "--qw": "0.5"}
    frames = {"--frame-id": values["camera_frame"], "--child-frame-id": values["optical_frame"]}
    return Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        name="optical_frame",
        namespace=values["namespace"],
        arguments=[text for option in (rotation | frames).items() for text in option],
    )


def rviz(values: dict[str, str]) -> Node:
    """RViz, with the absolute topics of its file remapped to relative ones, for any namespace."""
    shown = ["depth/image", "depth/camera_info", "depth/points", "depth/sigma", "all_in_focus/image"]
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=values["namespace"],
        arguments=["-d", values["rviz_config"], "-f", values["camera_frame"]],
        parameters=[{"use_sim_time": values["use_sim_time"] == "true"}],
        remappings=[(f"/{topic}", topic) for topic in shown],
    )

"""Launch depth_image_proc to make coloured points from depth and all-in-focus image.

ros2 launch dfs_ros depth_image_proc.launch.py

Depth, all-in-focus image and both camera_infos share stamp and frame: exact synchronisation suffices, and no
registration is needed. The depth node publishes `depth/points` itself; this is an example of another consumer.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))


def generate_launch_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"))
    cloud = ComposableNode(
        package="depth_image_proc",
        plugin="depth_image_proc::PointCloudXyzrgbNode",
        name="cloud",
        remappings=[
            ("rgb/image_rect_color", "all_in_focus/image"),
            ("rgb/camera_info", "all_in_focus/camera_info"),
            ("depth_registered/image_rect", "depth/image"),
            ("points", "cloud/points"),
        ],
    )
    container = ComposableNodeContainer(
        package="rclcpp_components",
        executable="component_container",
        name="cloud_container",
        namespace="",
        composable_node_descriptions=[cloud],
        output="screen",
    )
    return LaunchDescription([depth, container])

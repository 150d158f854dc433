"""Launch octomap_server, which makes a 3D occupancy map of the point clouds.

ros2 launch dfs_ros octomap.launch.py
ros2 launch dfs_ros octomap.launch.py map_frame:=odom resolution:=0.02

Arguments are those of depth.launch.py, `resolution` in metres, and `map_frame`: the frame of the map. The camera's own
frame, the default, is for a camera that stands still; otherwise tf has to lead from `map_frame` to `camera_frame`.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))


def generate_launch_description() -> LaunchDescription:
    frame = DeclareLaunchArgument("map_frame", default_value="camera_link", description="Frame of the map")
    cell = DeclareLaunchArgument("resolution", default_value="0.05", description="Side of the smallest cells [m]")
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"))
    octomap = Node(
        package="octomap_server",
        executable="octomap_server_node",
        parameters=[
            {
                "frame_id": ParameterValue(LaunchConfiguration("map_frame"), value_type=str),
                "resolution": ParameterValue(LaunchConfiguration("resolution"), value_type=float),
                "sensor_model.max_range": 4.0,
            }
        ],
        remappings=[("cloud_in", "depth/points")],
        output="screen",
    )
    return LaunchDescription([frame, cell, depth, octomap])

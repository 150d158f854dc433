"""Launch depthimage_to_laserscan, which makes a planar scan of the depth image for nav2 and 2D SLAM.

ros2 launch dfs_ros laserscan.launch.py

The scan is that of the rows around the optical axis, in the body frame of the camera: mount the camera level. Arguments
are those of depth.launch.py, and `scan_rows`: the nearest of these rows counts, so that more rows see more obstacles
and more noise.
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
    rows = DeclareLaunchArgument("scan_rows", default_value="5", description="Rows of the depth image in the scan")
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"))
    scan = Node(
        package="depthimage_to_laserscan",
        executable="depthimage_to_laserscan_node",
        parameters=[
            {
                "output_frame": ParameterValue(LaunchConfiguration("camera_frame"), value_type=str),
                "scan_height": ParameterValue(LaunchConfiguration("scan_rows"), value_type=int),
                "range_min": 0.2,
                "range_max": 5.0,
            }
        ],
        remappings=[("depth", "depth/image"), ("depth_camera_info", "depth/camera_info")],
        output="screen",
    )
    return LaunchDescription([rows, depth, scan])

"""Launch depth_image_proc to register the depth to the view of another camera.

ros2 launch dfs_ros register.launch.py other_camera_info:=/wrist/camera_info

Arguments are those of depth.launch.py, and `other_camera_info`: the intrinsics of the other camera, which also name its
frame. tf has to lead from there to `optical_frame` (hand-eye calibration, or the robot's description). The result,
`depth_registered/image_rect` with its camera_info, has the geometry of the other camera's rectified image: colours of
that camera, its detections and masks then hold for our depth.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))


def generate_launch_description() -> LaunchDescription:
    other = DeclareLaunchArgument(
        "other_camera_info", default_value="other/camera_info", description="Intrinsics of the other camera"
    )
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"))
    register = Node(
        package="depth_image_proc",
        executable="register_node",
        # Gaps between pixels that lie farther apart in the other image are filled. Depth comes a sweep late: if the
        # queue, of 5 by default, has lost the intrinsics of its time, nothing is published. 150 are 5 s at 30 Hz.
        parameters=[{"fill_upsampling_holes": True, "queue_size": 150}],
        remappings=[
            ("depth/image_rect", "depth/image"),
            ("rgb/camera_info", LaunchConfiguration("other_camera_info")),
        ],
        output="screen",
    )
    return LaunchDescription([other, depth, register])

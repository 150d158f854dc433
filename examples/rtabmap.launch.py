"""Launch RTAB-Map SLAM on the all-in-focus image (as RGB) and the depth of the same stamp and frame.

ros2 launch dfs_ros rtabmap.launch.py camera:=stack stack:=FOLDER

Arguments are those of depth.launch.py. A sweep takes time: this is for slow robots, whose camera moves by no more than
a few centimetres per sweep. With `stack.mode: sliding` each image gives a result.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from launch_ros.actions import Node

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
TOPICS = [
    ("rgb/image", "all_in_focus/image"),
    ("rgb/camera_info", "all_in_focus/camera_info"),
    ("depth/image", "depth/image"),
]
PARAMETERS = {
    "frame_id": "camera_link",
    "subscribe_depth": True,
    # All messages share one stamp.
    "approx_sync": False,
    # Pixels without depth are NaN; farther than this the depth is a guess for most lenses.
    "Kp/MaxDepth": "5.0",
    "Vis/MaxDepth": "5.0",
}


def generate_launch_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"))
    odometry = Node(
        package="rtabmap_odom", executable="rgbd_odometry", parameters=[PARAMETERS], remappings=TOPICS, output="screen"
    )
    slam = Node(
        package="rtabmap_slam",
        executable="rtabmap",
        parameters=[PARAMETERS],
        remappings=TOPICS,
        arguments=["--delete_db_on_start"],
        output="screen",
    )
    return LaunchDescription([depth, odometry, slam])

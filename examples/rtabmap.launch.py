"""Launch RTAB-Map SLAM on the all-in-focus image (as RGB) and the depth of the same stamp and frame.

ros2 launch dfs_ros rtabmap.launch.py camera:=stack stack:=FOLDER
ros2 launch dfs_ros rtabmap.launch.py camera:=rgbd rgbd:=FOLDER guess_frame:=odom
ros2 launch dfs_ros rtabmap.launch.py camera:=v4l2 lens_calibration:=FILE guess_frame:=odom    robot with odometry on tf

Arguments are those of depth.launch.py, and two frames. `odom_frame`: that of the visual odometry. `guess_frame`: the
fixed frame in which tf knows the camera already, as of wheel odometry; it begins the search of each image, and saves
the robot from two parents of one frame; empty: tf knows none.

A sweep takes time: this is for slow robots, and better with poses of the camera on tf within each sweep.
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
TOPICS = [
    ("rgb/image", "all_in_focus/image"),
    ("rgb/camera_info", "all_in_focus/camera_info"),
    ("depth/image", "depth/image"),
]
PARAMETERS = {
    "frame_id": ParameterValue(LaunchConfiguration("camera_frame"), value_type=str),
    "subscribe_depth": True,
    # All messages share one stamp.
    "approx_sync": False,
    # Reliable, as they are published: by default images that are lost on a busy machine are never missed.
    "qos": 1,
    "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
    # Pixels without depth are NaN; farther than this the depth is a guess for most lenses.
    "Kp/MaxDepth": "5.0",
    "Vis/MaxDepth": "5.0",
}
ODOMETRY = {
    "odom_frame_id": ParameterValue(LaunchConfiguration("odom_frame"), value_type=str),
    "guess_frame_id": ParameterValue(LaunchConfiguration("guess_frame"), value_type=str),
}
MAPPING = {
    # The map is made of depth, in cells of 2 cm; its database keeps depth in millimetres, as its compression needs.
    "Grid/Sensor": "1",
    "Grid/3D": "true",
    "Grid/CellSize": "0.02",
    "Grid/RangeMax": "3.0",
    "Mem/SaveDepth16Format": "true",
}


def generate_launch_description() -> LaunchDescription:
    frames = [
        DeclareLaunchArgument("odom_frame", default_value="visual_odom", description="Frame of the visual odometry"),
        DeclareLaunchArgument(
            "guess_frame", default_value="", description="Fixed frame in which tf knows the camera; empty: none"
        ),
    ]
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"))
    odometry = Node(
        package="rtabmap_odom",
        executable="rgbd_odometry",
        parameters=[PARAMETERS | ODOMETRY],
        remappings=TOPICS,
        output="screen",
    )
    slam = Node(
        package="rtabmap_slam",
        executable="rtabmap",
        parameters=[PARAMETERS | MAPPING],
        remappings=TOPICS,
        arguments=["--delete_db_on_start"],
        output="screen",
    )
    return LaunchDescription([*frames, depth, odometry, slam])

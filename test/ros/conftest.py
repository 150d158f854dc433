"""Launch tests: `colcon test` runs them, and test/test_ros_launch.py where ROS 2 is. pytest does not collect them."""

collect_ignore_glob = ["*.py"]
